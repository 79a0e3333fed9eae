/*
 * gradients.h - gradients of element-wise functions and of rows. Slopes are written so that nothing
 * cancels where they are small: with e = e^-|x|, s(x) s(-x) = e / (1 + e)^2.
 */
#ifndef SAW_SIMD_GRADIENTS_H
#define SAW_SIMD_GRADIENTS_H

#include "kernels/simd/rows.h"

/** Phi(x) + x phi(x); from |x| = 10 on the slope of the end. */
INLINE vf gelu_slope(vf x)
{
    vf a = min(set1(10.0f), absolute(x));
    vf density = exp2_in_range(a * a * (-0.5f * LOG2_E)) * 0.398942280f;
    vf below = fmadd(-a, density, half_erfc(a)); /* the slope of -a */
    return pick(x < 0.0f, below, 1.0f - below);
}

INLINE vf sigmoid_slope(vf x)
{
    vf e = exp_of(-absolute(x)), r = 1.0f / (1.0f + e);
    return e * r * r;
}

INLINE vf tanh_slope(vf x)
{
    return 4.0f * sigmoid_slope(x * 2.0f);
}

INLINE vf silu_slope(vf x)
{
    vf e = exp_of(-absolute(x)), r = 1.0f / (1.0f + e), er = e * r;
    return fmadd(x, er * r, pick(x < 0.0f, er, r));
}

INLINE vf softplus_slope(vf x)
{
    return sigmoid_of(x);
}

INLINE vf relu_slope(vf x)
{
    return pick(x > 0.0f, set1(1.0f), (vf){0});
}

INLINE vf elu_slope(vf x)
{
    return exp_of(min(set1(0.0f), x));
}

INLINE vf exp_slope(vf x)
{
    return exp_of(x);
}

/* The product is rounded before it is added, so that where it is added changes no bit. */
INLINE void map_gradient(vf (*slope)(vf), const float *x, const float *dy, float *dx, bool add,
                         int64_t n)
{
    for (int64_t i = 0; i < n; i += W) {
        vf v = slope(load_up_to(x + i, n - i)) * load_up_to(dy + i, n - i);
        store_up_to(dx + i, add ? load_up_to(dx + i, n - i) + v : v, n - i);
    }
}

#define MAP_GRADIENT(name)                                                                         \
    static void name##_gradient(const float *x, const float *dy, float *dx, bool add, int64_t n)   \
    {                                                                                              \
        map_gradient(name##_slope, x, dy, dx, add, n);                                             \
    }
MAP_GRADIENT(gelu)
MAP_GRADIENT(tanh)
MAP_GRADIENT(sigmoid)
MAP_GRADIENT(silu)
MAP_GRADIENT(softplus)
MAP_GRADIENT(relu)
MAP_GRADIENT(elu)
MAP_GRADIENT(exp)

static void rmsnorm_gradient(const float *x, ptrdiff_t x_stride, const float *dy,
                             ptrdiff_t dy_stride, const float *gamma, float *dx,
                             ptrdiff_t dx_stride, bool add, int64_t rows, int64_t d)
{
    const float root = __builtin_sqrtf((float)d);
    for (int64_t i = 0; i < rows; i++, x += x_stride, dy += dy_stride, dx += dx_stride) {
        vf squares[2] = {{0}, {0}}, products[2] = {{0}, {0}};
        for (int64_t j = 0; j < d; j += W) {
            vf v = load_up_to(x + j, d - j);
            vf g = load_up_to(dy + j, d - j) * load_up_to(gamma + j, d - j);
            squares[j / W & 1] = fmadd(v, v, squares[j / W & 1]);
            products[j / W & 1] = fmadd(g, v, products[j / W & 1]);
        }
        const float square = lanes_sum(squares[0] + squares[1]), norm = __builtin_sqrtf(square);
        const float s = root / (norm < 1e-12f ? 1e-12f : norm);
        const float pull = norm > 1e-12f ? s / square * lanes_sum(products[0] + products[1]) : 0.0f;
        for (int64_t j = 0; j < d; j += W) {
            vf g = load_up_to(dy + j, d - j) * load_up_to(gamma + j, d - j);
            vf v = fmadd(load_up_to(x + j, d - j), set1(-pull), g * s);
            store_up_to(dx + j, add ? load_up_to(dx + j, d - j) + v : v, d - j);
        }
    }
}

#endif
