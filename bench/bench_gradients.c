/*
 * bench_gradients.c - speed of the products of a training step on one thread: forward, the gradient
 * of the data and that of the weight, of the layers of RoFormers, of low-rank matrices and of a
 * Spleeter net. Usage: bench_gradients
 */
#include "core/program_private.h"
#include "kernels/ops.h"
#include "kernels/simd/simd.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *block_of(size_t bytes)
{
    void *block = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!block)
        exit(1);
    return block;
}

static saw_tensor dense(saw_dims d)
{
    saw_tensor t = {.dtype = SAW_F32, .ndim = d.n};
    memcpy(t.dims, d.d, sizeof t.dims);
    saw_dense_strides(d.n, d.d, t.strides);
    size_t n = (size_t)saw_dims_count(&d);
    t.data = block_of(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        ((float *)t.data)[i] = (float)((uint32_t)(i * 2654435761u) >> 8) / 8388608.0f - 1.0f;
    return t;
}

/** Processor seconds of this thread: what other programs take does not count. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/** GFLOP/s of all parts of a call, the best of three. */
static double rate(saw_kernel *kernel, size_t (*scratch_of)(const saw_call *), saw_call c,
                   double flops)
{
    size_t scratch = scratch_of ? scratch_of(&c) : 0;
    double best = 1e9;
    c.scratch = block_of(scratch);
    for (int run = 0; run < 3; run++) {
        double begin = cpu_seconds();
        for (c.part = 0; c.part < c.parts; c.part++)
            kernel(&c);
        double each = cpu_seconds() - begin;
        best = each < best ? each : best;
    }
    free(c.scratch);
    return flops * 1e-9 / best;
}

/** The last entry of the graph, an op on x and weight. */
static void bench(saw_graph *g, saw_val y)
{
    const saw_entry *e = saw_graph_entry(g, saw_graph_entries(g) - 1);
    if (!y)
        exit(1);
    saw_dims dims[] = {
        saw_dims_val(g, e->in[0]), saw_dims_val(g, e->in[1]), {0}, saw_dims_val(g, y)};
    saw_tensor x = dense(dims[0]), w = dense(dims[1]), out = dense(dims[3]), dx = dense(dims[0]),
               dw = dense(dims[1]);
    saw_context *ctx = saw_graph_context(g);
    const saw_entry *packer = e->op->matrix ? e : NULL; /* or one matrix */
    saw_packed *packed = saw_pack_new(ctx, &dims[1], SAW_PRECISION_F32, packer);
    float *panel = block_of(sizeof(float) * (size_t)saw_pack_panel(&dims[1], packer));
    saw_pack_fill(packed, w.data, &dims[1], packer, panel);
    const saw_packed *packs[5] = {NULL, packed};
    const double flops = e->op->flops(e->attr, 3, dims, dims + 3);
    saw_tensor in[] = {x, w, {0}, {0}, out}, outs[3] = {out};
    saw_call c = {.attr = e->attr,
                  .in = in,
                  .out = outs,
                  .n_in = 3,
                  .n_out = 1,
                  .packed = packs,
                  .parts = 1,
                  .simd = saw_simd_best()};
    double forward = rate(e->op->cpu_forward, e->op->scratch, c, flops);
    c.n_in = 5;
    c.n_out = 3;
    outs[0] = dx;
    double data = rate(e->op->cpu_backward, e->op->backward_scratch, c, flops);
    outs[0] = (saw_tensor){0};
    outs[1] = dw;
    c.parts = e->op->backward_parts(e->attr, 3, dims, dims + 3);
    double weight = rate(e->op->cpu_backward, e->op->backward_scratch, c, flops);
    printf("%-7s", e->op->name);
    for (int i = 0; i < 4; i++)
        printf(" %5lld", i < dims[0].n ? (long long)dims[0].d[i] : 1);
    printf(" -> %5lld: forward %6.1f, data %6.1f (%.2f), weight %6.1f (%.2f) GFLOP/s\n",
           (long long)dims[3].d[dims[3].n - 1], forward, data, forward / data, weight,
           forward / weight);
    fflush(stdout);
    void *blocks[] = {x.data, w.data, out.data, dx.data, dw.data, panel};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    saw_free(ctx, packed);
}

int main(void)
{
    static const int64_t linear[][2] = {{384, 1536}, {1536, 384}, {384, 8}, {8, 1536}};
    static const saw_conv_form halve = {.stride = {2, 2}, .before = {1, 1}, .after = {2, 2}};
    saw_context *ctx;
    if (saw_context_open(&ctx, NULL))
        return 1;
    printf("%s, float32 peak %.1f GFLOP/s; in brackets: times of forward\n", saw_simd_best()->name,
           saw_simd_best()->peak(SAW_F32, 0.3));
    for (int i = 0; i < 16; i++) {
        saw_graph *g;
        if (saw_graph_open(ctx, &g))
            return 1;
        if (i < 4) {
            saw_val x = saw_input(g, "x", SAW_DIMS(24800, linear[i][0]));
            bench(g, saw_linear(g, x, saw_input(g, "w", SAW_DIMS(linear[i][1], linear[i][0])), 0));
        } else {
            bool up = i >= 10;
            int level = up ? 15 - i : i - 4; /* 512 x 1024 and two features, halved six times */
            int64_t outer = level ? 8 << level : up ? 1 : 2, inner = 16 << level;
            int64_t from = up ? inner << (level < 5) : outer, size = level + up;
            saw_val x = saw_input(g, "x", SAW_DIMS(1, 512 >> size, 1024 >> size, from));
            saw_dims w = up ? SAW_DIMS(from, outer, 5, 5) : SAW_DIMS(inner, outer, 5, 5);
            bench(g, (up ? saw_conv_transpose : saw_conv)(g, x, saw_input(g, "w", w), 0, &halve));
        }
        saw_graph_close(g);
    }
    saw_context_close(ctx);
    return 0;
}
