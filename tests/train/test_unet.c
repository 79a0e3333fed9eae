/*
 * test_unet.c - gradients of a whole net of convolutions: a Spleeter with few filters, weights by
 * formula, an L1 loss. In double against differences along directions of all parameters, with batch
 * norm frozen and by the batch, with dropout; on the CPU against double.
 */
#include "core/program.h"
#include "models/model.h"
#include "nn/nn.h"
#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LEVELS = 6, SAMPLES = 100 * 32, STEMS = 2 };

static const int filters[LEVELS] = {4, 3, 5, 4, 6, 5};

/* ELU, which has no kink for differences to fall on. */
static const char config_text[] =
    "{\"frame_length\":128,\"frame_step\":32,\"T\":64,\"F\":64,\"n_channels\":2,"
    "\"sample_rate\":44100,\"instrument_list\":[\"a\",\"b\"],\"model\":{\"type\":\"unet.unet\","
    "\"params\":{\"conv_activation\":\"ELU\",\"deconv_activation\":\"ELU\"}}}";

typedef struct unet {
    saw_context *ctx;
    saw_model_spec spec;
    const saw_graph *graph; /* that weights are asked for */
} unet;

/* A file with as many filters as wanted: the shapes are all that is read of it. */
static saw_checkpoint *open_shapes(saw_context *ctx, const char *folder)
{
    char path[512], names[STEMS * LEVELS][32];
    saw_safetensors_entry e[STEMS * LEVELS] = {0};
    saw_safetensors *out;
    saw_checkpoint *ck;
    snprintf(path, sizeof path, "%s/shapes.safetensors", folder);
    for (int i = 0; i < STEMS * LEVELS; i++) {
        snprintf(names[i], sizeof names[i], "%d.down%d_conv.1.weight", i / LEVELS, i % LEVELS + 1);
        e[i] = (saw_safetensors_entry){
            .name = names[i], .dtype = SAW_F32, .ndim = 4, .dims = {filters[i % LEVELS], 1, 1, 1}};
    }
    assert_int_equal(saw_safetensors_create(ctx, path, e, STEMS * LEVELS, NULL, 0, &out), SAW_OK);
    for (int i = 0; i < STEMS * LEVELS; i++)
        for (int k = 0; k < filters[i % LEVELS]; k++)
            assert_int_equal(saw_safetensors_write(out, &(float){0}, sizeof(float)), SAW_OK);
    assert_int_equal(saw_safetensors_commit(out), SAW_OK);
    assert_int_equal(saw_checkpoint_open(ctx, path, &ck), SAW_OK);
    return ck;
}

static int open_unet(void **state)
{
    unet *u = calloc(1, sizeof *u);
    saw_config *config;
    char *folder = test_temp_folder();
    assert_int_equal(saw_context_open(&u->ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(
        saw_config_parse_json(u->ctx, "unet", config_text, strlen(config_text), &config), SAW_OK);
    saw_checkpoint *ck = open_shapes(u->ctx, folder);
    if (saw_model_configure(u->ctx, config, ck, &u->spec))
        fail_msg("%s", saw_context_error(u->ctx));
    saw_checkpoint_close(ck);
    saw_config_free(config);
    test_remove_folder(folder);
    *state = u;
    return 0;
}

static int close_unet(void **state)
{
    unet *u = *state;
    saw_model_spec_close(u->ctx, &u->spec);
    saw_context_close(u->ctx);
    free(u);
    return 0;
}

/* ---- programs -------------------------------------------------------------------------------- */

static const saw_dims *dims_of(const unet *u, const char *name)
{
    return &saw_graph_value(u->graph, saw_graph_find(u->graph, name))->dims;
}

static saw_status source_dims(void *user, const char *name, saw_dims *dims)
{
    *dims = *dims_of(user, name);
    return SAW_OK;
}

static saw_status source_read(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    const saw_dims *d = dims_of(user, name);
    double fan = d->n > 1 ? (double)(saw_dims_count(d) / d->d[0]) : 0;
    bool around_one = strstr(name, "_var") || (strstr(name, "weight") && d->n == 1);
    for (int64_t i = 0; i < n; i++) {
        double v = test_value(name, first + i);
        out[i] = (float)(around_one ? 1 + 0.3 * v : fan > 0 ? 1.5 * v / sqrt(fan) : 0.2 * v);
    }
    return SAW_OK;
}

typedef struct training {
    saw_program *program;
    saw_weights *weights;
    saw_run *run;
    int64_t count;
} training;

static void set(const saw_tensor *t, int64_t i, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

static double get(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static void open_training(unet *u, saw_device device, const nn_training_options *options,
                          training *t)
{
    saw_graph *g;
    saw_val loss = 0;
    assert_int_equal(saw_graph_open(u->ctx, &g), SAW_OK);
    nn_training(g, options);
    u->spec.model->record(g, u->spec.options, saw_input(g, "mix", SAW_DIMS(1, 2, SAMPLES)));
    for (int s = 0; s < STEMS && !saw_graph_status(g); s++) {
        char stem[32], target[32];
        snprintf(stem, sizeof stem, "stem%d", s);
        snprintf(target, sizeof target, "target%d", s);
        saw_val y = saw_graph_find(g, stem);
        saw_val part = saw_l1_loss(g, y, saw_input(g, target, saw_dims_val(g, y)), 1);
        loss = loss ? saw_add(g, loss, part) : part;
    }
    saw_output(g, "loss", loss);
    assert_int_equal(saw_graph_train(g, "*"), 100);
    saw_graph_differentiate(g, loss);
    if (saw_program_build(g, &(saw_program_options){.device = device, .all_taps = true},
                          &t->program))
        fail_msg("%s", saw_context_error(u->ctx));
    u->graph = saw_program_graph(t->program);
    assert_int_equal(
        saw_weights_open(u->ctx, &(saw_weight_source){source_dims, source_read, u}, &t->weights),
        SAW_OK);
    if (saw_run_open(t->program, t->weights, &t->run))
        fail_msg("%s", saw_context_error(u->ctx));
    saw_run_seed(t->run, 7);
    t->count = saw_program_trainables(t->program);
    saw_tensor mix = saw_run_named(t->run, "mix");
    for (int64_t i = 0; i < 2 * SAMPLES; i++)
        set(&mix, i, test_input("", (int)(i / SAMPLES), i % SAMPLES, 44100));
    for (int s = 0; s < STEMS; s++) {
        char name[32];
        snprintf(name, sizeof name, "target%d", s);
        saw_tensor y = saw_run_named(t->run, name);
        for (int64_t i = 0; i < saw_tensor_count(&y); i++) { /* far from y, for |.| has a kink */
            double v = get(&mix, i) + 0.01 * test_value(name, i), far = v < 0 ? v - 0.5 : v + 0.5;
            set(&y, i, (float)(s ? -far : far));
        }
    }
    saw_tensor seed = saw_run_named(t->run, "gradient of the loss");
    set(&seed, 0, 1);
}

static void close_training(training *t)
{
    saw_run_close(t->run);
    saw_weights_close(t->weights);
    saw_program_close(t->program);
}

static double loss_of(training *t)
{
    assert_int_equal(saw_run_execute(t->run), SAW_OK);
    saw_tensor loss = saw_run_named(t->run, "loss");
    return get(&loss, 0);
}

/* ---- gradients ------------------------------------------------------------------------------- */

static void check_directions(unet *u, const char *what, const nn_training_options *options)
{
    const double h = 1e-6;
    training t;
    open_training(u, SAW_DEVICE_REF64, options, &t);
    saw_tensor params = saw_run_params(t.run), gradients = saw_run_gradients(t.run);
    double *start = malloc((size_t)t.count * sizeof *start),
           *g = malloc((size_t)t.count * sizeof *g);
    double loss = loss_of(&t), worst = 0, size = 0;
    for (int64_t i = 0; i < t.count; i++) {
        start[i] = get(&params, i);
        g[i] = get(&gradients, i);
        size += g[i] * g[i];
    }
    assert_true(loss > 0 && size > 0);
    for (int k = 0; k < 4; k++) {
        double ends[2], along = 0;
        char name[32];
        snprintf(name, sizeof name, "direction %d", k);
        for (int end = 0; end < 2; end++) {
            for (int64_t i = 0; i < t.count; i++)
                set(&params, i, start[i] + (end ? h : -h) * test_value(name, i));
            ends[end] = loss_of(&t);
        }
        for (int64_t i = 0; i < t.count; i++)
            along += g[i] * test_value(name, i);
        double want = (ends[1] - ends[0]) / (2 * h);
        worst = fmax(worst, fabs(along - want) / fmax(fabs(want), sqrt(size / 3)));
    }
    print_message("%s: %lld parameters, loss %.6f, gradients against differences %.1e\n", what,
                  (long long)t.count, loss, worst);
    assert_true(worst < 1e-7);
    free(start);
    free(g);
    close_training(&t);
}

static void test_frozen(void **state)
{
    check_directions(*state, "batch norm frozen", &(nn_training_options){0});
}

static void test_batch(void **state)
{
    check_directions(*state, "batch norm by the batch",
                     &(nn_training_options){.batch_norm = NN_BN_BATCH});
}

static void test_dropout(void **state)
{
    check_directions(*state, "with dropout",
                     &(nn_training_options){.batch_norm = NN_BN_BATCH, .dropout = true});
}

static double db(double error, double signal)
{
    return error > 0 ? 10 * log10(signal / error) : 999;
}

/* The gradients of the CPU kernels, together and tensor by tensor. */
static void test_cpu(void **state)
{
    for (int mode = 0; mode < 2; mode++) {
        const nn_training_options options = {mode ? NN_BN_BATCH : NN_BN_FROZEN, mode};
        training exact, fast;
        const saw_range *ranges;
        double error = 0, signal = 0, least = 999;
        open_training(*state, SAW_DEVICE_REF64, &options, &exact);
        open_training(*state, SAW_DEVICE_CPU, &options, &fast);
        assert_float_equal(loss_of(&fast), loss_of(&exact), 1e-5);
        saw_tensor want = saw_run_gradients(exact.run), got = saw_run_gradients(fast.run);
        int n = saw_program_ranges(exact.program, &ranges);
        for (int pass = 0; pass < 2; pass++)
            for (int r = 0; r < n; r++) {
                double e = 0, s = 0;
                for (int64_t i = ranges[r].first; i < ranges[r].first + ranges[r].count; i++) {
                    e += pow(get(&got, i) - get(&want, i), 2);
                    s += pow(get(&want, i), 2);
                }
                error += pass ? 0 : e;
                signal += pass ? 0 : s;
                if (pass && s > 1e-6 * signal) /* of tensors that count for something */
                    least = fmin(least, db(e, s));
            }
        print_message("CPU, batch norm %s: %.1f dB, worst tensor %.1f dB\n",
                      mode ? "by the batch, dropout" : "frozen", db(error, signal), least);
        assert_true(db(error, signal) > 100 && least > 80);
        close_training(&fast);
        close_training(&exact);
    }
}

/* ---- what the layers record ------------------------------------------------------------------ */

/* The statistics that running ones are averaged from, against those of the stage before the norm.
 */
static void test_statistics(void **state)
{
    unet *u = *state;
    training t;
    open_training(u, SAW_DEVICE_CPU, &(nn_training_options){.batch_norm = NN_BN_BATCH}, &t);
    loss_of(&t);
    for (int stem = 0; stem < STEMS; stem++)
        for (int level = 1; level <= LEVELS; level++) {
            char name[64];
            snprintf(name, sizeof name, "%d.down%d_conv", stem, level);
            saw_tensor x = saw_run_named(t.run, name);
            snprintf(name, sizeof name, "%d.down%d_act.0.running_mean.batch", stem, level);
            saw_tensor mean = saw_run_named(t.run, name);
            snprintf(name, sizeof name, "%d.down%d_act.0.running_var.batch", stem, level);
            saw_tensor var = saw_run_named(t.run, name);
            assert_true(x.data && mean.data && var.data);
            int64_t d = x.dims[3], rows = saw_tensor_count(&x) / d;
            for (int64_t k = 0; k < d; k++) {
                double m = 0, v = 0;
                for (int64_t r = 0; r < rows; r++)
                    m += get(&x, r * d + k) / (double)rows;
                for (int64_t r = 0; r < rows; r++)
                    v += pow(get(&x, r * d + k) - m, 2) / (double)(rows - 1);
                assert_true(fabs(get(&mean, k) - m) <= 1e-6 * (fabs(m) + sqrt(v)));
                assert_true(fabs(get(&var, k) - v) <= 1e-6 * v);
            }
        }
    close_training(&t);
}

/* Dropout draws from the seed; the rate is kept, and so is the mean. */
static void test_dropout_values(void **state)
{
    (void)state;
    enum { N = 40000 };
    static const double rate = 0.3;
    saw_context *ctx;
    saw_graph *g;
    saw_program *p;
    saw_weights *w;
    saw_run *run;
    float *first = malloc(N * sizeof *first);
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    saw_val x = saw_input(g, "x", SAW_DIMS(4, 100, 100));
    assert_int_equal(nn_dropout(g, x, rate), x);
    nn_training(g, &(nn_training_options){.dropout = true});
    assert_int_equal(nn_dropout(g, x, 0), x);
    saw_output(g, "a", nn_dropout(g, x, rate));
    saw_output(g, "b", nn_dropout(g, x, rate));
    assert_int_equal(saw_program_build(g, &(saw_program_options){0}, &p), SAW_OK);
    assert_int_equal(saw_weights_open(ctx, &(saw_weight_source){0}, &w), SAW_OK);
    assert_int_equal(saw_run_open(p, w, &run), SAW_OK);
    float *in = saw_run_named(run, "x").data;
    const float *a = saw_run_named(run, "a").data, *b = saw_run_named(run, "b").data;
    for (int i = 0; i < N; i++)
        in[i] = 1;
    for (int round = 0; round < 3; round++) {
        saw_run_seed(run, round == 1 ? 6 : 5);
        assert_int_equal(saw_run_execute(run), SAW_OK);
        int dropped = 0, both = 0, as_first = 0;
        for (int i = 0; i < N; i++) {
            assert_true(a[i] == 0 || a[i] == (float)(1 / (1 - rate)));
            dropped += a[i] == 0;
            both += a[i] == 0 && b[i] == 0;
            as_first += round > 0 && a[i] == first[i];
            first[i] = round ? first[i] : a[i];
        }
        assert_float_equal(dropped / (double)N, rate, 0.01);
        assert_float_equal(both / (double)N, rate * rate,
                           0.01); /* each entry has dice of its own */
        if (round == 2)
            assert_int_equal(as_first, N);
        else if (round == 1)
            assert_float_equal(as_first / (double)N, rate * rate + (1 - rate) * (1 - rate), 0.01);
    }
    free(first);
    saw_run_close(run);
    saw_weights_close(w);
    saw_program_close(p);
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frozen),     cmocka_unit_test(test_batch),
        cmocka_unit_test(test_dropout),    cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_dropout_values),
    };
    return cmocka_run_group_tests(tests, open_unet, close_unet);
}
