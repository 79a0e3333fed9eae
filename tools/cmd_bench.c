/*
 * cmd_bench.c - how fast this machine is: its peak, the ops of a RoFormer of usual size, a whole
 * model.
 *
 * The peak is that of multiply-adds from registers, on all threads at once. Times are medians.
 */
#include "cli.h"

#include "kernels/ops.h"
#include "kernels/simd/simd.h"
#include "nn/nn.h"
#include "run/separator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    bool peak, ops, json;
    const char *model, *config;
    int64_t threads, runs;
} options;

static const flag flags[] = {
    {"peak", 0, FLAG_SWITCH, offsetof(options, peak), NULL, "only measure the peak", 0, 0},
    {"ops", 0, FLAG_SWITCH, offsetof(options, ops), NULL,
     "measure the ops too, also when a model is given", 0, 0},
    {"model", 'm', FLAG_TEXT, offsetof(options, model), "FILE",
     "measure this checkpoint on one chunk of noise", 0, 0},
    {"config", 0, FLAG_TEXT, offsetof(options, config), "FILE",
     "its configuration, when it is not beside it", 0, 0},
    {"runs", 0, FLAG_INT, offsetof(options, runs), "N",
     "measure so often, default 5; the median counts", 1, 1000},
    {"threads", 0, FLAG_INT, offsetof(options, threads), "N", "default one per processor", 1, 1024},
    {"json", 0, FLAG_SWITCH, offsetof(options, json), NULL,
     "one JSON object a line on standard output", 0, 0},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw bench", "peak and ops"},
    {"bandsaw bench --model model.ckpt",
     "a whole model in f32, bf16 and int8, as a fraction of the peak"},
    {NULL, NULL}};

static int run_bench(int argc, char **argv);

const command command_bench = {.name = "bench",
                               .operands = "",
                               .summary = "measure this machine, the ops and a whole model",
                               .description = "Measures the peak of this machine's arithmetic, the "
                                              "ops of a model of usual size and whole models, "
                                              "as GFLOP/s and as a fraction of the peak.",
                               .flags = flags,
                               .examples = examples,
                               .least_operands = 0,
                               .most_operands = 0,
                               .run = run_bench};

enum { PRECISIONS = 3 };
static const char *const precision_names[PRECISIONS] = {"f32", "bf16", "int8"};

typedef struct bench {
    saw_context *ctx;
    const options *o;
    double peak[PRECISIONS]; /* GFLOP/s of all threads */
    double *seconds;         /* [runs] */
} bench;

/* ---- the peak -------------------------------------------------------------------------------- */

typedef struct peak_task {
    saw_dtype dtype;
    double *rate; /* [threads] */
} peak_task;

static void run_peak(void *arg, int64_t item, int thread)
{
    (void)thread;
    peak_task *t = arg;
    t->rate[item] = saw_simd_best()->peak(t->dtype, 0.3);
}

static saw_status measure_peak(bench *b)
{
    static const saw_dtype dtypes[PRECISIONS] = {SAW_F32, SAW_BF16, SAW_I8};
    int threads = saw_threads(b->ctx);
    double *rate = saw_calloc(b->ctx, (size_t)threads, sizeof *rate);
    if (!rate)
        return SAW_ERR_MEMORY;
    for (int p = 0; p < PRECISIONS && !saw_cancelled(b->ctx); p++) {
        saw_parallel(b->ctx, threads, run_peak, &(peak_task){dtypes[p], rate});
        for (int i = 0; i < threads; i++)
            b->peak[p] += rate[i];
        if (b->o->json)
            cli_print_json(json_pack("{s:s,s:s,s:s,s:i,s:f}", "type", "peak", "precision",
                                     precision_names[p], "instructions", saw_simd_best()->name,
                                     "threads", threads, "gflops", b->peak[p]));
        else
            printf("peak %-5s %8.1f GFLOP/s  (%d threads, %s)\n", precision_names[p], b->peak[p],
                   threads, saw_simd_best()->name);
    }
    saw_free(b->ctx, rate);
    return SAW_OK;
}

/* ---- figures --------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int64_t n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void say_figures(const bench *b, const char *type, const char *name, int precision,
                        double flops, double seconds)
{
    double rate = flops * 1e-9 / seconds;
    if (b->o->json)
        cli_print_json(json_pack("{s:s,s:o,s:s,s:f,s:f,s:f,s:f}", "type", type, "name",
                                 cli_json_text(name), "precision", precision_names[precision],
                                 "seconds", seconds, "flops", flops, "gflops", rate, "of_peak",
                                 rate / b->peak[precision]));
    else
        printf("%-34s %-5s %9.2f ms %9.2f GFLOP %9.1f GFLOP/s %5.1f %% of peak\n", name,
               precision_names[precision], seconds * 1e3, flops * 1e-9, rate,
               100 * rate / b->peak[precision]);
}

/* ---- ops ------------------------------------------------------------------------------------- */

/* Two seconds of BS-RoFormer 384 x 6: frames, bands, width, heads, width of a head. */
enum { T = 201, F = 62, D = 384, H = 8, HEAD = 64 };

static saw_val input(saw_graph *g, int64_t width)
{
    return saw_input(g, "x", SAW_DIMS(1, T, F, width));
}

static saw_val record_qkv(saw_graph *g)
{
    return nn_linear(g, "w", input(g, D), 3 * H * HEAD, false);
}

static saw_val record_out(saw_graph *g)
{
    return nn_linear(g, "w", input(g, H * HEAD), D, false);
}

static saw_val record_ff_in(saw_graph *g)
{
    return saw_gelu(g, nn_linear(g, "w", input(g, D), 4 * D, true));
}

static saw_val record_ff_out(saw_graph *g)
{
    return nn_linear(g, "w", input(g, 4 * D), D, true);
}

static saw_val attention(saw_graph *g, int axis)
{
    saw_val qkv = input(g, 3 * H * HEAD);
    return saw_attention(g, nn_heads(g, qkv, 0, 3, H), nn_heads(g, qkv, 1, 3, H),
                         nn_heads(g, qkv, 2, 3, H), axis, 1 / sqrt(HEAD));
}

static saw_val record_time_attention(saw_graph *g)
{
    return attention(g, 1);
}

static saw_val record_band_attention(saw_graph *g)
{
    return attention(g, 2);
}

static saw_val record_rmsnorm(saw_graph *g)
{
    return nn_rmsnorm(g, "n", input(g, D));
}

static saw_val record_rope(saw_graph *g)
{
    saw_val table = saw_rope_table(g, saw_param_frozen(g, "freqs", SAW_DIMS(HEAD / 2)), T);
    return saw_rope(g, nn_heads(g, input(g, H * HEAD), 0, 1, H), table, 1);
}

static saw_val record_gelu(saw_graph *g)
{
    return saw_gelu(g, input(g, 4 * D));
}

static saw_val record_add(saw_graph *g)
{
    saw_val x = input(g, D);
    return saw_add(g, x, x);
}

static const struct op_case {
    const char *name;
    saw_val (*record)(saw_graph *g);
    bool product; /* measured at every precision */
} op_cases[] = {{"linear 384 -> 1536 (q, k, v)", record_qkv, true},
                {"linear 512 -> 384 (out)", record_out, true},
                {"linear 384 -> 1536, gelu", record_ff_in, true},
                {"linear 1536 -> 384", record_ff_out, true},
                {"attention along 201 frames", record_time_attention, true},
                {"attention along 62 bands", record_band_attention, true},
                {"rmsnorm 384", record_rmsnorm, false},
                {"rope 8 x 64", record_rope, false},
                {"gelu 1536", record_gelu, false},
                {"add 384", record_add, false}};

/* Small numbers for any tensor. */
static saw_status fill_weight(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    (void)user, (void)name;
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)((first + i) * 7919 % 2003 - 1001) * 5e-5f;
    return SAW_OK;
}

static saw_status weight_dims(void *user, const char *name, saw_dims *dims)
{
    const saw_graph *g = user;
    *dims = saw_graph_value(g, saw_graph_find(g, name))->dims;
    return SAW_OK;
}

static saw_status time_op(bench *b, const struct op_case *c, int precision)
{
    saw_graph *g;
    saw_program *p = NULL;
    saw_weights *w = NULL;
    saw_run *r = NULL;
    saw_status status = saw_graph_open(b->ctx, &g);
    if (status)
        return status;
    saw_output(g, "y", c->record(g));
    status = saw_program_build(
        g, &(saw_program_options){.device = SAW_DEVICE_CPU, .precision = (saw_precision)precision},
        &p);
    saw_weight_source source = {weight_dims, fill_weight, p ? (void *)saw_program_graph(p) : NULL};
    if (!status)
        status = saw_weights_open(b->ctx, &source, &w);
    if (!status)
        status = saw_run_open(p, w, &r);
    if (!status) {
        saw_tensor x = saw_run_named(r, "x");
        fill_weight(NULL, NULL, 0, saw_tensor_count(&x), x.data);
        status = saw_run_execute(r); /* caches and pages */
    }
    for (int64_t i = 0; i < b->o->runs && !status; i++) {
        double start = saw_seconds();
        status = saw_run_execute(r);
        b->seconds[i] = saw_seconds() - start;
    }
    if (!status)
        say_figures(b, "op", c->name, precision, saw_program_flops(p),
                    median(b->seconds, b->o->runs));
    saw_run_close(r);
    saw_weights_close(w);
    saw_program_close(p);
    return status;
}

static saw_status time_ops(bench *b)
{
    saw_status status = SAW_OK;
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++)
        for (int p = 0; p < (op_cases[i].product ? PRECISIONS : 1) && !status; p++)
            status = time_op(b, &op_cases[i], p);
    return status;
}

/* ---- a model --------------------------------------------------------------------------------- */

/* One forward over one chunk of noise, `runs` times. */
static saw_status time_model(bench *b, saw_separator *s, int precision)
{
    const saw_separator_info *info = saw_separator_get_info(s);
    int64_t n = info->chunk_samples;
    float *noise = saw_alloc(b->ctx, (size_t)(n * info->channels) * sizeof *noise);
    const float *in[SAW_MAX_CHANNELS];
    double flops = 0;
    if (!noise)
        return SAW_ERR_MEMORY;
    for (int64_t i = 0; i < n * info->channels; i++)
        noise[i] = (float)((i * 7919) % 2003 - 1001) * 2e-4f;
    saw_status status = SAW_OK;
    for (int64_t i = -1; i < b->o->runs && !status; i++) { /* -1: loads the weights */
        saw_stream *t;
        status = saw_stream_open(s, &(saw_stream_options){.whole_samples = n}, &t);
        if (status)
            break;
        flops = saw_stream_get_info(t)->flops_per_chunk;
        double start = saw_seconds();
        for (int64_t done = 0, room; done < n && !status; done += room) {
            room = saw_stream_room(t) < n - done ? saw_stream_room(t) : n - done;
            for (int c = 0; c < info->channels; c++)
                in[c] = noise + c * n + done;
            status = saw_stream_push(t, in, room);
        }
        if (!status)
            status = saw_stream_finish(t);
        if (i >= 0)
            b->seconds[i] = saw_seconds() - start;
        saw_stream_close(t);
    }
    if (!status)
        say_figures(b, "model", info->architecture, precision, flops,
                    median(b->seconds, b->o->runs));
    saw_free(b->ctx, noise);
    return status;
}

static saw_status time_models(bench *b)
{
    saw_status status = SAW_OK;
    for (int p = 0; p < PRECISIONS && !status; p++) {
        saw_separator *s;
        status = saw_separator_open(
            b->ctx, b->o->model,
            &(saw_separator_options){.config = b->o->config, .precision = (saw_precision)p}, &s);
        if (!status)
            status = time_model(b, s, p);
        saw_separator_close(s);
    }
    return status;
}

static int run_bench(int argc, char **argv)
{
    options o = {.runs = 5};
    int count, code;
    if (!flags_parse(&command_bench, argc, argv, &o, &count, &code))
        return code;
    if (o.peak && (o.ops || o.model))
        return usage_error("bench", "--peak measures only the peak: leave --ops and --model out");
    if (o.config && !o.model)
        return usage_error("bench", "--config belongs to a --model");
    bench b = {.ctx = cli_open(o.threads), .o = &o};
    if (!b.ctx)
        return EXIT_FAILED;
    b.seconds = saw_calloc(b.ctx, (size_t)o.runs, sizeof *b.seconds);
    saw_status status = b.seconds ? measure_peak(&b) : SAW_ERR_MEMORY;
    if (!status && (o.ops || !(o.peak || o.model)))
        status = time_ops(&b);
    if (!status && o.model)
        status = time_models(&b);
    code = status || saw_cancelled(b.ctx) ? cli_failed(b.ctx) : 0;
    saw_free(b.ctx, b.seconds);
    cli_close(b.ctx);
    return code;
}
