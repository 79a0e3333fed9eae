/*
 * test_start.c - what a model that is trained from nothing begins with, for every tensor of the
 * reference implementations: by the kind that the golden cases say it is, and frozen tables by
 * their numbers there.
 */
#include "io/checkpoint.h"
#include "models/model.h"
#include "support/npy.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const cases[] = {"bs_roformer_stereo2",     "bs_roformer_mono_skip",
                                    "bs_roformer_pope",        "mel_band_roformer_stereo1",
                                    "mel_band_roformer_mono2", "bsrnn_magron",
                                    "bsrnn_magron_opt",        "bsrnn_amanteur",
                                    "bsrnn_amanteur_mono_gru", "bsrnn_crlandsc"};

typedef struct keys {
    saw_context *ctx;
    json_t *meta, *list;
    npz *arrays;
    saw_safetensors_entry *entries;
    int n;
} keys;

static const char *rule_of(const keys *k, int i)
{
    return json_string_value(json_array_get(json_array_get(k->list, (size_t)i), 2));
}

static keys open_keys(const char *name)
{
    keys k = {0};
    char path[512];
    assert_int_equal(saw_context_open(&k.ctx, NULL), SAW_OK);
    snprintf(path, sizeof path, "%s/%s/meta.json", SAW_TEST_GOLDEN, name);
    k.meta = json_load_file(path, 0, NULL);
    assert_non_null(k.meta);
    snprintf(path, sizeof path, "%s/%s/golden.npz", SAW_TEST_GOLDEN, name);
    k.arrays = npz_open(path);
    assert_non_null(k.arrays);
    k.list = json_object_get(k.meta, "keys");
    k.n = (int)json_array_size(k.list);
    k.entries = calloc((size_t)k.n, sizeof *k.entries);
    for (int i = 0; i < k.n; i++) {
        const json_t *row = json_array_get(k.list, (size_t)i), *shape = json_array_get(row, 1);
        saw_safetensors_entry *e = &k.entries[i];
        e->name = json_string_value(json_array_get(row, 0));
        e->dtype = SAW_F32;
        e->ndim = (int)json_array_size(shape);
        for (int d = 0; d < e->ndim; d++)
            e->dims[d] = json_integer_value(json_array_get(shape, (size_t)d));
    }
    return k;
}

static void close_keys(keys *k)
{
    free(k->entries);
    json_decref(k->meta);
    npz_close(k->arrays);
    saw_context_close(k->ctx);
}

static saw_checkpoint *begin(const keys *k, uint64_t seed)
{
    saw_checkpoint *ck;
    assert_int_equal(
        saw_checkpoint_of_formula(k->ctx, k->entries, k->n, saw_model_start, seed, &ck), SAW_OK);
    return ck;
}

static float *read_all(saw_checkpoint *ck, const char *name, int64_t *n)
{
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, name);
    assert_non_null(t);
    float *x = malloc((size_t)t->count * sizeof *x);
    assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count, x), SAW_OK);
    *n = t->count;
    return x;
}

/* Numbers that go into one of what comes out; of recurrent layers, the hidden ones. */
static double fan_of(saw_checkpoint *ck, const char *name)
{
    char other[256];
    const char *at = strstr(name, "weight_ih");
    snprintf(other, sizeof other, "%s", name);
    if (at)
        memcpy(other + (at - name), "weight_hh", 9);
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, other);
    assert_non_null(t);
    double fan = 1;
    for (int d = 1; d < t->ndim; d++)
        fan *= (double)t->dims[d];
    return fan;
}

static void check_constant(const char *name, const float *x, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != value)
            fail_msg("%s: number %lld is %g, not %g", name, (long long)i, x[i], value);
}

static void check_uniform(const char *name, const float *x, int64_t n, double bound)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
        if (fabs(x[i]) > bound * 1.000001)
            fail_msg("%s: %g is beyond %g", name, x[i], bound);
    }
    double of = 6 / sqrt((double)n); /* six standard errors, or more */
    if (fabs(sum / (double)n) > of * bound ||
        fabs(squares / (double)n * 3 / bound / bound - 1) > of)
        fail_msg("%s: mean %g, variance %g times that of its range", name, sum / (double)n,
                 squares / (double)n * 3 / bound / bound);
}

static void check_case(const char *name)
{
    keys k = open_keys(name);
    saw_checkpoint *ck = begin(&k, 7);
    npy *tables = npz_get(k.arrays, "buf");
    int64_t table = 0;
    for (int i = 0; i < k.n; i++) {
        const char *key = k.entries[i].name, *rule = rule_of(&k, i);
        int64_t n;
        float *x = read_all(ck, key, &n);
        if (!strcmp(rule, "n"))
            check_constant(key, x, n, 1);
        else if (!strcmp(rule, "prelu"))
            check_constant(key, x, n, 0.25f);
        else if (!strcmp(rule, "pope") || strstr(key, "temperature"))
            check_constant(key, x, n, 0);
        else if (!strcmp(rule, "w"))
            check_uniform(key, x, n, 1 / sqrt(fan_of(ck, key)));
        else if (!strcmp(rule, "b"))
            for (int64_t j = 0; j < n; j++)
                assert_true(fabsf(x[j]) < 1);
        else if (!strcmp(rule, "buf"))
            for (int64_t j = 0; j < n; j++)
                assert_float_equal(x[j], npy_f32(tables)[table++], 1e-6);
        free(x);
    }
    saw_checkpoint_close(ck);
    close_keys(&k);
}

static void test_every_tensor_of_every_family(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(cases[i]);
}

static void test_biases(void **state)
{
    (void)state;
    keys k = open_keys("bsrnn_magron");
    saw_checkpoint *ck = begin(&k, 1);
    int64_t n;
    float *x = read_all(ck, "BN.0.0.bias", &n); /* of a norm */
    check_constant("BN.0.0.bias", x, n, 0);
    free(x);
    x = read_all(ck, "BN.0.1.bias", &n); /* of a convolution of 4 channels */
    check_uniform("BN.0.1.bias", x, n, 0.5);
    free(x);
    saw_checkpoint_close(ck);
    close_keys(&k);
}

static void test_a_function_of_seed_and_name(void **state)
{
    (void)state;
    keys k = open_keys("bs_roformer_stereo2");
    saw_checkpoint *a = begin(&k, 1), *b = begin(&k, 2);
    const char *name = "layers.0.1.layers.0.0.to_qkv.weight",
               *other = "layers.0.2.layers.0.0.to_qkv.weight";
    int64_t n;
    float *x = read_all(a, name, &n), *y = read_all(b, name, &n), *z = read_all(a, other, &n),
          piece[13];
    assert_memory_not_equal(x, y, (size_t)n * sizeof *x);
    assert_memory_not_equal(x, z, (size_t)n * sizeof *x);
    for (int64_t at = 0; at + 13 <= n; at += 13) { /* in pieces as in one */
        assert_int_equal(saw_checkpoint_read_f32(a, saw_checkpoint_find(a, name), at, 13, piece),
                         SAW_OK);
        assert_memory_equal(piece, x + at, sizeof piece);
    }
    free(x);
    free(y);
    free(z);
    saw_checkpoint_close(a);
    saw_checkpoint_close(b);
    close_keys(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tensor_of_every_family),
        cmocka_unit_test(test_biases),
        cmocka_unit_test(test_a_function_of_seed_and_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
