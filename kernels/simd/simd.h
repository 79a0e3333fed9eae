/*
 * simd.h - the primitives that are compiled once per instruction set: packed matrix products,
 * attention, rows.
 *
 * Every function is single-threaded, takes its memory from the caller and knows nothing of tensors.
 * Bits: a row of a result depends on that row of the input only, never on which rows or columns are
 * computed beside it, so any split over rows, over panels of columns or over calls gives the same
 * bits. Between instruction sets only dB agree, except for int8 products without an activation,
 * which are equal everywhere.
 *
 * Pointers need only their natural alignment unless a contract says 64 bytes. Strides are in
 * elements and may be any value. Outputs may not overlap inputs unless a contract says so; "in
 * place" means the same pointer and stride.
 */
#ifndef SAW_SIMD_H
#define SAW_SIMD_H

#include "base/base.h"

/** What follows a product: act(sum + bias). */
typedef enum saw_act {
    SAW_ACT_NONE,
    SAW_ACT_RELU,
    SAW_ACT_GELU, /* with erf, not the tanh approximation */
    SAW_ACT_TANH,
    SAW_ACT_SIGMOID,
    SAW_ACT_SILU
} saw_act;

enum {
    SAW_GEMM_SCRATCH_BYTES = 120 * (1536 + 4), /* scratch of any saw_gemm, 64-byte aligned */
    SAW_OUTER_ROWS = 192, /* of a saw_outer */
    SAW_S8_DEPTH =
        768 /* int8 sums are exact int32 over this many k; float32 joins the pieces in rising k */
};

/**
 * C[m, n] = act(A[m, :] . B[:, n] + bias[n]), or act(C + A . B + bias) with accumulate; B packed by
 * `pack`. dtype SAW_F32:  float32 products. SAW_BF16: A rounded to bfloat16 (nearest even) on the
 * way, float32 sums. SAW_I8:   A row quantised symmetrically on the way, a = round(x * (127 /
 * max|x|)), likewise B per column; C = sum over pieces of SAW_S8_DEPTH of int32_sum * (row_scale *
 * column_scale). n need not be what was packed: to compute columns n0.. of it (n0 a multiple of
 * `panel`) pass b = packed + pack_offset(dtype, n0, k).
 */
typedef struct saw_gemm {
    saw_dtype dtype;
    int64_t m, n, k; /* m, n >= 0; k >= 1 */
    const float *a;  /* row i is a + i * a_stride, k floats; unused when a_rows is given */
    ptrdiff_t a_stride;
    const float *const *a_rows; /* NULL, or m pointers to rows */
    const void *b;
    float *c; /* may not overlap A */
    ptrdiff_t c_stride;
    const float *bias; /* NULL, or n floats */
    bool accumulate;
    saw_act act;
    void *scratch; /* SAW_GEMM_SCRATCH_BYTES, 64-byte aligned */
} saw_gemm;

/** C[m, n] = sum_r a[r][m] b[r][n], or that added to C, in float32: one block of the rows of a
 * gradient of weights. C may not overlap the rows. */
typedef struct saw_outer {
    int64_t rows; /* 1 .. SAW_OUTER_ROWS */
    int64_t m, n;
    const float *const *a, *const *b; /* rows of m and of n floats */
    float *c;
    ptrdiff_t c_stride;
    bool accumulate;
    void *scratch; /* outer_bytes(m, n), 64-byte aligned */
} saw_outer;

/**
 * o[i] = softmax_j(scale q[i] . k[j] + mask[i, j]) v[j] for one head. Row i of q is q + i *
 * q_stride, d floats; of v and o d_v floats. k and v go through attention_pack once; q may be given
 * in any pieces. In place o = q is fine. dtype SAW_F32, or SAW_BF16 (q, k, v and the weights
 * rounded to bfloat16, float32 sums). A row whose weights are all masked by -INFINITY gives zeros.
 * Memory does not depend on n_q or, but for the packed keys, on n_k.
 */
typedef struct saw_attend {
    saw_dtype dtype;
    int64_t n_q, n_k, d, d_v; /* n_q >= 0, the others >= 1 */
    const float *q, *k, *v;
    float *o;
    ptrdiff_t q_stride, k_stride, v_stride, o_stride;
    float scale;
    const float *mask; /* NULL, or added to the scaled scores: mask[i * mask_stride + j] */
    ptrdiff_t mask_stride;
    void *packed;  /* attention_pack_bytes, 64-byte aligned: written by attention_pack, read by
                      attention */
    void *scratch; /* attention_scratch_bytes, 64-byte aligned: used by attention only */
} saw_attend;

/**
 * The gradients of saw_attend (without a mask, float32), given that of o. dq, dk, dv are set, or
 * added to; NULL: not wanted. They may not overlap q, k, v, grad.
 */
typedef struct saw_attend_gradient {
    int64_t n_q, n_k, d, d_v;
    const float *q, *k, *v, *grad;
    float *dq, *dk, *dv;
    ptrdiff_t q_stride, k_stride, v_stride, grad_stride, dq_stride, dk_stride, dv_stride;
    bool add_dq, add_dk, add_dv;
    float scale;
    void *scratch; /* attention_gradient_bytes, 64-byte aligned */
} saw_attend_gradient;

/** x and y below are n floats, in place allowed. */
typedef void saw_map(const float *x, float *y, int64_t n);
/** dx = f'(x) dy, or added to dx. In place on dy allowed. */
typedef void saw_map_gradient(const float *x, const float *dy, float *dx, bool add, int64_t n);

typedef struct saw_simd {
    const char *name; /* "plain", "avx2", "avx512", "avx512bf16" */
    int panel;        /* columns of a packed panel */
    bool fast_bf16;   /* bf16 products are faster than float32 ones */

    /* ---- products
     * --------------------------------------------------------------------------------------------
     */

    /** Bytes of n packed columns of depth k, a multiple of 64. */
    size_t (*pack_bytes)(saw_dtype dtype, int64_t n, int64_t k);
    /** Bytes before column n0, a multiple of `panel`. */
    size_t (*pack_offset)(saw_dtype dtype, int64_t n0, int64_t k);
    /**
     * Pack columns [n0, n1) of B, where B[kk, n0 + j] = w[j * n_stride + kk * k_stride]: a linear
     * layer's W [N, K] has n_stride K and k_stride 1, a matrix [K, N] n_stride 1 and k_stride N. w
     * points at column n0, a multiple of `panel`; n1 is a multiple of it too or the end. packed is
     * the whole buffer, 64-byte aligned.
     */
    void (*pack)(saw_dtype dtype, const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride,
                 int64_t n0, int64_t n1, int64_t k, void *packed);
    void (*gemm)(const saw_gemm *p);
    /** From n packed float32 columns of depth k pack columns [k0, k1) of the transpose, which has
     * depth n: out is as if they were all. k0 is a multiple of `panel`, out 64-byte aligned. */
    void (*pack_transposed)(const void *packed, int64_t n, int64_t k, int64_t k0, int64_t k1,
                            void *out);
    size_t (*outer_bytes)(int64_t m, int64_t n);
    void (*outer)(const saw_outer *p);

    /* ---- attention
     * -------------------------------------------------------------------------------------------
     */

    size_t (*attention_pack_bytes)(saw_dtype dtype, int64_t n_k, int64_t d, int64_t d_v);
    size_t (*attention_scratch_bytes)(int64_t d);
    void (*attention_pack)(const saw_attend *p);
    void (*attention)(const saw_attend *p);
    size_t (*attention_gradient_bytes)(int64_t n_k, int64_t d, int64_t d_v);
    void (*attention_gradient)(const saw_attend_gradient *p);

    /* ---- rows: row i of x is x + i * x_stride, d floats; in place allowed
     * -------------------------------------- */

    /** y = x / max(|x|, 1e-12) * sqrt(d) * gamma. gamma NULL: ones. */
    void (*rmsnorm)(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                    const float *gamma, int64_t rows, int64_t d);
    /** From the gradient of y that of x, set or added. dx = dy is fine. */
    void (*rmsnorm_gradient)(const float *x, ptrdiff_t x_stride, const float *dy,
                             ptrdiff_t dy_stride, const float *gamma, float *dx,
                             ptrdiff_t dx_stride, bool add, int64_t rows, int64_t d);
    /** y = (x - mean) / sqrt(var + eps) * gamma + beta, var over d. gamma, beta NULL: ones, zeros.
     */
    void (*layernorm)(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                      const float *gamma, const float *beta, float eps, int64_t rows, int64_t d);
    void (*softmax)(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride, int64_t rows,
                    int64_t d);
    /**
     * Rotate neighbours: (y[2i] + j y[2i+1]) = (x[2i] + j x[2i+1]) * (t[2i] + j t[2i+1]), d even; t
     * = (cos, sin) pairs, row i at table + i * t_stride (0: the same for all). conjugate: by the
     * conjugate (the gradient).
     */
    void (*rope)(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                 const float *table, ptrdiff_t t_stride, bool conjugate, int64_t rows, int64_t d);

    /* ---- vectors of n floats
     * ----------------------------------------------------------------------------------- */

    saw_map *exp;  /* results below the smallest normal number are 0 */
    saw_map *gelu; /* x Phi(x) */
    saw_map *tanh, *sigmoid, *silu, *softplus, *relu, *elu;
    saw_map_gradient *gelu_gradient, *tanh_gradient, *sigmoid_gradient, *silu_gradient,
        *softplus_gradient, *relu_gradient, *elu_gradient, *exp_gradient;
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    void (*mul)(const float *a, const float *b, float *y, int64_t n);
    void (*scale)(const float *x, float s, float *y, int64_t n);
    /** y += a * b */
    void (*mul_add)(const float *a, const float *b, float *y, int64_t n);
    /** y += s * x */
    void (*axpy)(float s, const float *x, float *y, int64_t n);
    /** n complex numbers, interleaved: y = a * b, or a * conj(b). */
    void (*complex_mul)(const float *a, const float *b, bool conjugate, float *y, int64_t n);
    float (*dot)(const float *a, const float *b, int64_t n);
    float (*sum)(const float *x, int64_t n);
    float (*sum_squares)(const float *x, int64_t n);
    float (*max_abs)(const float *x, int64_t n);
    /** In double: sum[j] += y[i, j] and product[j] += x[i, j] y[i, j] over rows i in rising order,
     * d columns j. */
    void (*column_sums)(const float *x, ptrdiff_t x_stride, const float *y, ptrdiff_t y_stride,
                        int64_t rows, int64_t d, double *sum, double *product);
    /** Conversions; to 16 bits rounds to nearest even. Not in place. */
    void (*f32_from_bf16)(const uint16_t *x, float *y, int64_t n);
    void (*bf16_from_f32)(const float *x, uint16_t *y, int64_t n);
    void (*f32_from_f16)(const uint16_t *x, float *y, int64_t n);
    void (*f16_from_f32)(const float *x, uint16_t *y, int64_t n);

    /* ---- recurrent cells, one row
     * ------------------------------------------------------------------------------ */

    /** gates [4H] before their activations, in the order i, f, g, o: c = s(f) c + s(i) tanh(g); h =
     * s(o) tanh(c). */
    void (*lstm_gates)(const float *gates, float *c, float *h, int64_t hidden);
    /** from x and from h, each [3H] with its bias, in the order r, z, n: h = (1 - s(z)) tanh(n_x +
     * s(r) n_h) + s(z) h. */
    void (*gru_gates)(const float *from_x, const float *from_h, float *h, int64_t hidden);
    /** Their gradients: what was the gates becomes the gradient of it. dc is that of c_after, then
     * of c_before; dh that of h, which gru_gates_gradient turns into the part of the gradient of
     * h_before that does not come through from_h. */
    void (*lstm_gates_gradient)(float *gates, const float *c_before, const float *c_after,
                                const float *dh, float *dc, int64_t hidden);
    void (*gru_gates_gradient)(float *from_x, float *from_h, const float *h_before, float *dh,
                               int64_t hidden);

    /** Multiply-adds of one thread, from registers only, for about `seconds`: 1e9 operations a
     * second (2 per multiply-add). */
    double (*peak)(saw_dtype dtype, double seconds);
} saw_simd;

/** The fastest set of this processor. */
const saw_simd *saw_simd_best(void);
/** The sets that this processor can run: 0 is "plain", then rising; NULL after the last. */
const saw_simd *saw_simd_at(int i);

#endif
