/*
 * optim_adam.c - Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), RAdam (Liu et al.
 * 2020).
 *
 *     m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
 *     p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 *
 * AdamW shrinks p by 1 - lr wd before; Adam and RAdam add wd p to g. RAdam takes the step without
 * the denominator as long as the variance of v cannot be told, rho <= 5, and corrects it later.
 */
#include "nn/optim_row.h"

#include <math.h>

/* Not pow: its last bit is the C library's. */
static double power(double x, int64_t n)
{
    double y = 1;
    for (; n; n >>= 1, x *= x)
        if (n & 1)
            y *= x;
    return y;
}

/* p = keep p - step m / (root sqrt(v) + eps), with coupled wd p added to the gradient. */
static void adam_rule(const nn_update *u, const nn_slice *s, float coupled, float keep, float step,
                      float root, float eps)
{
    float b1 = (float)u->options->beta1, c1 = (float)(1 - u->options->beta1);
    float b2 = (float)u->options->beta2, c2 = (float)(1 - u->options->beta2);
    float *restrict p = s->p, *restrict m = s->state[0], *restrict v = s->state[1];
    const float *restrict grad = s->g;
    for (int64_t i = 0; i < s->n; i++) {
        float g = s->g_scale * grad[i] + coupled * p[i];
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * (g * g);
        p[i] = keep * p[i] - step * m[i] / (root * sqrtf(v[i]) + eps);
    }
}

static void plain_step(const nn_update *u, const nn_slice *s, float coupled, float keep)
{
    const nn_optim_options *o = u->options;
    adam_rule(u, s, coupled, keep, (float)(s->lr / (1 - power(o->beta1, u->t))),
              (float)(1 / sqrt(1 - power(o->beta2, u->t))), (float)o->eps);
}

void nn_adamw_step(const nn_update *u, const nn_slice *s)
{
    plain_step(u, s, 0, (float)(1 - (double)s->lr * s->decay));
}

static void adam_step(const nn_update *u, const nn_slice *s)
{
    plain_step(u, s, s->decay, 1);
}

static void radam_step(const nn_update *u, const nn_slice *s)
{
    const nn_optim_options *o = u->options;
    double b2t = power(o->beta2, u->t), step = s->lr / (1 - power(o->beta1, u->t));
    double limit = 2 / (1 - o->beta2) - 1, rho = limit - 2 * (double)u->t * b2t / (1 - b2t);
    if (rho > 5)
        adam_rule(u, s, s->decay, 1,
                  (float)(step * sqrt(1 - b2t) *
                          sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))),
                  1, (float)o->eps);
    else
        adam_rule(u, s, s->decay, 1, (float)step, 0, 1);
}

#define ADAM_DEFAULTS .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8

const nn_optim_row nn_optim_adamw = {
    .defaults = {.name = "adamw", .schedule.lr = 3e-4, .weight_decay = 0.01, ADAM_DEFAULTS},
    .buffers = 2,
    .step = nn_adamw_step,
};
const nn_optim_row nn_optim_adam = {
    .defaults = {.name = "adam", .schedule.lr = 3e-4, ADAM_DEFAULTS},
    .buffers = 2,
    .step = adam_step,
};
const nn_optim_row nn_optim_radam = {
    .defaults = {.name = "radam", .schedule.lr = 3e-4, ADAM_DEFAULTS},
    .buffers = 2,
    .step = radam_step,
};
