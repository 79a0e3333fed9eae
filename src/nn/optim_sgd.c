/*
 * optim_sgd.c - gradient descent with momentum: b = momentum b + (g + wd p), p -= lr b; with
 * Nesterov's look ahead p -= lr (g + wd p + momentum b).
 */
#include "nn/optim_row.h"

static void sgd_step(const nn_update *u, const nn_slice *s)
{
    float mu = (float)u->options->momentum;
    float own = u->options->nesterov ? 1 : 0, past = u->options->nesterov ? mu : 1;
    float *restrict p = s->p, *restrict b = s->state[0];
    const float *restrict grad = s->g;
    for (int64_t i = 0; i < s->n; i++) {
        float g = s->g_scale * grad[i] + s->decay * p[i];
        b[i] = mu * b[i] + g;
        p[i] -= s->lr * (own * g + past * b[i]);
    }
}

const nn_optim_row nn_optim_sgd = {
    .defaults = {.name = "sgd", .schedule.lr = 1e-2, .momentum = 0.9},
    .buffers = 1,
    .step = sgd_step,
};
