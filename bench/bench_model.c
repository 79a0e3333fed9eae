/*
 * bench_model.c - a RoFormer of real size with weights by formula: seconds, GFLOP/s, memory, and
 * the error against stored samples when they are given.
 *
 *     bench_model [--threads N] [--precision f32|bf16|int8] [--runs N] [--plan] [--golden FOLDER]
 *     bench_model --train full|lora [--checkpoint] [--threads N] [--runs N] [--plan]
 *
 * The model is BS-RoFormer 384 x 6 on 8 s of stereo (74.5 M parameters, 2.95 TFLOP). FOLDER holds
 * output_samples.npz of the same case. With --train: whole training steps (forward, backward,
 * AdamW; waveform L1 and multi-resolution STFT) on 4 s, of all parameters or of LoRA r 8 on every
 * linear layer of the transformers.
 */
#include "core/program.h"
#include "kernels/ops.h"
#include "kernels/simd/simd.h"
#include "models/model.h"
#include "nn/adapter.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "support/formula.h"
#include "support/npy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char config_text[] = "{\"model_type\":\"bs_roformer\",\"audio\":{\"chunk_size\":"
                                  "352800},\"model\":{\"dim\":384,\"depth\":6,\"stereo\":true,"
                                  "\"num_stems\":1,\"time_transformer_depth\":1,\"freq_transformer_"
                                  "depth\":1,\"stft_hop_length\":441}}";

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* The formula of the case: see tests/golden/README.md; rotary frequencies are the usual ones. */
static saw_status source_read(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    const saw_graph *g = user;
    const saw_dims *d = &saw_graph_value(g, saw_graph_find(g, name))->dims;
    double scale = d->n >= 2 ? 1 / sqrt((double)d->d[1]) : 0.02;
    for (int64_t i = 0; i < n; i++) {
        double v = test_value(name, first + i);
        if (ends_with(name, "freqs"))
            out[i] = (float)pow(10000, -2.0 * (double)(first + i) / 64);
        else
            out[i] = (float)(ends_with(name, "gamma") ? 1 + 0.1 * v : v * scale);
    }
    return SAW_OK;
}

static saw_status source_dims(void *user, const char *name, saw_dims *dims)
{
    const saw_graph *g = user;
    *dims = saw_graph_value(g, saw_graph_find(g, name))->dims;
    return SAW_OK;
}

static void print_line(void *user, int level, const char *line)
{
    (void)user, (void)level;
    fprintf(stderr, "%s\n", line);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double golden_error(saw_tensor y, const char *folder)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/output_samples.npz", folder);
    npz *z = npz_open(path);
    npy *stride = z ? npz_get(z, "stride353") : NULL;
    if (!stride)
        return NAN;
    int64_t per_row = stride->count / 2;
    double e = 0, s = 0;
    for (int c = 0; c < 2; c++)
        for (int64_t i = 0; i < per_row; i++) {
            double want = npy_f32(stride)[c * per_row + i],
                   got = ((float *)y.data)[c * 352800 + i * 353];
            e += (got - want) * (got - want);
            s += want * want;
        }
    npz_close(z);
    return -10 * log10(e / s);
}

/* Loss and backward behind the model; what of it trains. */
static void record_training(saw_graph *g, bool lora, int64_t samples)
{
    nn_loss_term terms[NN_LOSS_TERMS];
    int n;
    saw_val y = saw_graph_find(g, "stem0"),
            target = saw_input(g, "target", SAW_DIMS(1, 2, samples));
    nn_loss_parse(saw_graph_context(g), "l1 + mrstft", terms, &n);
    saw_val loss = nn_loss(g, terms, n, 1, &y, target);
    saw_graph_train(g, lora ? "*.lora_?.weight" : "*");
    saw_graph_differentiate(g, loss);
}

int main(int argc, char **argv)
{
    saw_options options = {.log = print_line};
    saw_precision precision = SAW_PRECISION_F32;
    int runs = 3;
    bool list = false, train = false, lora = false;
    saw_checkpointing checkpoint = SAW_CHECKPOINT_NONE;
    int64_t samples = 352800;
    const char *golden = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--plan"))
            list = true;
        else if (!strcmp(argv[i], "--checkpoint"))
            checkpoint++; /* twice: nested */
        else if (i + 1 == argc)
            return fprintf(stderr, "%s wants a value\n", argv[i]), 2;
        else if (!strcmp(argv[i], "--threads"))
            options.threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--runs"))
            runs = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--train"))
            train = true, lora = !strcmp(argv[++i], "lora"), samples = 176400;
        else if (!strcmp(argv[i], "--golden"))
            golden = argv[++i];
        else if (!strcmp(argv[i], "--precision"))
            precision = !strcmp(argv[++i], "bf16") ? SAW_PRECISION_BF16
                        : !strcmp(argv[i], "int8") ? SAW_PRECISION_INT8
                                                   : SAW_PRECISION_F32;
        else
            return fprintf(stderr, "unknown: %s\n", argv[i]), 2;
    }
    saw_context *ctx;
    saw_config *config;
    saw_model_spec spec;
    saw_graph *g;
    saw_program *p;
    saw_weights *w;
    saw_run *run;
    if (saw_context_open(&ctx, &options))
        return 1;
    double t0 = saw_seconds();
    if (saw_config_parse_json(ctx, "bench", config_text, strlen(config_text), &config) ||
        saw_model_configure(ctx, config, NULL, &spec) || saw_graph_open(ctx, &g))
        return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
    saw_adapters *adapters = NULL;
    if (lora && saw_adapters_parse(ctx, "layers.* lora rank=8 alpha=8", &adapters))
        return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
    if (lora)
        nn_adapt(g, adapters);
    saw_graph_checkpoint(g, checkpoint);
    spec.model->record(g, spec.options, saw_input(g, "mix", SAW_DIMS(1, 2, samples)));
    if (train)
        record_training(g, lora, samples);
    if (saw_program_build(g, &(saw_program_options){.precision = precision}, &p))
        return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
    double t1 = saw_seconds();
    saw_weight_source source = {
        .dims = source_dims, .read = source_read, .user = (void *)saw_program_graph(p)};
    if (list) {
        saw_buffer text = {.ctx = ctx};
        saw_program_list(p, &text);
        fputs(text.data, stdout);
        saw_buffer_free(&text);
    }
    if (saw_weights_open(ctx, &source, &w) || saw_run_open(p, w, &run))
        return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
    double t2 = saw_seconds();
    saw_tensor mix = saw_run_named(run, "mix");
    for (int c = 0; c < 2; c++)
        for (int64_t i = 0; i < samples; i++)
            ((float *)mix.data)[c * samples + i] = test_input("", c, i, 44100);
    nn_optim *optim = NULL;
    if (train) {
        const saw_range *ranges;
        int n = saw_program_ranges(p, &ranges);
        nn_optim_options how;
        if (nn_optim_defaults(ctx, "adamw", &how) ||
            nn_optim_open(ctx, &how, n, ranges, NULL, saw_run_params(run).data, &optim))
            return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
        *(float *)saw_run_named(run, "gradient of the loss").data = 1;
        saw_tensor target = saw_run_named(run, "target");
        for (int64_t i = 0; i < saw_tensor_count(&target); i++)
            ((float *)target.data)[i] = 0.5f * ((float *)mix.data)[i];
    }
    saw_dtype dtype = saw_precision_dtype(precision);
    double seconds[64], peak = 0, peak_f32 = 0;
    for (int r = 0; r < runs && r < 64; r++) {
        double a = saw_simd_best()->peak(dtype, 0.2), b = saw_simd_best()->peak(SAW_F32, 0.2);
        peak = a > peak ? a : peak;
        peak_f32 = b > peak_f32 ? b : peak_f32;
        double start = saw_seconds();
        if (saw_run_execute(run))
            return fprintf(stderr, "%s\n", saw_context_error(ctx)), 1;
        if (train)
            nn_optim_step(optim, 1, saw_run_params(run).data, saw_run_gradients(run).data);
        seconds[r] = saw_seconds() - start;
        printf("run %d: %.3f s", r, seconds[r]);
        printf(train ? ", loss %.6g\n" : "\n",
               train ? *(float *)saw_run_named(run, "loss").data : 0);
    }
    qsort(seconds, (size_t)runs, sizeof *seconds, by_value);
    double gflop = saw_program_flops(p) * 1e-9, median = seconds[runs / 2];
    peak *= saw_threads(ctx);
    peak_f32 *= saw_threads(ctx);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%s, %s, %d threads: %.0f GFLOP, median %.2f s, best %.2f s, %.0f GFLOP/s; peak %.0f "
           "(f32 %.0f) GFLOP/s, "
           "floor %.2f s, best %.2f times the floor, median %.2f times\n",
           saw_simd_best()->name, saw_dtype_name(dtype), saw_threads(ctx), gflop, median,
           seconds[0], gflop / median, peak, peak_f32, gflop / peak, seconds[0] / (gflop / peak),
           median / (gflop / peak));
    printf("plan %.0f ms, weights made and packed %.2f s, run %.0f MB, weights %.0f MB, peak "
           "resident %.0f MB\n",
           (t1 - t0) * 1e3, t2 - t1, (double)saw_program_run_bytes(p) * 1e-6,
           (double)saw_program_weight_bytes(p) * 1e-6, (double)usage.ru_maxrss * 1024e-6);
    if (golden)
        printf("against the golden samples: %.1f dB\n",
               golden_error(saw_run_named(run, "stem0"), golden));
    nn_optim_close(optim);
    saw_adapters_free(ctx, adapters);
    saw_run_close(run);
    saw_weights_close(w);
    saw_program_close(p);
    saw_model_spec_close(ctx, &spec);
    saw_config_free(config);
    saw_context_close(ctx);
    return 0;
}
