/*
 * optim_muon.c - Muon (Jordan 2024) for matrices, AdamW for the rest. The momentum of a matrix
 * [rows, columns] is replaced by the nearest matrix with all singular values about 1, found by five
 * steps of a quintic Newton-Schulz iteration in float32:
 *
 *     B = mu B + (1 - mu) g      X = (1 - mu) g + mu B (Nesterov), or B; lying, X = X / |X|_F
 *     five times: A = X X^T, X = a X + (b A + c A A) X
 *     p = p (1 - lr wd) - lr sqrt(max(1, rows / columns)) X
 *
 * A matrix is worked on by one thread, so its bits do not depend on their number.
 */
#include "nn/optim_row.h"

#include <math.h>

static const float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
enum { NS_STEPS = 5 };

static bool matrix_of(const nn_optim_options *o, const saw_range *range, int64_t *rows,
                      int64_t *columns)
{
    *rows = range->dims.d[0];
    *columns = range->count / (*rows ? *rows : 1);
    return (range->dims.n == 2 || (range->dims.n > 2 && o->conv_matrices)) && *rows > 1 &&
           *columns > 1;
}

/* Scratch of a lying matrix [r, c], r <= c: two X, two A, a packed operand, the product's own. */
typedef struct ns_scratch {
    float *x, *y, *a, *b;
    char *packed, *gemm;
    size_t bytes;
} ns_scratch;

static ns_scratch lay_out(const saw_simd *simd, int64_t r, int64_t c, char *base)
{
    ns_scratch s = {0};
    size_t x = ((size_t)(r * c) * sizeof(float) + 63) & ~(size_t)63;
    size_t a = ((size_t)(r * r) * sizeof(float) + 63) & ~(size_t)63;
    size_t pack = simd->pack_bytes(SAW_F32, r, c), other = simd->pack_bytes(SAW_F32, c, r);
    s.bytes = 2 * x + 2 * a + (pack > other ? pack : other) + SAW_GEMM_SCRATCH_BYTES;
    if (!base)
        return s;
    s.x = (float *)base;
    s.y = (float *)(base + x);
    s.a = (float *)(base + 2 * x);
    s.b = (float *)(base + 2 * x + a);
    s.gemm = base + 2 * x + 2 * a;
    s.packed = s.gemm + SAW_GEMM_SCRATCH_BYTES;
    return s;
}

/* c [m, n] = a [m, k] w, plus c with add; w[kk, j] = w[j * n_stride + kk * k_stride]. */
static void product(const saw_simd *simd, const ns_scratch *s, int64_t m, int64_t n, int64_t k,
                    const float *a, const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride,
                    bool add, float *c)
{
    simd->pack(SAW_F32, w, n_stride, k_stride, 0, n, k, s->packed);
    simd->gemm(&(saw_gemm){.m = m,
                           .n = n,
                           .k = k,
                           .a = a,
                           .a_stride = k,
                           .b = s->packed,
                           .c = c,
                           .c_stride = n,
                           .accumulate = add,
                           .scratch = s->gemm});
}

static void newton_schulz(const saw_simd *simd, ns_scratch *s, int64_t r, int64_t c)
{
    double squares = 0;
    for (int64_t i = 0; i < r * c; i++)
        squares += (double)s->x[i] * s->x[i];
    simd->scale(s->x, (float)(1 / fmax(sqrt(squares), 1e-7)), s->x, r * c);
    for (int step = 0; step < NS_STEPS; step++) {
        product(simd, s, r, r, c, s->x, s->x, c, 1, false, s->a);
        product(simd, s, r, r, r, s->a, s->a, r, 1, false, s->b); /* A is symmetric */
        for (int64_t i = 0; i < r * r; i++)
            s->b[i] = NS_B * s->a[i] + NS_C * s->b[i];
        simd->scale(s->x, NS_A, s->y, r * c);
        product(simd, s, r, c, r, s->b, s->x, 1, c, true, s->y);
        float *swap = s->x;
        s->x = s->y;
        s->y = swap;
    }
}

static bool muon_whole(const nn_update *u, const saw_range *range, int *buffers, size_t *scratch)
{
    int64_t rows, columns;
    if (!matrix_of(u->options, range, &rows, &columns))
        return false;
    *buffers = 1;
    *scratch =
        lay_out(u->simd, rows < columns ? rows : columns, rows < columns ? columns : rows, NULL)
            .bytes;
    return true;
}

static void muon_step(const nn_update *u, const nn_slice *s)
{
    int64_t rows, columns;
    if (!matrix_of(u->options, s->range, &rows, &columns)) {
        nn_adamw_step(u, s);
        return;
    }
    bool lying = rows <= columns;
    int64_t r = lying ? rows : columns, c = lying ? columns : rows;
    ns_scratch ns = lay_out(u->simd, r, c, s->scratch);
    float mu = (float)u->options->momentum, one = (float)(1 - u->options->momentum);
    float *b = s->state[0];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            int64_t k = i * columns + j;
            float g = s->g_scale * s->g[k];
            b[k] = mu * b[k] + one * g;
            ns.x[lying ? k : j * rows + i] = u->options->nesterov ? one * g + mu * b[k] : b[k];
        }
    newton_schulz(u->simd, &ns, r, c);
    float keep = (float)(1 - (double)s->lr * s->decay);
    float step = (float)(s->lr * sqrt(fmax(1, (double)rows / (double)columns)));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            int64_t k = i * columns + j;
            s->p[k] = keep * s->p[k] - step * ns.x[lying ? k : j * rows + i];
        }
}

const nn_optim_row nn_optim_muon = {
    .defaults = {.name = "muon",
                 .schedule.lr = 2e-3,
                 .weight_decay = 0.01,
                 .momentum = 0.95,
                 .nesterov = true,
                 .beta1 = 0.9,
                 .beta2 = 0.999,
                 .eps = 1e-8},
    .buffers = 2,
    .whole = muon_whole,
    .step = muon_step,
};
