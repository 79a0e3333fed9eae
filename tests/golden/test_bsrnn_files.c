/* test_bsrnn_files.c - BSRNN checkpoints as their home projects save them, on real audio: outputs
 * and gradients. Needs the large golden set (SAW_GOLDEN_DIR). */
#include "core/program.h"
#include "kernels/ops.h"
#include "models/model.h"
#include "run/separator.h"
#include "support/npy.h"
#include "support/test.h"

#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct file_case {
    const char *name, *checkpoint, *config;
    const char *model_type; /* NULL: as the file's tensors or the configuration say */
    saw_device gradients;
} file_case;

static const file_case cases[] = {
    {"bsrnn_magron", "model.ckpt", "config.yaml", NULL, SAW_DEVICE_REF64},
    {"bsrnn_magron", "model.ckpt", NULL, NULL, SAW_DEVICE_REF64},
    {"bsrnn_magron_opt", "model.ckpt", "config.yaml", NULL, SAW_DEVICE_REF64},
    {"bsrnn_magron_opt", "model.ckpt", NULL, NULL, SAW_DEVICE_REF64},
    {"bsrnn_amanteur", "model.pt", "hparams.yaml", NULL, SAW_DEVICE_CPU},
    {"bsrnn_amanteur_mono_gru", "model.pt", "hparams.yaml", NULL, SAW_DEVICE_CPU},
    {"bsrnn_crlandsc", "model.pt", "hparams.yaml", "bsrnn_crlandsc", SAW_DEVICE_CPU},
};
enum { CASES = sizeof cases / sizeof *cases, PATH_ROOM = 512 };

static void put(const saw_tensor *t, int64_t i, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

static double get(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((double *)t->data)[i] : (double)((float *)t->data)[i];
}

/* |got - want| / |want|. */
static double error_of(const saw_tensor *got, npy *want)
{
    double e = 0, s = 0;
    assert_int_equal(saw_tensor_count(got), want->count);
    for (int64_t i = 0; i < want->count; i++) {
        double w = npy_f64(want)[i], d = get(got, i) - w;
        e += d * d;
        s += w * w;
    }
    return s > 0 ? sqrt(e / s) : sqrt(e);
}

static float *read_audio(const char *path, int *channels, int64_t *samples)
{
    SF_INFO info = {0};
    SNDFILE *file = sf_open(path, SFM_READ, &info);
    assert_non_null(file);
    float *x = calloc((size_t)(info.frames * info.channels), sizeof *x);
    assert_int_equal(sf_readf_float(file, x, info.frames), info.frames);
    sf_close(file);
    *channels = info.channels;
    *samples = info.frames;
    return x;
}

static saw_config *read_config(saw_context *ctx, const file_case *k)
{
    char path[PATH_ROOM];
    saw_config *file, *config = saw_config_new(ctx);
    if (!k->config)
        return config;
    snprintf(path, sizeof path, "%s/%s/%s", SAW_GOLDEN_DIR, k->name, k->config);
    if (saw_config_load(ctx, path, &file))
        fail_msg("%s", saw_context_error(ctx));
    for (int i = 0; i < saw_config_size(file); i++)
        saw_config_put_copy(config, saw_config_key(file, i), saw_config_at(file, i));
    if (k->model_type)
        saw_config_put_string(config, "model_type", k->model_type);
    saw_config_free(file);
    return config;
}

/* Outputs, and with `gradients` the gradients of mean |y - target|, on a device. */
static void check(const file_case *k, saw_device device, bool gradients)
{
    char path[PATH_ROOM];
    saw_context *ctx;
    saw_checkpoint *ck;
    saw_model_spec spec;
    saw_weights *weights;
    saw_graph *g;
    saw_program *p;
    saw_run *run;
    int channels;
    int64_t samples;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    snprintf(path, sizeof path, "%s/%s/%s", SAW_GOLDEN_DIR, k->name, k->checkpoint);
    saw_config *config = read_config(ctx, k);
    if (saw_checkpoint_open(ctx, path, &ck) ||
        saw_model_configure(ctx, k->config ? config : NULL, ck, &spec))
        fail_msg("%s: %s", k->name, saw_context_error(ctx));
    snprintf(path, sizeof path, "%s/%s/input.wav", SAW_GOLDEN_DIR, k->name);
    float *audio = read_audio(path, &channels, &samples);
    assert_int_equal(channels, saw_model_common_of(&spec)->channels);

    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    spec.model->record(g, spec.options, saw_input(g, "mix", SAW_DIMS(1, channels, samples)));
    saw_val y = saw_graph_find(g, "stem0"), loss = 0;
    for (int i = 0; i < saw_checkpoint_count(ck); i++) { /* nothing in the file is left over */
        const char *name = saw_checkpoint_at(ck, i)->name;
        assert_true(saw_graph_find(g, name) || (spec.model->surplus && spec.model->surplus(name)));
    }
    if (gradients) {
        loss = saw_l1_loss(g, y, saw_input(g, "target", saw_dims_val(g, y)), 1);
        saw_output(g, "loss", loss);
        saw_graph_train(g, "*");
        assert_int_equal(saw_graph_differentiate(g, loss), SAW_OK);
    }
    saw_weight_source source = saw_checkpoint_source(ck);
    assert_int_equal(saw_weights_open(ctx, &source, &weights), SAW_OK);
    if (saw_program_build(g, &(saw_program_options){.device = device}, &p) ||
        saw_run_open(p, weights, &run))
        fail_msg("%s: %s", k->name, saw_context_error(ctx));
    saw_tensor mix = saw_run_named(run, "mix"), target = saw_run_named(run, "target");
    for (int c = 0; c < channels; c++)
        for (int64_t i = 0; i < samples; i++)
            put(&mix, c * samples + i, audio[i * channels + c]);
    for (int c = 0; gradients && c < channels; c++)
        for (int64_t i = 0; i < target.dims[2]; i++)
            put(&target, c * target.dims[2] + i,
                (float)(0.2 * sin(0.013 * (double)i + 0.7 * c) +
                        0.1 * sin(0.31 * (double)i * (c + 1))));
    if (gradients) {
        saw_tensor seed = saw_run_named(run, "gradient of the loss");
        put(&seed, 0, 1);
    }
    assert_int_equal(saw_run_execute(run), SAW_OK);

    snprintf(path, sizeof path, "%s/%s/output.npy", SAW_GOLDEN_DIR, k->name);
    npy *want = npy_load(path);
    saw_tensor out = saw_run_named(run, "stem0");
    double error = error_of(&out, want), worst = 0;
    npy_free(want);
    snprintf(path, sizeof path, "%s/%s/grads_l1.npz", SAW_GOLDEN_DIR, k->name);
    npz *grads = gradients ? npz_open(path) : NULL;
    for (int i = 0; gradients && i < npz_count(grads); i++) {
        saw_val v = saw_graph_find(g, npz_name(grads, i));
        if (!v) /* a second name of a tensor */
            continue;
        if (strstr(npz_name(grads, i), ".attn_conv_K_") && strstr(npz_name(grads, i), ".beta"))
            continue; /* zero but for rounding */
        saw_tensor d = saw_run_value(run, saw_grad(g, v));
        worst = fmax(worst, error_of(&d, npz_get(grads, npz_name(grads, i))));
    }
    printf("%-24s %s output %.1e%s", k->name, k->config ? "by config" : "inferred ", error,
           gradients ? "" : "\n");
    if (gradients)
        printf(", worst gradient %.1e\n", worst);
    assert_true(error < 2e-5);
    assert_true(worst < 1e-3);
    npz_close(grads);
    free(audio);
    saw_run_close(run);
    saw_program_close(p);
    saw_weights_close(weights);
    saw_model_spec_close(ctx, &spec);
    saw_checkpoint_close(ck);
    saw_config_free(config);
    saw_context_close(ctx);
}

static void outputs_cpu(void **state)
{
    (void)state;
    if (!*SAW_GOLDEN_DIR) {
        printf("skipped: %d cases\n", CASES);
        skip();
    }
    for (int i = 0; i < CASES; i++)
        check(&cases[i], SAW_DEVICE_CPU, false);
}

static void gradients(void **state)
{
    (void)state;
    if (!*SAW_GOLDEN_DIR) {
        printf("skipped: %d cases\n", CASES);
        skip();
    }
    for (int i = 0; i < CASES; i++)
        check(&cases[i], cases[i].gradients, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(outputs_cpu), cmocka_unit_test(gradients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
