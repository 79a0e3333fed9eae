/*
 * math.h - exp and its relatives on vectors; minimax polynomials, no branches. NaN in, NaN out.
 *
 * 2^x = 2^n 2^r with n = round(x), |r| <= 1/2: adding 1.5 * 2^23 leaves n in the low bits of the
 * sum, from where it is shifted onto the exponent of the polynomial.
 */
#ifndef SAW_SIMD_MATH_H
#define SAW_SIMD_MATH_H

#include "kernels/simd/vec.h"

#define ROUNDER 12582912.0f
#define LOG2_E  1.44269504f

INLINE vf times_power_of_two(vf v, vf n_plus_rounder)
{
    return (vf)((vi)v + ((vi)n_plus_rounder << 23));
}

/* Long polynomials go in pairs of terms, so that few steps wait for the one before. */
INLINE vf pair(float c0, float c1, vf x)
{
    return fmadd(set1(c1), x, set1(c0));
}

/** 2^r for |r| <= 1/2. */
INLINE vf exp2_polynomial(vf r)
{
    vf p = fmadd(set1(1.32647271e-3f), r, set1(9.67151264e-3f));
    p = fmadd(p, r, set1(5.55073374e-2f));
    p = fmadd(p, r, set1(2.40222421e-1f));
    p = fmadd(p, r, set1(6.93146978e-1f));
    return fmadd(p, r, set1(1.0f));
}

/** 2^x, relative error below 2e-7; 0 below 2^-126, infinity from 2^128. */
INLINE vf exp2_of(vf x)
{
    vf t = min(set1(128.0f), max(set1(-127.0f), x));
    vf n = t + ROUNDER, r = t - (n - ROUNDER);
    return zero_below(times_power_of_two(exp2_polynomial(r), n), x, -126.0f);
}

/** 2^x for x in [-126, 0], relative error below 2e-7. */
INLINE vf exp2_in_range(vf x)
{
    vf n = x + ROUNDER, r = x - (n - ROUNDER);
    return times_power_of_two(exp2_polynomial(r), n);
}

/** e^x, relative error below 2e-7. n in units of ln 2, which is split in two so that r is exact. */
INLINE vf exp_of(vf x)
{
    vf t = min(set1(88.7228317f), max(set1(-88.0f), x));
    vf n = fmadd(t, set1(LOG2_E), set1(ROUNDER)), k = n - ROUNDER;
    vf r = fmadd(k, set1(-0.693359375f), t);
    r = fmadd(k, set1(2.12194440e-4f), r);
    vf r2 = r * r;
    vf p = fmadd(set1(1.38146131e-3f), r2, pair(4.16683874e-2f, 8.36870983e-3f, r));
    p = fmadd(p, r2, pair(4.99999935e-1f, 1.66665207e-1f, r));
    p = fmadd(p, r2, r + 1.0f);
    vf over = (vf)((vi)set1(__builtin_inff()) & (x > set1(88.7228317f)));
    return zero_below(times_power_of_two(p, n), x, -87.3365448f) + over;
}

/** e^x - 1 for x in [-20, 0], relative error below 3e-7. */
INLINE vf expm1_of(vf x)
{
    vf n = fmadd(x, set1(LOG2_E), set1(ROUNDER)), k = n - ROUNDER;
    vf r = fmadd(k, set1(-0.693359375f), x);
    r = fmadd(k, set1(2.12194440e-4f), r);
    vf r2 = r * r;
    vf p = fmadd(set1(1.38825227e-3f), r2, pair(4.16671996e-2f, 8.36651394e-3f, r));
    p = fmadd(p, r2, pair(4.99999982e-1f, 1.66665437e-1f, r));
    vf power = times_power_of_two(set1(1.0f), n);
    vf q = fmadd(p, r2, r); /* e^r - 1 */
    return fmadd(power, q, power - 1.0f);
}

/** erfc(a / sqrt 2) / 2 = 2^(-P(a) - 1) for a in [0, 10]; absolute error 1e-7, P(10) < 125. */
INLINE vf half_erfc(vf a)
{
    vf a2 = a * a, a4 = a2 * a2;
    vf low =
        fmadd(pair(5.25188929e-2f, -7.09520395e-3f, a), a2, pair(1.15110621f, 4.59200301e-1f, a));
    vf high = fmadd(pair(-3.73380365e-5f, 2.66530643e-6f, a), a2,
                    pair(1.60794086e-4f, 1.76420242e-4f, a));
    return exp2_in_range(fmadd(fmadd(high, a4, low), -a, set1(-1.0f)));
}

/** x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2 */
INLINE vf gelu_of(vf x)
{
    vf a = min(set1(10.0f), absolute(x));
    return fmadd(-a, half_erfc(a), max(set1(0.0f), x));
}

INLINE vf sigmoid_of(vf x)
{
    return 1.0f / (1.0f + exp_of(-x));
}

INLINE vf silu_of(vf x)
{
    return x / (1.0f + exp_of(-x));
}

/** tanh |x| = -m / (2 + m), m = e^(-2|x|) - 1 */
INLINE vf tanh_of(vf x)
{
    vf m = expm1_of(min(set1(20.0f), absolute(x) * 2.0f) * -1.0f);
    return (vf)((vi)(-m / (2.0f + m)) | (vi)sign_of(x));
}

/** log(1 + e^x) = max(x, 0) + log1p(e^-|x|), and log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3. */
INLINE vf softplus_of(vf x)
{
    vf e = exp_of(-absolute(x)), s = e / (2.0f + e), z = s * s;
    vf p = fmadd(set1(1.21504671e-1f), z, set1(1.07138292e-1f));
    p = fmadd(p, z, set1(1.43084424e-1f));
    p = fmadd(p, z, set1(1.99994389e-1f));
    p = fmadd(p, z, set1(3.33333378e-1f));
    vf log1p = fmadd(p * z, s, s) * 2.0f;
    return max(set1(0.0f), x) + log1p;
}

INLINE vf relu_of(vf x)
{
    return max(set1(0.0f), x);
}

INLINE vf elu_of(vf x)
{
    return pick(x > 0.0f, x, expm1_of(max(set1(-20.0f), min(set1(0.0f), x))));
}

#endif
