/*
 * attention.h - softmax(q k^T) v for one head, with memory that does not grow with the number of
 * queries or keys.
 *
 * Queries go in blocks, keys in blocks of at most KEYS; a block of scores stays in cache between
 * the two products. Running maximum m and sum l of each row (Milakov and Gimelshein 2018): with a
 * new block, o and l shrink by 2^(m_old - m_new). Scores are in units of log 2, so that weights are
 * 2^x: the factor is in the copy of q.
 */
#ifndef SAW_SIMD_ATTENTION_H
#define SAW_SIMD_ATTENTION_H

#include "kernels/simd/gemm.h"

enum { QUERIES = 48, KEYS = BLOCK_BYTES / 4, SCORE_DEPTH = 384 };

static size_t attention_pack_bytes(saw_dtype dtype, int64_t n_k, int64_t d, int64_t d_v)
{
    return pack_bytes(dtype, n_k, d) + pack_bytes(dtype, d_v, n_k);
}

static size_t attention_scratch_bytes(int64_t d)
{
    return (size_t)(up_to(d, SCORE_DEPTH) / SCORE_DEPTH + 1) * QUERIES * BLOCK_BYTES;
}

static void attention_pack(const saw_attend *p)
{
    pack(p->dtype, p->k, p->k_stride, 1, 0, p->n_k, p->d, p->packed);
    pack(p->dtype, p->v, 1, p->v_stride, 0, p->d_v, p->n_k,
         (char *)p->packed + pack_bytes(p->dtype, p->n_k, p->d));
}

/**
 * Scores of n keys to weights 2^(x - m), in place, in the form that the second product takes. *m
 * and *l as above; returns the factor by which the sums so far shrink. Up to a whole panel, keys
 * that are not there get next to nothing.
 */
INLINE float weigh(saw_dtype dtype, float *x, int64_t n, const float *mask, float *m, float *l)
{
    const vf nothing = set1(-__builtin_inff()), lowest = set1(-126.0f);
    if (mask)
        for (int64_t j = 0; j < n; j += W)
            store(x + j, fmadd(load_up_to(mask + j, n - j), set1(LOG2_E), load(x + j)));
    const int64_t end = up_to(n, NR);
    for (int64_t j = n / W * W; j < end; j += W)
        store(x + j, pick(lane_index() < set1_i((int32_t)(n - j)), load(x + j), nothing));
    vf top = nothing, top1 = nothing;
    for (int64_t j = 0; j < end; j += NR) {
        top = max(top, load(x + j));
        top1 = max(top1, load(x + j + W));
    }
    const float old = *m, most = lanes_max(max(top, top1)), high = most > old ? most : old;
    const float base = high == -__builtin_inff() ? 0.0f : high;
    vf sum = {0}, sum1 = {0};
    for (int64_t j = 0; j < end; j += NR) {
        vf w = exp2_in_range(max(lowest, load(x + j) - base)),
           w1 = exp2_in_range(max(lowest, load(x + j + W) - base));
        sum += w;
        sum1 += w1;
        prepare_vector(dtype, w, j, (char *)x);
        prepare_vector(dtype, w1, j + W, (char *)x);
    }
    float shrink = 1.0f;
    if (high != old)
        shrink = old == -__builtin_inff() ? 0.0f : exp2_of(set1(old - high))[0];
    *m = high;
    *l = *l * shrink + lanes_sum(sum + sum1);
    return shrink;
}

static void attention(const saw_attend *p)
{
    const kind how = kind_of(p->dtype);
    const char *k_packed = p->packed, *v_packed = k_packed + pack_bytes(p->dtype, p->n_k, p->d);
    const int64_t key_parts = up_to(p->n_k, KEYS) / KEYS;
    const int64_t keys = up_to(up_to(p->n_k, key_parts) / key_parts, NR);
    const int64_t parts = up_to(p->n_q, QUERIES) / QUERIES;
    char *scores = p->scratch, *queries = scores + QUERIES * BLOCK_BYTES;
    float m[QUERIES], l[QUERIES], shrink[QUERIES], inverse[QUERIES];
    for (int64_t part = 0; part < parts; part++) {
        int64_t row = even_split(p->n_q, parts, part),
                rows = even_split(p->n_q, parts, part + 1) - row;
        float *o = p->o + row * p->o_stride;
        for (int64_t i = 0; i < rows; i++) {
            m[i] = -__builtin_inff();
            l[i] = 0.0f;
            const float *q = p->q + (row + i) * p->q_stride;
            for (int64_t d0 = 0; d0 < p->d; d0 += how.depth)
                prepare_row(p->dtype, q + d0, p->scale * LOG2_E,
                            p->d - d0 < how.depth ? p->d - d0 : how.depth,
                            queries + (d0 / how.depth * QUERIES + i) * BLOCK_BYTES);
        }
        for (int64_t k0 = 0; k0 < p->n_k; k0 += keys) {
            int64_t count = p->n_k - k0 < keys ? p->n_k - k0 : keys;
            bool last = k0 + count == p->n_k;
            for (int64_t d0 = 0; d0 < p->d; d0 += how.depth) {
                int64_t depth = p->d - d0 < how.depth ? p->d - d0 : how.depth;
                tile t = {.a = queries + d0 / how.depth * QUERIES * BLOCK_BYTES,
                          .b = k_packed + pack_offset(p->dtype, k0, p->d) +
                               (size_t)(d0 / how.group) * NR * 4,
                          .b_stride = panel_bytes(p->dtype, p->d),
                          .groups = up_to(depth, how.group) / how.group,
                          .c = (float *)scores,
                          .c_stride = KEYS,
                          .add = d0 ? (float *)scores : NULL,
                          .add_stride = KEYS};
                sweep(p->dtype, t, rows, up_to(count, NR), (ending){NULL, SAW_ACT_NONE});
            }
            for (int64_t i = 0; i < rows; i++) {
                float *x = (float *)(scores + i * BLOCK_BYTES);
                const float *mask = p->mask ? p->mask + (row + i) * p->mask_stride + k0 : NULL;
                shrink[i] = p->dtype == SAW_F32 ? weigh(SAW_F32, x, count, mask, m + i, l + i)
                                                : weigh(SAW_BF16, x, count, mask, m + i, l + i);
            }
            for (int64_t i = 0; last && i < rows; i++) {
                inverse[i] = m[i] == -__builtin_inff() ? 0.0f : 1.0f / l[i];
                shrink[i] *= inverse[i];
            }
            for (int64_t i = 0; k0 > 0 && i < rows; i++)
                scale(o + i * p->o_stride, shrink[i], o + i * p->o_stride, p->d_v);
            tile t = {.a = scores,
                      .b = v_packed + (size_t)(k0 / how.group) * NR * 4,
                      .b_stride = panel_bytes(p->dtype, p->n_k),
                      .groups = up_to(count, how.group) / how.group,
                      .c = o,
                      .c_stride = p->o_stride,
                      .add = k0 ? o : NULL,
                      .add_stride = p->o_stride,
                      .row_scale = last ? inverse : NULL};
            sweep(p->dtype, t, rows, p->d_v, (ending){NULL, SAW_ACT_NONE});
        }
    }
}

#endif
