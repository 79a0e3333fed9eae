/*
 * outer.h - products that gradients need beside the packed one.
 *
 * A sum of outer products c[m, n] += sum_r a[r, m] b[r, n] has the rows of both operands as its
 * depth, and takes them a block at a time. Both are copied to panels, [panel][row][MR] and
 * [panel][row][NR]: one panel of b stays in L1 while the panels of a, which stay in L2, pass over
 * it. Every element is a chain of multiply-adds in rising r for a block, and blocks are added in
 * the order of the calls; nothing in it depends on m, n or the neighbours.
 */
#ifndef SAW_SIMD_OUTER_H
#define SAW_SIMD_OUTER_H

#include "kernels/simd/gemm.h"

/** Columns [k0, k1) of the transpose of a matrix that is packed as n columns of depth k. */
static void pack_transposed(const void *packed, int64_t n, int64_t k, int64_t k0, int64_t k1,
                            void *out)
{
    for (int64_t at = k0; at < k1; at += NR) {
        float *to = (float *)((char *)out + pack_offset(SAW_F32, at - k0, n));
        for (int64_t i = 0; i < n; i += NR) {
            const char *panel = (const char *)packed + pack_offset(SAW_F32, i, k);
            load_panel((const float *)panel + at * NR, NR, 1, k1 - at < NR ? k1 - at : NR,
                       n - i < NR ? n - i : NR, to + i * NR);
        }
    }
}

/* Floats of a panel of a: its last row is stored as whole vectors. */
enum { OUTER_PANEL = SAW_OUTER_ROWS * MR + NR, ROWS_AT_ONCE = 8 };

static size_t outer_bytes(int64_t m, int64_t n)
{
    return sizeof(float) *
           (size_t)(up_to(m, MR) / MR * OUTER_PANEL + up_to(n, NR) * SAW_OUTER_ROWS);
}

/** rows x `columns` floats to panels of `width` columns; zeros where there are none. Goes through a
 * few rows at a time, so that memory is read as streams and cache lines are written whole. */
INLINE void copy_panels(const float *const *x, int64_t rows, int64_t columns, int width,
                        int64_t panel, float *to)
{
    for (int64_t r0 = 0; r0 < rows; r0 += ROWS_AT_ONCE) {
        int64_t r1 = r0 + ROWS_AT_ONCE < rows ? r0 + ROWS_AT_ONCE : rows;
        for (int64_t j = 0; j < columns; j += width) {
            float *y = to + j / width * panel + r0 * width;
            for (int64_t r = r0; r < r1; r++, y += width)
                for (int v = 0; v < width; v += W) {
                    vf zero = {0};
                    store(y + v,
                          j + v < columns ? load_up_to(x[r] + j + v, columns - j - v) : zero);
                }
        }
    }
}

/** One register tile of c [+]= a^T b over `rows` rows of a, a_stride apart, and a panel of b. */
INLINE void tile_outer(const float *a, ptrdiff_t a_stride, const float *b, int64_t rows, float *c,
                       ptrdiff_t c_stride, bool add)
{
    vf acc[MR * NV];
    foreach (i, MR * NV)
        acc[i] = (vf){0};
    foreach (i, MR) /* wanted at the end */
        for (int j = 0; j < NR; j += 16)
            __builtin_prefetch(c + i * c_stride + j, 1);
    for (; rows > 0; rows--, a += a_stride, b += NR)
        EACH_STEP(MR, NV, 1, i, j)
    acc[i * NV + j] = fmadd(set1(a[i]), load(b + j * W), acc[i * NV + j]);
    tile t = {.c = c, .c_stride = c_stride, .add = add ? c : NULL, .add_stride = c_stride};
    tile_store(&t, MR, NV, acc, NULL);
}

enum { FEW = 8 };

/** The same sums where m or n is at most FEW, as of low-rank weights: what there is to read is
 * much, what is done with it little, so that the long rows are not copied. */
static void outer_few(const saw_outer *p)
{
    const bool few_columns = p->n <= FEW;
    const float *const *few = few_columns ? p->b : p->a, *const *rows = few_columns ? p->a : p->b;
    const int64_t length = few_columns ? p->m : p->n, count = few_columns ? p->n : p->m;
    const int64_t stride = up_to(length, W);
    const ptrdiff_t few_stride = few_columns ? 1 : p->c_stride,
                    step = few_columns ? p->c_stride : 1;
    float *factors = p->scratch, *sums = factors + SAW_OUTER_ROWS * FEW;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t i = 0; i < FEW; i++)
            factors[r * FEW + i] = i < count ? few[r][i] : 0.0f;
    for (int64_t r0 = 0; r0 < p->rows; r0 += ROWS_AT_ONCE) {
        const int64_t r1 = r0 + ROWS_AT_ONCE < p->rows ? r0 + ROWS_AT_ONCE : p->rows;
        for (int64_t j = 0; j < length; j += W) {
            vf acc[FEW];
            foreach (i, FEW)
                acc[i] = r0 ? load(sums + i * stride + j) : (vf){0};
            for (int64_t r = r0; r < r1; r++) {
                const vf x = load_up_to(rows[r] + j, length - j);
                foreach (i, FEW)
                    acc[i] = fmadd(set1(factors[r * FEW + i]), x, acc[i]);
            }
            foreach (i, FEW)
                store(sums + i * stride + j, acc[i]);
        }
    }
    for (int64_t j = 0; j < length; j++)
        for (int64_t i = 0; i < count; i++) {
            float *c = p->c + i * few_stride + j * step, sum = sums[i * stride + j];
            *c = p->accumulate ? sum + *c : sum;
        }
}

static void outer(const saw_outer *p)
{
    if (p->m <= FEW || p->n <= FEW) {
        outer_few(p);
        return;
    }
    float *a = p->scratch, *b = a + up_to(p->m, MR) / MR * OUTER_PANEL;
    copy_panels(p->a, p->rows, p->m, MR, OUTER_PANEL, a);
    copy_panels(p->b, p->rows, p->n, NR, SAW_OUTER_ROWS * NR, b);
    for (int64_t j = 0; j < p->n; j += NR, b += SAW_OUTER_ROWS * NR) {
        const float *panel = a;
        for (int64_t i = 0; i < p->m; i += MR, panel += OUTER_PANEL) {
            float *c = p->c + i * p->c_stride + j, edge[MR * NR] = {0};
            int64_t height = p->m - i < MR ? p->m - i : MR, width = p->n - j < NR ? p->n - j : NR;
            if (height == MR && width == NR) {
                tile_outer(panel, MR, b, p->rows, c, p->c_stride, p->accumulate);
                continue;
            }
            for (int64_t r = 0; r < height && p->accumulate; r++)
                memcpy(edge + r * NR, c + r * p->c_stride, (size_t)width * 4);
            tile_outer(panel, MR, b, p->rows, edge, NR, p->accumulate);
            for (int64_t r = 0; r < height; r++)
                memcpy(c + r * p->c_stride, edge + r * NR, (size_t)width * 4);
        }
    }
}

#endif
