/*
 * columns.h - sums over rows, one a column, in double. A product of two floats is exact in double,
 * so that every sum is the chain of its rows in rising order, however the rows are dealt out.
 */
#ifndef SAW_SIMD_COLUMNS_H
#define SAW_SIMD_COLUMNS_H

#include "kernels/simd/vec.h"

typedef double vd __attribute__((vector_size(4 * W)));
typedef double vd_any __attribute__((vector_size(4 * W), aligned(8), may_alias));
typedef float half_f_any __attribute__((vector_size(2 * W), aligned(4), may_alias));

enum { COLUMN_ROWS = 32 }; /* rows that are still in cache when the next columns read them */

INLINE vd load_doubles(const float *p)
{
    return __builtin_convertvector(*(const half_f_any *)p, vd);
}

/* Columns [0, W). */
INLINE void column_block(const float *x, ptrdiff_t x_stride, const float *y, ptrdiff_t y_stride,
                         int64_t rows, double *sum, double *product)
{
    vd_any *s = (vd_any *)sum, *p = (vd_any *)product;
    vd s0 = s[0], s1 = s[1], p0 = p[0], p1 = p[1];
    for (int64_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        vd y0 = load_doubles(y), y1 = load_doubles(y + W / 2);
        s0 += y0;
        s1 += y1;
        p0 += y0 * load_doubles(x);
        p1 += y1 * load_doubles(x + W / 2);
    }
    s[0] = s0;
    s[1] = s1;
    p[0] = p0;
    p[1] = p1;
}

static void column_sums(const float *x, ptrdiff_t x_stride, const float *y, ptrdiff_t y_stride,
                        int64_t rows, int64_t d, double *sum, double *product)
{
    for (int64_t r = 0; r < rows; r += COLUMN_ROWS) {
        int64_t n = rows - r < COLUMN_ROWS ? rows - r : COLUMN_ROWS, j = 0;
        const float *xr = x + r * x_stride, *yr = y + r * y_stride;
        for (; j + W <= d; j += W)
            column_block(xr + j, x_stride, yr + j, y_stride, n, sum + j, product + j);
        for (int64_t i = 0; j < d && i < n; i++)
            for (int64_t k = j; k < d; k++) {
                double v = (double)yr[i * y_stride + k];
                sum[k] += v;
                product[k] += v * (double)xr[i * x_stride + k];
            }
    }
}

#endif
