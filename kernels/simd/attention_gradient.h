/*
 * attention_gradient.h - the gradients of attention for one head, from q, k, v and the gradient of
 * o alone.
 *
 * As in FlashAttention-2 (Dao 2023) the weights are made again for a block of queries at a time;
 * here a block has whole rows of scores, so that softmax needs no second pass. With w_ij = 2^(x_ij
 * - max_j x_ij), l_i = sum_j w_ij and t_ij = do_i . v_j:
 *
 *     ds_ij = scale w_ij / l_i (t_ij - sum_j w_ij t_ij / l_i)
 *     dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i w_ij (do_i / l_i)
 *
 * Scores and slopes lie in pieces of keys, each a block of A [QUERIES][KEYS] to the product that
 * gives dq; the other two take it transposed and add up in compact rows until the last block.
 */
#ifndef SAW_SIMD_ATTENTION_GRADIENT_H
#define SAW_SIMD_ATTENTION_GRADIENT_H

#include "kernels/simd/attention.h"
#include "kernels/simd/outer.h"

enum { PIECE_BYTES = QUERIES * BLOCK_BYTES };
_Static_assert(3 * NR % MR == 0 && KEYS % (3 * NR) == 0 && QUERIES % MR == 0, "whole tiles");

/** Where everything lies in the scratch. */
typedef struct gradient_memory {
    int64_t keys, width, width_v;       /* keys of a piece; columns of dk, dv */
    char *k_scores, *v_scores, *k_sums; /* packed: k and v as n_k columns, k as d columns */
    char *scores, *slopes;              /* pieces of [QUERIES][KEYS] */
    char *q_block, *o_block;            /* blocks of A: scaled q and do */
    float *q_panels, *o_panels;         /* the same rows as columns: q and do / l */
    float *dk, *dv;                     /* [n_k up to whole tiles][width] */
    size_t bytes;
} gradient_memory;

static char *take(char *base, size_t *at, size_t bytes)
{
    char *p = base ? base + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

static gradient_memory gradient_memory_of(char *base, int64_t n_k, int64_t d, int64_t d_v)
{
    int64_t pieces = up_to(n_k, KEYS) / KEYS, rows = n_k + MR;
    gradient_memory m = {.keys = up_to(up_to(n_k, pieces) / pieces, 3 * NR),
                         .width = up_to(d, NR),
                         .width_v = up_to(d_v, NR)};
    size_t *at = &m.bytes;
    m.k_scores = take(base, at, pack_bytes(SAW_F32, n_k, d));
    m.v_scores = take(base, at, pack_bytes(SAW_F32, n_k, d_v));
    m.k_sums = take(base, at, pack_bytes(SAW_F32, d, n_k));
    m.scores = take(base, at, (size_t)pieces * PIECE_BYTES);
    m.slopes = take(base, at, (size_t)pieces * PIECE_BYTES);
    m.q_block = take(base, at, (size_t)(up_to(d, KEYS) / KEYS) * PIECE_BYTES);
    m.o_block = take(base, at, (size_t)(up_to(d_v, KEYS) / KEYS) * PIECE_BYTES);
    m.q_panels = (float *)(void *)take(base, at, (size_t)(QUERIES * m.width) * 4);
    m.o_panels = (float *)(void *)take(base, at, (size_t)(QUERIES * m.width_v) * 4);
    m.dk = (float *)(void *)take(base, at, (size_t)(rows * m.width) * 4);
    m.dv = (float *)(void *)take(base, at, (size_t)(rows * m.width_v) * 4);
    return m;
}

static size_t attention_gradient_bytes(int64_t n_k, int64_t d, int64_t d_v)
{
    return gradient_memory_of(NULL, n_k, d, d_v).bytes;
}

/** One row of d floats, times factor, as row i of panels of `rows` rows. */
static void panel_row(const float *x, float factor, int64_t d, float *panels, int64_t rows,
                      int64_t i)
{
    for (int64_t j = 0; j < d; j += NR)
        foreach (v, NV) {
            int64_t at = j + v * W;
            vf zero = {0};
            store(panels + (j / NR * rows + i) * NR + v * W,
                  at < d ? load_up_to(x + at, d - at) * factor : zero);
        }
}

/** c [+]= a b for the rows of one block: a is a block of depth d, b has n_k columns. */
static void block_scores(const char *a, const char *b, int64_t d, int64_t rows, int64_t n_k,
                         int64_t keys, char *c)
{
    for (int64_t k0 = 0; k0 < n_k; k0 += keys, c += PIECE_BYTES)
        for (int64_t d0 = 0; d0 < d; d0 += KEYS) {
            tile t = {.a = a + d0 / KEYS * PIECE_BYTES,
                      .b = b + pack_offset(SAW_F32, k0, d) + (size_t)d0 * NR * 4,
                      .b_stride = panel_bytes(SAW_F32, d),
                      .groups = d - d0 < KEYS ? d - d0 : KEYS,
                      .c = (float *)(void *)c,
                      .c_stride = KEYS,
                      .add = d0 ? (float *)(void *)c : NULL,
                      .add_stride = KEYS};
            sweep(SAW_F32, t, rows, up_to(n_k - k0 < keys ? n_k - k0 : keys, NR),
                  (ending){NULL, SAW_ACT_NONE});
        }
}

/** Scores of a row to weights, in place; returns 1 / their sum. Up to a whole panel, keys that are
 * not there get next to nothing. */
static float row_weights(char *row, int64_t n_k, int64_t keys)
{
    const vf nothing = set1(-__builtin_inff()), lowest = set1(-126.0f);
    vf top = nothing, top1 = nothing, sum = {0}, sum1 = {0};
    for (int64_t k0 = 0; k0 < n_k; k0 += keys) {
        float *x = (float *)(void *)(row + k0 / keys * PIECE_BYTES);
        int64_t n = n_k - k0 < keys ? n_k - k0 : keys, end = up_to(n, NR);
        for (int64_t j = n / W * W; j < end; j += W)
            store(x + j, pick(lane_index() < set1_i((int32_t)(n - j)), load(x + j), nothing));
        for (int64_t j = 0; j < end; j += NR) {
            top = max(top, load(x + j));
            top1 = max(top1, load(x + j + W));
        }
    }
    const float base = lanes_max(max(top, top1));
    for (int64_t k0 = 0; k0 < n_k; k0 += keys) {
        float *x = (float *)(void *)(row + k0 / keys * PIECE_BYTES);
        int64_t end = up_to(n_k - k0 < keys ? n_k - k0 : keys, NR);
        for (int64_t j = 0; j < end; j += NR) {
            vf w = exp2_in_range(max(lowest, load(x + j) - base)),
               w1 = exp2_in_range(max(lowest, load(x + j + W) - base));
            sum += w;
            sum1 += w1;
            store(x + j, w);
            store(x + j + W, w1);
        }
    }
    return 1.0f / lanes_sum(sum + sum1);
}

/** From t to ds, in place. */
static void row_slopes(const char *weights, char *slopes, float inverse, float factor, int64_t n_k,
                       int64_t keys)
{
    vf sum = {0}, sum1 = {0};
    for (int64_t k0 = 0; k0 < n_k; k0 += keys) {
        const float *w = (const float *)(const void *)(weights + k0 / keys * PIECE_BYTES);
        const float *t = (const float *)(void *)(slopes + k0 / keys * PIECE_BYTES);
        int64_t end = up_to(n_k - k0 < keys ? n_k - k0 : keys, NR);
        for (int64_t j = 0; j < end; j += NR) {
            sum = fmadd(load(w + j), load(t + j), sum);
            sum1 = fmadd(load(w + j + W), load(t + j + W), sum1);
        }
    }
    const float mean = lanes_sum(sum + sum1) * inverse;
    factor *= inverse;
    for (int64_t k0 = 0; k0 < n_k; k0 += keys) {
        const float *w = (const float *)(const void *)(weights + k0 / keys * PIECE_BYTES);
        float *t = (float *)(void *)(slopes + k0 / keys * PIECE_BYTES);
        int64_t end = up_to(n_k - k0 < keys ? n_k - k0 : keys, NR);
        for (int64_t j = 0; j < end; j += W)
            store(t + j, (load(t + j) - mean) * (load(w + j) * factor));
    }
}

/** sums [n_k, width] [+]= pieces^T panels, both of `rows` rows. */
static void key_sums(const char *pieces, const float *panels, int64_t rows, int64_t n_k,
                     int64_t keys, int64_t width, float *sums, bool add)
{
    for (int64_t j = 0; j < n_k; j += MR) {
        const float *a = (const float *)(const void *)(pieces + j / keys * PIECE_BYTES) + j % keys;
        for (int64_t n = 0; n < width; n += NR)
            tile_outer(a, KEYS, panels + n * rows, rows, sums + j * width + n, width, add);
    }
}

static void put_rows(const float *x, int64_t x_stride, float *y, ptrdiff_t y_stride, bool adds,
                     int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++, x += x_stride, y += y_stride)
        if (adds)
            add(y, x, y, d);
        else
            memcpy(y, x, (size_t)d * 4);
}

static void attention_gradient(const saw_attend_gradient *p)
{
    const int64_t n_k = p->n_k, d = p->d, d_v = p->d_v;
    const gradient_memory m = gradient_memory_of(p->scratch, n_k, d, d_v);
    const int64_t blocks = up_to(p->n_q, QUERIES) / QUERIES;
    const int64_t block = up_to(up_to(p->n_q, blocks) / blocks, MR);
    const bool slopes = p->dq || p->dk;
    float inverse[QUERIES];
    pack(SAW_F32, p->k, p->k_stride, 1, 0, n_k, d, m.k_scores);
    if (slopes)
        pack(SAW_F32, p->v, p->v_stride, 1, 0, n_k, d_v, m.v_scores);
    if (p->dq)
        pack(SAW_F32, p->k, 1, p->k_stride, 0, d, n_k, m.k_sums);
    for (int64_t first = 0; first < p->n_q; first += block) {
        const int64_t rows = p->n_q - first < block ? p->n_q - first : block;
        for (int64_t i = 0; i < rows; i++) {
            const float *q = p->q + (first + i) * p->q_stride;
            const float *o = p->grad + (first + i) * p->grad_stride;
            for (int64_t d0 = 0; d0 < d; d0 += KEYS)
                prepare_row(SAW_F32, q + d0, p->scale * LOG2_E, d - d0 < KEYS ? d - d0 : KEYS,
                            m.q_block + d0 / KEYS * PIECE_BYTES + i * BLOCK_BYTES);
            for (int64_t d0 = 0; slopes && d0 < d_v; d0 += KEYS)
                prepare_row(SAW_F32, o + d0, 1.0f, d_v - d0 < KEYS ? d_v - d0 : KEYS,
                            m.o_block + d0 / KEYS * PIECE_BYTES + i * BLOCK_BYTES);
        }
        block_scores(m.q_block, m.k_scores, d, rows, n_k, m.keys, m.scores);
        for (int64_t i = 0; i < rows; i++)
            inverse[i] = row_weights(m.scores + i * BLOCK_BYTES, n_k, m.keys);
        if (p->dv) {
            for (int64_t i = 0; i < rows; i++)
                panel_row(p->grad + (first + i) * p->grad_stride, inverse[i], d_v, m.o_panels, rows,
                          i);
            key_sums(m.scores, m.o_panels, rows, n_k, m.keys, m.width_v, m.dv, first > 0);
        }
        if (!slopes)
            continue;
        block_scores(m.o_block, m.v_scores, d_v, rows, n_k, m.keys, m.slopes);
        for (int64_t i = 0; i < rows; i++)
            row_slopes(m.scores + i * BLOCK_BYTES, m.slopes + i * BLOCK_BYTES, inverse[i], p->scale,
                       n_k, m.keys);
        for (int64_t k0 = 0; p->dq && k0 < n_k; k0 += m.keys) {
            float *dq = p->dq + first * p->dq_stride;
            tile t = {.a = m.slopes + k0 / m.keys * PIECE_BYTES,
                      .b = m.k_sums + (size_t)k0 * NR * 4,
                      .b_stride = panel_bytes(SAW_F32, n_k),
                      .groups = n_k - k0 < m.keys ? n_k - k0 : m.keys,
                      .c = dq,
                      .c_stride = p->dq_stride,
                      .add = k0 || p->add_dq ? dq : NULL,
                      .add_stride = p->dq_stride};
            sweep(SAW_F32, t, rows, d, (ending){NULL, SAW_ACT_NONE});
        }
        if (p->dk) {
            for (int64_t i = 0; i < rows; i++)
                panel_row(p->q + (first + i) * p->q_stride, 1.0f, d, m.q_panels, rows, i);
            key_sums(m.slopes, m.q_panels, rows, n_k, m.keys, m.width, m.dk, first > 0);
        }
    }
    if (p->dk)
        put_rows(m.dk, m.width, p->dk, p->dk_stride, p->add_dk, n_k, d);
    if (p->dv)
        put_rows(m.dv, m.width_v, p->dv, p->dv_stride, p->add_dv, n_k, d_v);
}

#endif
