/*
 * optim_prodigy.c - Prodigy (Mishchenko & Defazio, arXiv 2306.06101, algorithm 4): Adam that finds
 * its own step size d, a lower bound of the distance from the start x0 to the solution. With lr the
 * schedule's (normally around 1) and b3 = sqrt(b2):
 *
 *     m = b1 m + (1 - b1) d g      v = b2 v + (1 - b2) d^2 g^2
 *     r = b3 r + (1 - b3) lr d^2 <g, x0 - x>      s = b3 s + (1 - b3) lr d^2 g
 *     x = x (1 - lr d wd) - lr d m / (sqrt(v) + d eps)
 *     d = min(growth d, the largest r / |s|_1 so far, at least d0)
 *
 * r and s are kept divided by d0^2, which cancels: d^2 g would leave float32's range.
 */
#include "nn/optim_row.h"

#include <math.h>
#include <string.h>

enum { D, R, D_MAX }; /* scalars; D_MAX is what d grows to as it may */

static void prodigy_start(const nn_update *u, const nn_slice *s)
{
    u->scalars[D] = u->scalars[D_MAX] = u->options->d0;
    memcpy(s->state[3], s->p, (size_t)s->n * sizeof *s->p);
}

/* The share of this step's gradient in r and s. */
static double weight_of(const nn_update *u)
{
    double d = u->scalars[D] / u->options->d0;
    return (1 - sqrt(u->options->beta2)) * u->lr * d * d;
}

static void prodigy_gather(const nn_update *u, const nn_slice *slice, double sums[2])
{
    double d = u->scalars[D];
    float b1 = (float)u->options->beta1, c1 = (float)(d * (1 - u->options->beta1));
    float b2 = (float)u->options->beta2, c2 = (float)(1 - u->options->beta2), df = (float)d;
    float b3 = (float)sqrt(u->options->beta2), c3 = (float)weight_of(u);
    float *m = slice->state[0], *v = slice->state[1], *s = slice->state[2];
    const float *x0 = slice->state[3], *x = slice->p;
    for (int64_t i = 0; i < slice->n; i++) {
        float g = slice->g_scale * slice->g[i], dg = df * g;
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * (dg * dg);
        s[i] = b3 * s[i] + c3 * g;
        sums[0] += (double)g * ((double)x0[i] - x[i]);
        sums[1] += fabs((double)s[i]);
    }
}

static void prodigy_join(nn_update *u, const double sums[2])
{
    double *k = u->scalars;
    u->rate = k[D];
    k[R] = sqrt(u->options->beta2) * k[R] + weight_of(u) * sums[0];
    if (sums[1] > 0)
        k[D_MAX] = fmax(k[D_MAX], k[R] / sums[1]);
    k[D] = fmin(k[D_MAX], u->options->growth * k[D]);
}

static void prodigy_step(const nn_update *u, const nn_slice *s)
{
    double lr = s->lr * u->rate;
    float step = (float)lr, keep = (float)(1 - lr * s->decay);
    float eps = (float)(u->rate * u->options->eps);
    const float *m = s->state[0], *v = s->state[1];
    for (int64_t i = 0; i < s->n; i++)
        s->p[i] = keep * s->p[i] - step * m[i] / (sqrtf(v[i]) + eps);
}

const nn_optim_row nn_optim_prodigy = {
    .defaults = {.name = "prodigy",
                 .schedule.lr = 1,
                 .beta1 = 0.9,
                 .beta2 = 0.999,
                 .eps = 1e-8,
                 .d0 = 1e-6,
                 .growth = INFINITY},
    .buffers = 4,
    .gather = prodigy_gather,
    .start = prodigy_start,
    .join = prodigy_join,
    .step = prodigy_step,
};
