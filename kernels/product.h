/*
 * product.h - how ops call the packed matrix product on rows of a walk, and the products that give
 * its gradients.
 *
 * Gradients of weights are cut into blocks, the parts of an entry: small enough that there are some
 * for every thread, large enough that the copies of the rows that a block needs stay cheap.
 */
#ifndef SAW_PRODUCT_H
#define SAW_PRODUCT_H

#include "kernels/kernel.h"
#include "kernels/simd/simd.h"

#include <string.h>

static inline saw_dtype product_dtype(int precision)
{
    return precision == SAW_PRECISION_BF16   ? SAW_BF16
           : precision == SAW_PRECISION_INT8 ? SAW_I8
                                             : SAW_F32;
}

static inline size_t product_scratch(const saw_call *c)
{
    (void)c;
    return SAW_GEMM_SCRATCH_BYTES;
}

/** One step of a walk over x (tensor 0) and y (tensor 1): y = x w^T + bias, added to y where output
 * 0 is added to. bias may be NULL. */
static inline void product_rows(const saw_call *c, const saw_walk *w, const saw_packed *weights,
                                const float *bias)
{
    c->simd->gemm(&(saw_gemm){.dtype = product_dtype(weights->precision),
                              .m = w->rows,
                              .n = weights->rows,
                              .k = weights->inner,
                              .a = SAW_ROW(const float, *w, 0, 0),
                              .a_stride = w->stride[0],
                              .b = weights->data,
                              .c = SAW_ROW(float, *w, 1, 0),
                              .c_stride = w->stride[1],
                              .bias = bias,
                              .accumulate = saw_adds(c, 0),
                              .scratch = c->scratch});
}

/* ---- gradients of data ----------------------------------------------------------------------- */

enum { PRODUCT_TRANSPOSED_BYTES = 2500000 };

/** Columns of the transpose of [n, k] that are packed at a time. */
static inline int64_t product_transposed_columns(const saw_simd *simd, int64_t n, int64_t k)
{
    int64_t one = (int64_t)simd->pack_bytes(SAW_F32, simd->panel, n);
    int64_t most = PRODUCT_TRANSPOSED_BYTES / one;
    most = (most < 1 ? 1 : most) * simd->panel;
    return most < k ? most : k;
}

static inline size_t product_data_scratch(const saw_simd *simd, int64_t n, int64_t k)
{
    return SAW_GEMM_SCRATCH_BYTES +
           simd->pack_bytes(SAW_F32, product_transposed_columns(simd, n, k), n);
}

/** dx = dy w, or added to dx, where w [n, k] is packed: rows are the leading axes of both. */
static inline void product_data_gradient(const saw_call *c, const saw_packed *w,
                                         const saw_tensor *dy, const saw_tensor *dx)
{
    char *transposed = (char *)c->scratch + SAW_GEMM_SCRATCH_BYTES;
    int64_t step = product_transposed_columns(c->simd, w->rows, w->inner);
    for (int64_t k0 = 0, k1; k0 < w->inner; k0 = k1) {
        k1 = k0 + step < w->inner ? k0 + step : w->inner;
        c->simd->pack_transposed(w->data, w->rows, w->inner, k0, k1, transposed);
        const saw_tensor *t[] = {dy, dx};
        saw_walk rows = saw_walk_start(dy->ndim - 1, 2, t);
        while (saw_walk_next(&rows))
            c->simd->gemm(&(saw_gemm){.dtype = SAW_F32,
                                      .m = rows.rows,
                                      .n = k1 - k0,
                                      .k = w->rows,
                                      .a = SAW_ROW(const float, rows, 0, 0),
                                      .a_stride = rows.stride[0],
                                      .b = transposed,
                                      .c = SAW_ROW(float, rows, 1, 0) + k0,
                                      .c_stride = rows.stride[1],
                                      .accumulate = saw_adds(c, 0),
                                      .scratch = c->scratch});
    }
}

/* ---- gradients of weights -------------------------------------------------------------------- */

/** A grid of blocks over a weight [n, k]: `enough` of them, or more when they would be large. */
typedef struct product_grid {
    int64_t n, k, high, wide; /* blocks along n and k */
} product_grid;

static inline product_grid product_grid_of(int64_t n, int64_t k, int64_t enough)
{
    enum { LARGE = 384, SMALL = 96 };
    product_grid g = {n, k, 1, 1};
    for (;;) {
        int64_t height = n / g.high, width = k / g.wide, side = height > width ? height : width;
        if (side <= SMALL || (side <= LARGE && g.high * g.wide >= enough))
            return g;
        *(height > width ? &g.high : &g.wide) *= 2;
    }
}

static inline size_t product_weight_scratch(const saw_simd *simd, product_grid g)
{
    return simd->outer_bytes(g.n / g.high + 1, g.k / g.wide + 1);
}

/** sum [n] = the sum of rows, or added to it, by way of a block's own sum in `partial` [n]. */
static inline void product_sum_rows(const saw_simd *simd, const float *const *rows, int64_t count,
                                    int64_t n, float *partial, float *sum, bool add)
{
    memcpy(partial, rows[0], (size_t)n * sizeof *partial);
    for (int64_t r = 1; r < count; r++)
        simd->add(partial, rows[r], partial, n);
    if (add)
        simd->add(sum, partial, sum, n);
    else
        memcpy(sum, partial, (size_t)n * sizeof *sum);
}

/** Blocks [first, end) of dw [n, k] = sum of dy^T x over the rows of both, which are their leading
 * axes, and of dbias [n], the sum of the rows of dy; each NULL when not wanted, set or added to. */
static inline void product_weight_gradient(const saw_call *c, const saw_tensor *dy,
                                           const saw_tensor *x, product_grid g, int64_t first,
                                           int64_t end, float *dw, ptrdiff_t dw_stride, bool add_dw,
                                           float *dbias, bool add_dbias)
{
    for (int64_t i = first; i < end; i++) {
        int64_t row = i / g.wide, column = i % g.wide;
        int64_t n0 = g.n * row / g.high, n = g.n * (row + 1) / g.high - n0;
        int64_t k0 = g.k * column / g.wide, k = g.k * (column + 1) / g.wide - k0;
        float *sum = dbias && column == 0 ? dbias + n0 : NULL;
        if (!dw && !sum)
            continue;
        const float *a[SAW_OUTER_ROWS], *b[SAW_OUTER_ROWS];
        saw_outer block = {.m = n,
                           .n = k,
                           .a = a,
                           .b = b,
                           .c = dw ? dw + n0 * dw_stride + k0 : NULL,
                           .c_stride = dw_stride,
                           .accumulate = add_dw,
                           .scratch = c->scratch};
        const saw_tensor *t[] = {dy, x};
        saw_walk w = saw_walk_start(dy->ndim - 1, 2, t);
        bool more = saw_walk_next(&w), start = true;
        for (int64_t r = 0; more;) {
            a[block.rows] = SAW_ROW(const float, w, 0, r) + n0;
            b[block.rows++] = dw ? SAW_ROW(const float, w, 1, r) + k0 : NULL;
            if (++r == w.rows) {
                more = saw_walk_next(&w);
                r = 0;
            }
            if (more && block.rows < SAW_OUTER_ROWS)
                continue;
            if (dw)
                c->simd->outer(&block);
            if (sum)
                product_sum_rows(c->simd, a, block.rows, n, c->scratch, sum, add_dbias || !start);
            block.accumulate = true;
            start = false;
            block.rows = 0;
        }
    }
}

#endif
