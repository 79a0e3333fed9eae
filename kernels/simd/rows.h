/*
 * rows.h - norms, softmax, rotation, element-wise vectors, recurrent cells. Sums run in four
 * vectors side by side that a fixed tree joins, whatever the alignment.
 */
#ifndef SAW_SIMD_ROWS_H
#define SAW_SIMD_ROWS_H

#include "kernels/simd/math.h"
#include "base/base.h"

INLINE vf load_up_to(const float *p, int64_t n)
{
    return n >= W ? load(p) : load_part(p, n);
}

INLINE void store_up_to(float *p, vf v, int64_t n)
{
    if (n >= W)
        store(p, v);
    else
        store_part(p, v, n);
}

/* ---- sums ------------------------------------------------------------------------------------ */

/** Sum of f(x, y) over n elements; f(0, 0) must be 0. */
INLINE float reduce(vf (*f)(vf sum, vf x, vf y), const float *x, const float *y, int64_t n)
{
    vf sum[4] = {{0}, {0}, {0}, {0}};
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        foreach (j, 4)
            sum[j] = f(sum[j], load(x + i + j * W), load(y + i + j * W));
    for (; i < n; i += W)
        sum[0] = f(sum[0], load_up_to(x + i, n - i), load_up_to(y + i, n - i));
    return lanes_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE vf step_dot(vf sum, vf x, vf y)
{
    return fmadd(x, y, sum);
}

INLINE vf step_sum(vf sum, vf x, vf y)
{
    (void)y;
    return sum + x;
}

static float dot(const float *a, const float *b, int64_t n)
{
    return reduce(step_dot, a, b, n);
}

static float sum(const float *x, int64_t n)
{
    return reduce(step_sum, x, x, n);
}

static float sum_squares(const float *x, int64_t n)
{
    return reduce(step_dot, x, x, n);
}

/** By the bits, which are in the order of the values, with NaN above all. */
static float max_abs(const float *x, int64_t n)
{
    vi top = {0}, top1 = {0};
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        top = max_i(top, (vi)absolute(load(x + i)));
        top1 = max_i(top1, (vi)absolute(load(x + i + W)));
    }
    for (; i < n; i += W)
        top = max_i(top, (vi)absolute(load_up_to(x + i, n - i)));
    top = max_i(top, top1);
    int32_t most = 0;
    foreach (j, W)
        most = top[j] > most ? top[j] : most;
    float y;
    memcpy(&y, &most, sizeof y);
    return y;
}

/* ---- element by element ---------------------------------------------------------------------- */

INLINE void map(vf (*f)(vf), const float *x, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        vf a = f(load(x + i)), b = f(load(x + i + W));
        store(y + i, a);
        store(y + i + W, b);
    }
    for (; i < n; i += W)
        store_up_to(y + i, f(load_up_to(x + i, n - i)), n - i);
}

#define MAP(name)                                                                                  \
    static void map_##name(const float *x, float *y, int64_t n)                                    \
    {                                                                                              \
        map(name##_of, x, y, n);                                                                   \
    }
MAP(exp)
MAP(gelu)
MAP(tanh)
MAP(sigmoid)
MAP(silu)
MAP(softplus)
MAP(relu)
MAP(elu)

static void add(const float *a, const float *b, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        store_up_to(y + i, load_up_to(a + i, n - i) + load_up_to(b + i, n - i), n - i);
}

static void mul(const float *a, const float *b, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        store_up_to(y + i, load_up_to(a + i, n - i) * load_up_to(b + i, n - i), n - i);
}

static void scale(const float *x, float s, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        store_up_to(y + i, load_up_to(x + i, n - i) * s, n - i);
}

static void mul_add(const float *a, const float *b, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W) {
        vf sum =
            fmadd(load_up_to(a + i, n - i), load_up_to(b + i, n - i), load_up_to(y + i, n - i));
        store_up_to(y + i, sum, n - i);
    }
}

static void axpy(float s, const float *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        store_up_to(y + i, fmadd(set1(s), load_up_to(x + i, n - i), load_up_to(y + i, n - i)),
                    n - i);
}

/** a * b of interleaved complex numbers; signs: -1, +1 by turns, or the opposite for conj(b). */
INLINE vf complex_product(vf a, vf b, vf signs)
{
    return fmadd(swap_pairs(a), second_of_pairs(b) * signs, a * first_of_pairs(b));
}

INLINE vf signs_of_turn(bool conjugate)
{
    vf odd = __builtin_convertvector(lane_index() & 1, vf) * 2.0f - 1.0f;
    return conjugate ? -odd : odd;
}

static void complex_mul(const float *a, const float *b, bool conjugate, float *y, int64_t n)
{
    vf signs = signs_of_turn(conjugate);
    for (int64_t i = 0; i < 2 * n; i += W) {
        int64_t left = 2 * n - i;
        store_up_to(y + i, complex_product(load_up_to(a + i, left), load_up_to(b + i, left), signs),
                    left);
    }
}

static void rope(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                 const float *table, ptrdiff_t t_stride, bool conjugate, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++)
        complex_mul(x + i * x_stride, table + i * t_stride, conjugate, y + i * y_stride, d / 2);
}

/* ---- norms and softmax ----------------------------------------------------------------------- */

static void rmsnorm(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                    const float *gamma, int64_t rows, int64_t d)
{
    float root = __builtin_sqrtf((float)d);
    for (int64_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        float norm = __builtin_sqrtf(sum_squares(x, d));
        float s = root / (norm < 1e-12f ? 1e-12f : norm);
        for (int64_t j = 0; j < d; j += W) {
            vf v = load_up_to(x + j, d - j) * s;
            store_up_to(y + j, gamma ? v * load_up_to(gamma + j, d - j) : v, d - j);
        }
    }
}

static void layernorm(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride,
                      const float *gamma, const float *beta, float eps, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        float mean = sum(x, d) / (float)d;
        vf squares[2] = {{0}, {0}};
        for (int64_t j = 0; j < d; j += W) {
            vf v = load_up_to(x + j, d - j) - mean;
            v = d - j < W ? keep_part(v, d - j) : v;
            squares[j / W & 1] = fmadd(v, v, squares[j / W & 1]);
        }
        float s = 1.0f / __builtin_sqrtf(lanes_sum(squares[0] + squares[1]) / (float)d + eps);
        for (int64_t j = 0; j < d; j += W) {
            vf v = (load_up_to(x + j, d - j) - mean) * s;
            v = gamma ? v * load_up_to(gamma + j, d - j) : v;
            store_up_to(y + j, beta ? v + load_up_to(beta + j, d - j) : v, d - j);
        }
    }
}

static void softmax(const float *x, ptrdiff_t x_stride, float *y, ptrdiff_t y_stride, int64_t rows,
                    int64_t d)
{
    for (int64_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        vf top = set1(x[0]), total = {0};
        for (int64_t j = 0; j < d; j += W) {
            vf v = load_up_to(x + j, d - j);
            top = max(d - j < W ? pick(lane_index() < set1_i((int32_t)(d - j)), v, top) : v, top);
        }
        float high = lanes_max(top);
        for (int64_t j = 0; j < d; j += W) {
            vf v = exp_of(load_up_to(x + j, d - j) - high);
            total += d - j < W ? keep_part(v, d - j) : v;
            store_up_to(y + j, v, d - j);
        }
        scale(y, 1.0f / lanes_sum(total), y, d);
    }
}

/* ---- recurrent cells ------------------------------------------------------------------------- */

static void lstm_gates(const float *gates, float *c, float *h, int64_t hidden)
{
    for (int64_t i = 0; i < hidden; i += W) {
        int64_t left = hidden - i;
        vf in = sigmoid_of(load_up_to(gates + i, left)),
           forget = sigmoid_of(load_up_to(gates + hidden + i, left));
        vf cell = tanh_of(load_up_to(gates + 2 * hidden + i, left));
        vf out = sigmoid_of(load_up_to(gates + 3 * hidden + i, left));
        vf next = fmadd(forget, load_up_to(c + i, left), in * cell);
        store_up_to(c + i, next, left);
        store_up_to(h + i, out * tanh_of(next), left);
    }
}

static void gru_gates(const float *from_x, const float *from_h, float *h, int64_t hidden)
{
    for (int64_t i = 0; i < hidden; i += W) {
        int64_t left = hidden - i;
        vf reset = sigmoid_of(load_up_to(from_x + i, left) + load_up_to(from_h + i, left));
        vf keep = sigmoid_of(load_up_to(from_x + hidden + i, left) +
                             load_up_to(from_h + hidden + i, left));
        vf fresh = tanh_of(fmadd(reset, load_up_to(from_h + 2 * hidden + i, left),
                                 load_up_to(from_x + 2 * hidden + i, left)));
        store_up_to(h + i, fmadd(keep, load_up_to(h + i, left) - fresh, fresh), left);
    }
}

/* ---- conversions ----------------------------------------------------------------------------- */

static void f32_from_bf16(const uint16_t *x, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + W <= n; i += W)
        store(y + i, (vf)(__builtin_convertvector(*(const half_u16_any *)(x + i), vu) << 16));
    for (; i < n; i++)
        y[i] = saw_bf16_to_f32(x[i]);
}

static void bf16_from_f32(const float *x, uint16_t *y, int64_t n)
{
    int64_t i = 0;
    for (; i + W <= n; i += W)
        *(half_u16_any *)(y + i) = __builtin_convertvector(bf16_round(load(x + i)) >> 16, half_u16);
    for (; i < n; i++)
        y[i] = saw_f32_to_bf16(x[i]);
}

static void f32_from_f16(const uint16_t *x, float *y, int64_t n)
{
    int64_t i = 0;
#if F16C
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#endif
    for (; i < n; i++)
        y[i] = saw_f16_to_f32(x[i]);
}

static void f16_from_f32(const float *x, uint16_t *y, int64_t n)
{
    int64_t i = 0;
#if F16C
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        y[i] = saw_f32_to_f16(x[i]);
}

#endif
