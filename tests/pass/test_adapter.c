/*
 * test_adapter.c - LoRA by sites: nothing at B = 0, merged = attached, gradients, and adapters that
 * the `peft` package wrote (large set).
 */
#include "kernels/ops.h"
#include "models/adapters/lora.h"
#include "nn/adapter.h"
#include "support/formula.h"
#include "support/golden.h"
#include "support/golden_large.h"
#include "support/npy.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const golden_case stereo = {"bs_roformer_stereo2", "bs_roformer", "model"};
static const golden_case mel = {"mel_band_roformer_mono2", "mel_band_roformer", "model"};

enum { RANK = 3 };
static const saw_lora_options options = {.rank = RANK, .alpha = 1.5 * RANK};

/* ---- one run of an adapted compact model ----------------------------------------------------- */

static saw_graph *record(golden_model *m, const saw_adapters *set, bool with_loss)
{
    saw_graph *g;
    assert_int_equal(saw_graph_open(m->ctx, &g), SAW_OK);
    nn_adapt(g, set);
    golden_record_on(m, g, with_loss);
    return g;
}

static bool is_lora(const saw_value *x)
{
    return x->kind == SAW_VALUE_PARAM && saw_glob_match("*.lora_?.weight", x->name);
}

/* Numbers for every A and B: formula + step * direction; B = 0 when b_scale is. Returns how many
 * tensors. */
static int set_lora(golden_model *m, const saw_graph *g, double b_scale, double step)
{
    int n = 0;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (!is_lora(x))
            continue;
        int64_t count = saw_dims_count(&x->dims);
        float *data = malloc((size_t)count * sizeof *data);
        char direction[300];
        snprintf(direction, sizeof direction, "direction.%s", x->name);
        double scale =
            saw_glob_match("*.lora_B.weight", x->name) ? b_scale : 1 / sqrt((double)x->dims.d[1]);
        for (int64_t i = 0; i < count; i++)
            data[i] = (float)(scale * test_value(x->name, i) + step * test_value(direction, i));
        assert_int_equal(saw_weights_set(m->weights, x->name, x->dims, data), SAW_OK);
        free(data);
        n++;
    }
    return n;
}

/* All stems one after another. */
static float *outputs(golden_model *m, const saw_adapters *set, double b_scale, int64_t *count)
{
    saw_graph *g = record(m, set, false);
    saw_program *p;
    saw_run *run;
    assert_true(!set == !set_lora(m, g, b_scale, 0));
    if (saw_program_build(g, NULL, &p) || saw_run_open(p, m->weights, &run))
        fail_msg("%s", saw_context_error(m->ctx));
    golden_fill(m, run);
    assert_int_equal(saw_run_execute(run), SAW_OK);
    float *out = NULL;
    *count = 0;
    for (int s = 0; s < m->stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "stem%d", s);
        saw_tensor y = saw_run_named(run, name);
        int64_t n = saw_tensor_count(&y);
        out = realloc(out, (size_t)(*count + n) * sizeof *out);
        memcpy(out + *count, y.data, (size_t)n * sizeof *out);
        *count += n;
    }
    saw_run_close(run);
    saw_program_close(p);
    return out;
}

/* Every site attached; every site merged; some bands of a layer and a few matrices. */
static const saw_adapted everything_attached[] = {
    {.glob = "*", .options = &options, .attached = true}};
static const saw_adapted everything_merged[] = {{.glob = "*", .options = &options}};
static const saw_adapted some_bands[] = {
    {.glob = "mask_estimators.?.to_freqs.1*", .options = &options, .attached = true},
    {.glob = "*.net.4", .options = &options, .attached = true}};

static saw_adapters set_of(const saw_adapted *rows, int n, saw_adapted *own)
{
    for (int i = 0; i < n; i++) {
        own[i] = rows[i];
        own[i].adapter = saw_adapter_named("lora");
        assert_non_null(own[i].adapter);
    }
    return (saw_adapters){.count = n, .rows = own};
}

static void nothing_at_the_start(void **state)
{
    (void)state;
    golden_model *m = golden_open(&stereo, 2);
    int64_t n;
    float *base = outputs(m, NULL, 0, &n);
    const saw_adapted *const sets[] = {everything_attached, everything_merged, some_bands};
    for (int k = 0; k < 3; k++) {
        saw_adapted own[2];
        saw_adapters set = set_of(sets[k], k == 2 ? 2 : 1, own);
        float *y = outputs(m, &set, 0, &n);
        for (int64_t i = 0; i < n; i++)
            assert_true(y[i] == base[i]);
        free(y);
    }
    assert_null(saw_adapter_named("lora2"));
    free(base);
    golden_close(m);
}

static void merged_is_attached(void **state)
{
    (void)state;
    const golden_case *const both[] = {&stereo, &mel};
    for (int k = 0; k < 2; k++) {
        golden_model *m = golden_open(both[k], 2);
        int64_t n;
        saw_adapted own[2][1];
        saw_adapters attached = set_of(everything_attached, 1, own[0]),
                     merged = set_of(everything_merged, 1, own[1]);
        float *base = outputs(m, NULL, 0, &n);
        float *a = outputs(m, &attached, 0.1, &n), *b = outputs(m, &merged, 0.1, &n);
        double db = test_snr_db(a, b, (size_t)n), change = test_relative_l2(a, base, (size_t)n);
        print_message("%s: merged and attached %.1f dB, change of the output %.2f\n", both[k]->name,
                      db, change);
        assert_true(db >= 100);
        assert_true(change > 0.05);
        free(a);
        free(b);
        free(base);
        golden_close(m);
    }
}

/* With frozen tensors merging costs the run nothing: all of it is done when weights are bound. */
static void merging_is_hoisted(void **state)
{
    (void)state;
    golden_model *m = golden_open(&stereo, 2);
    saw_adapted own[1];
    saw_adapters set = set_of(everything_merged, 1, own);
    saw_program *p, *base;
    assert_int_equal(saw_program_build(record(m, &set, false), NULL, &p), SAW_OK);
    assert_int_equal(saw_program_build(record(m, NULL, false), NULL, &base), SAW_OK);
    assert_true(saw_program_flops(p) == saw_program_flops(base));
    assert_int_equal(saw_program_run_bytes(p), saw_program_run_bytes(base));
    saw_program_close(p);
    saw_program_close(base);
    golden_close(m);
}

/* ---- gradients ------------------------------------------------------------------------------- */

static double number(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

/* The loss at tensors + step * direction and, at step 0, its derivative along the direction. */
static double loss_at(const golden_case *c, const saw_adapters *set, double step, saw_device device,
                      bool ungrouped, double *slope)
{
    golden_model *m = golden_open(c, 2);
    saw_graph *g = record(m, set, true);
    saw_program *p;
    saw_run *run;
    assert_true(set_lora(m, g, 0.1, step) > 0);
    if (slope) {
        assert_true(saw_graph_train(g, "*.lora_?.weight") > 0);
        assert_int_equal(saw_graph_differentiate(g, saw_graph_find(g, "loss")), SAW_OK);
    }
    if (saw_program_build(g, &(saw_program_options){.device = device, .ungrouped = ungrouped},
                          &p) ||
        saw_run_open(p, m->weights, &run))
        fail_msg("%s", saw_context_error(m->ctx));
    golden_fill(m, run);
    saw_tensor seed = saw_run_named(run, "gradient of the loss");
    if (seed.data && seed.dtype == SAW_F64)
        *(double *)seed.data = 1;
    else if (seed.data)
        *(float *)seed.data = 1;
    assert_int_equal(saw_run_execute(run), SAW_OK);
    saw_tensor t = saw_run_named(run, "loss");
    double loss = number(&t, 0);
    for (saw_val v = 1; v < saw_graph_values(g) && slope; v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (!is_lora(x)) {
            assert_true(x->kind != SAW_VALUE_PARAM || !saw_grad(g, v)); /* the base is frozen */
            continue;
        }
        char direction[300];
        snprintf(direction, sizeof direction, "direction.%s", x->name);
        saw_tensor d = saw_run_value(run, saw_grad(g, v));
        assert_non_null(d.data);
        for (int64_t i = 0; i < saw_tensor_count(&d); i++)
            *slope += number(&d, i) * test_value(direction, i);
    }
    saw_run_close(run);
    saw_program_close(p);
    golden_close(m);
    return loss;
}

static void gradients(void **state)
{
    (void)state;
    const saw_adapted *const sets[] = {everything_attached, everything_merged, some_bands};
    for (int k = 0; k < 3; k++) {
        saw_adapted own[2];
        saw_adapters set = set_of(sets[k], k == 2 ? 2 : 1, own);
        double slope = 0, on_cpu = 0, ungrouped = 0, step = 1e-4;
        loss_at(&mel, &set, 0, SAW_DEVICE_REF64, false, &slope);
        double difference = (loss_at(&mel, &set, step, SAW_DEVICE_REF64, false, NULL) -
                             loss_at(&mel, &set, -step, SAW_DEVICE_REF64, false, NULL)) /
                            (2 * step);
        loss_at(&mel, &set, 0, SAW_DEVICE_CPU, false, &on_cpu);
        loss_at(&mel, &set, 0, SAW_DEVICE_CPU, true, &ungrouped);
        print_message("derivative %.9g, by difference %.9g, on the CPU %.9g\n", slope, difference,
                      on_cpu);
        assert_true(fabs(slope - difference) < 2e-4 * fabs(slope));
        assert_true(fabs(slope - on_cpu) < 1e-4 * fabs(slope));
        assert_true(on_cpu == ungrouped);
    }
}

/* ---- adapters of the large set --------------------------------------------------------------- */

static const struct {
    const char *folder;
    bool root; /* scale alpha / sqrt(rank) */
} written[] = {{"peft_bs_roformer_stereo2/lora", false}, {"peft_bs_roformer_stereo2/rslora", true}};
enum {
    WRITTEN = sizeof written / sizeof *written,
    SAMPLES = 11025,
    PREFIX = sizeof "base_model.model." - 1
};

typedef struct adapted_run {
    saw_weights *weights;
    saw_program *p;
    saw_run *run;
} adapted_run;

static saw_tensor find_merged(void *user, const char *name)
{
    const adapted_run *r = user;
    char full[300];
    snprintf(full, sizeof full, "%s.merged", name);
    saw_val v = saw_graph_find(saw_program_graph(r->p), full);
    if (!v)
        fail_msg("%s is not merged", name);
    return saw_run_value(r->run, v);
}

static saw_tensor find_gradient(void *user, const char *name)
{
    const adapted_run *r = user;
    const saw_graph *g = saw_program_graph(r->p);
    saw_val v = saw_graph_find(g, name + PREFIX);
    if (!v)
        fail_msg("there is no tensor %s", name);
    return saw_run_value(r->run, saw_grad(g, v));
}

/* A row for every module of the file, and its tensors among the weights. */
static saw_adapters adapters_of_file(saw_context *ctx, int k, bool attached, saw_weights *w)
{
    char *path = golden_large_path(written[k].folder, "adapter_config.json");
    json_error_t error;
    json_t *config = json_load_file(path, 0, &error);
    assert_non_null(config);
    double alpha = json_number_value(json_object_get(config, "lora_alpha"));
    json_decref(config);
    free(path);
    path = golden_large_path(written[k].folder, "adapter_model.safetensors");
    saw_checkpoint *ck;
    assert_int_equal(saw_checkpoint_open(ctx, path, &ck), SAW_OK);
    free(path);
    int n = 0;
    saw_adapted *rows = calloc((size_t)saw_checkpoint_count(ck), sizeof *rows);
    for (int i = 0; i < saw_checkpoint_count(ck); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        const char *name =
            strncmp(t->name, "base_model.model.", PREFIX) ? t->name : t->name + PREFIX;
        saw_dims dims = saw_dims_of(t->ndim, t->dims);
        float *data = malloc((size_t)saw_dims_count(&dims) * sizeof *data);
        assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, saw_dims_count(&dims), data), SAW_OK);
        assert_int_equal(saw_weights_set(w, name, dims, data), SAW_OK);
        free(data);
        const char *end = strstr(name, ".lora_A.weight");
        if (!end)
            continue;
        saw_lora_options *o = malloc(sizeof *o);
        *o = (saw_lora_options){.rank = (int)dims.d[0], .alpha = alpha, .rslora = written[k].root};
        rows[n++] = (saw_adapted){.glob = strndup(name, (size_t)(end - name)),
                                  .adapter = saw_adapter_named("lora"),
                                  .options = o,
                                  .attached = attached};
    }
    saw_checkpoint_close(ck);
    assert_true(n > 0);
    return (saw_adapters){.count = n, .rows = rows};
}

static void check_file(int k, bool attached)
{
    saw_context *ctx;
    saw_separator *s;
    char *path = golden_large_path("bs_roformer_stereo2", "model.ckpt"), where[256] = "";
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_separator_open(ctx, path, NULL, &s), SAW_OK);
    free(path);
    adapted_run r;
    saw_weight_source source = saw_checkpoint_source((saw_checkpoint *)saw_separator_checkpoint(s));
    assert_int_equal(saw_weights_open(ctx, &source, &r.weights), SAW_OK);
    saw_adapters set = adapters_of_file(ctx, k, attached, r.weights);
    saw_graph *g;
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    nn_adapt(g, &set);
    saw_separator_spec(s)->model->record(g, saw_separator_spec(s)->options,
                                         saw_input(g, "mix", SAW_DIMS(1, 2, SAMPLES)));
    if (attached) {
        saw_val loss = 0;
        for (int i = 0; i < 2; i++) {
            saw_val y = saw_graph_find(g, i ? "stem1" : "stem0");
            saw_val part =
                saw_l1_loss(g, y, saw_input(g, i ? "target1" : "target0", saw_dims_val(g, y)), 0.5);
            loss = loss ? saw_add(g, loss, part) : part;
        }
        saw_output(g, "loss", loss);
        assert_int_equal(saw_graph_train(g, "*.lora_?.weight"), 2 * set.count);
        assert_int_equal(saw_graph_differentiate(g, loss), SAW_OK);
    }
    if (saw_program_build(g, NULL, &r.p) || saw_run_open(r.p, r.weights, &r.run))
        fail_msg("%s", saw_context_error(ctx));
    int channels;
    int64_t samples;
    float *input = golden_large_input("bs_roformer_stereo2", &channels, &samples);
    for (int c = 0; c < 2; c++)
        memcpy((float *)saw_run_named(r.run, "mix").data + c * SAMPLES, input + c * samples,
               SAMPLES * sizeof *input);
    free(input);
    for (int i = 0; i < 2 && attached; i++)
        for (int j = 0; j < 2 * SAMPLES; j++)
            ((float *)saw_run_named(r.run, i ? "target1" : "target0").data)[j] =
                golden_large_target(i, j / SAMPLES, j % SAMPLES);
    if (attached)
        *(float *)saw_run_named(r.run, "gradient of the loss").data = 1;
    assert_int_equal(saw_run_execute(r.run), SAW_OK);

    path = golden_large_path(written[k].folder, "output.npy");
    npy *want = npy_load(path);
    assert_non_null(want);
    free(path);
    assert_int_equal(want->count, 4 * SAMPLES);
    float got[4 * SAMPLES];
    for (int i = 0; i < 2; i++)
        memcpy(got + i * 2 * SAMPLES, saw_run_named(r.run, i ? "stem1" : "stem0").data,
               2 * SAMPLES * sizeof *got);
    double output = test_relative_l2(got, npy_f32(want), 4 * SAMPLES);
    npy_free(want);
    path = golden_large_path(written[k].folder, attached ? "grads_l1.npz" : "merged.npz");
    double worst = golden_large_worst(path, attached ? find_gradient : find_merged, &r, where);
    free(path);
    print_message("%s %s: output %.1e, %s %.1e (%s)\n", written[k].folder,
                  attached ? "attached" : "merged", output, attached ? "gradients" : "weights",
                  worst, where);
    assert_true(output < 2e-5);
    assert_true(worst < (attached ? 1e-3 : 2e-6));
    for (int i = 0; i < set.count; i++) {
        free((char *)set.rows[i].glob);
        free((void *)set.rows[i].options);
    }
    free((void *)set.rows);
    saw_run_close(r.run);
    saw_program_close(r.p);
    saw_weights_close(r.weights);
    saw_separator_close(s);
    saw_context_close(ctx);
}

static void adapters_of_peft(void **state)
{
    (void)state;
    if (!golden_large_there(2 * WRITTEN))
        skip();
    for (int k = 0; k < WRITTEN; k++)
        for (int attached = 0; attached < 2; attached++)
            check_file(k, attached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_at_the_start), cmocka_unit_test(merged_is_attached),
        cmocka_unit_test(merging_is_hoisted),   cmocka_unit_test(gradients),
        cmocka_unit_test(adapters_of_peft),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
