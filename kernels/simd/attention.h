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

/** Scores to weights 2^(x - m), in place, in the form that the second product takes; *m, *l as
 * above, *shrink the factor. */
static void weigh(saw_dtype dtype, float *x, int64_t n, const float *mask, float *m, float *l,
                  float *shrink)
{
    vf top[2] = {set1(-__builtin_inff()), set1(-__builtin_inff())};
    int64_t tail = n % W;
    if (mask)
        for (int64_t j = 0; j < n; j += W)
            store(x + j, fmadd(n - j >= W ? load(mask + j) : load_part(mask + j, n - j),
                               set1(LOG2_E), load(x + j)));
    if (tail)
        store(x + n - tail, pick(lane_index() < set1_i((int32_t)tail), load(x + n - tail),
                                 set1(-__builtin_inff())));
    for (int64_t j = 0; j < n; j += W)
        top[j / W & 1] = max(top[j / W & 1], load(x + j));
    float high = lanes_max(max(top[0], top[1]));
    high = high > *m ? high : *m;
    float base = high == -__builtin_inff() ? 0.0f : high;
    *shrink = exp2_of(set1(*m - base))[0];
    *m = high;
    vf sum[2] = {{0}, {0}};
    for (int64_t j = 0; j < n; j += W) {
        vf w = exp2_of(load(x + j) - base);
        sum[j / W & 1] += w;
        prepare_vector(dtype, w, j, (char *)x);
    }
    *l = *l * *shrink + lanes_sum(sum[0] + sum[1]);
}

static void attention(const saw_attend *p)
{
    const kind how = kind_of(p->dtype);
    const char *k_packed = p->packed, *v_packed = k_packed + pack_bytes(p->dtype, p->n_k, p->d);
    const int64_t key_parts = up_to(p->n_k, KEYS) / KEYS;
    const int64_t keys = up_to(up_to(p->n_k, key_parts) / key_parts, NR);
    const int64_t parts = up_to(p->n_q, QUERIES) / QUERIES;
    char *scores = p->scratch, *queries = scores + QUERIES * BLOCK_BYTES;
    float m[QUERIES], l[QUERIES], inverse[QUERIES];
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
                float shrink;
                weigh(p->dtype, (float *)(scores + i * BLOCK_BYTES), count,
                      p->mask ? p->mask + (row + i) * p->mask_stride + k0 : NULL, m + i, l + i,
                      &shrink);
                if (last) {
                    inverse[i] = l[i] > 0.0f || l[i] != l[i] ? 1.0f / l[i] : 0.0f;
                    shrink *= inverse[i];
                }
                if (k0 > 0)
                    scale(o + i * p->o_stride, shrink, o + i * p->o_stride, p->d_v);
            }
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
