/*
 * wave_loss.c - losses that need nothing but a few sums over an item: y and target [B, ...] ->
 * [B].
 *
 * With e = y - target and means over everything but the batch:
 *
 *     l1      mean |e|
 *     l2      mean e^2
 *     snr     -10 log10( (mean t^2 + eps) / (mean e^2 + eps) )
 *     si_sdr  -10 log10( (mean (a t)^2 + eps) / (mean (y - a t)^2 + eps) ),  a = mean y t / (mean
 *             t^2 + eps)                                       (Le Roux et al. 2019; no mean
 * removed) l1snr   -20 log10( (mean |t| + eps) / (mean |e| + eps) )        (Watcharasupat et al.
 * 2023)
 *
 * Every gradient is a combination of sign e, sign t, e, y and t with factors of the item, which
 * backward finds again from the sums. eps keeps loss and gradient finite when the target is silent
 * or equals y. The sign of 0 is 0.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct wave_loss_attr {
    saw_wave_distance distance;
    double eps;
} wave_loss_attr;

#ifdef SAW_REF

static const double BEL = 10 / 2.302585092994045684; /* 10 / ln 10 */

/* Means over an item. */
typedef struct means {
    double n, y2, t2, yt, e1, e2, t1;
} means;

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

static means measure(const saw_tensor *y, const saw_tensor *target)
{
    means m = {.n = (double)saw_tensor_count(y)};
    saw_walk w = saw_walk_start(y->ndim, 2, (const saw_tensor *[]){y, target});
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            double a = (double)*SAW_ROW(real, w, 0, r), t = (double)*SAW_ROW(real, w, 1, r),
                   e = a - t;
            m.y2 += a * a;
            m.t2 += t * t;
            m.yt += a * t;
            m.e1 += fabs(e);
            m.e2 += e * e;
            m.t1 += fabs(t);
        }
    m.y2 /= m.n, m.t2 /= m.n, m.yt /= m.n, m.e1 /= m.n, m.e2 /= m.n, m.t1 /= m.n;
    return m;
}

/* The loss of an item, and the factors of its gradients by y (0) and by the target (1). */
typedef struct slopes {
    double sign_e, sign_t, e, y, t;
} slopes;

static double evaluate(const wave_loss_attr *a, const means *m, slopes d[2])
{
    double eps = a->eps, loss = 0;
    memset(d, 0, 2 * sizeof *d);
    switch (a->distance) {
    case SAW_WAVE_L1:
        loss = m->e1;
        d[0].sign_e = 1 / m->n;
        break;
    case SAW_WAVE_L2:
        loss = m->e2;
        d[0].e = 2 / m->n;
        break;
    case SAW_WAVE_SNR:
        loss = BEL * log((m->e2 + eps) / (m->t2 + eps));
        d[0].e = BEL * 2 / m->n / (m->e2 + eps);
        d[1].t = -BEL * 2 / m->n / (m->t2 + eps);
        break;
    case SAW_WAVE_L1SNR:
        loss = 2 * BEL * log((m->e1 + eps) / (m->t1 + eps));
        d[0].sign_e = 2 * BEL / m->n / (m->e1 + eps);
        d[1].sign_t = -2 * BEL / m->n / (m->t1 + eps);
        break;
    case SAW_WAVE_SI_SDR: {
        double scale = m->yt / (m->t2 + eps), signal = scale * scale * m->t2;
        double rest = m->y2 - 2 * scale * m->yt + signal;
        rest = (rest > 0 ? rest : 0) + eps;
        signal += eps;
        loss = BEL * log(rest / signal);
        /* by the scale, whose own gradients are t and y - 2 scale t over n (t2 + eps) */
        double by_scale = 2 * BEL * ((scale * m->t2 - m->yt) / rest - scale * m->t2 / signal);
        by_scale /= m->n * (m->t2 + eps);
        double square = BEL * 2 / m->n * scale * scale * (1 / rest - 1 / signal);
        double product = -BEL * 2 / m->n * scale / rest;
        d[0] = (slopes){.y = BEL * 2 / m->n / rest, .t = product + by_scale};
        d[1] = (slopes){.y = product + by_scale, .t = square - 2 * scale * by_scale};
        return loss;
    }
    }
    d[1].sign_e -= d[0].sign_e;
    d[1].e -= d[0].e;
    return loss;
}

SAW_REF_KERNEL(wave_loss_forward)
{
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), target = saw_item_of(&c->in[1], b);
        means m = measure(&y, &target);
        slopes d[2];
        put((real *)c->out[0].data + b * c->out[0].strides[0], saw_adds(c, 0),
            evaluate(c->attr, &m, d));
    }
}

SAW_REF_KERNEL(wave_loss_backward)
{
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), target = saw_item_of(&c->in[1], b);
        double seed = (double)((const real *)c->in[3].data)[b * c->in[3].strides[0]];
        means m = measure(&y, &target);
        slopes d[2];
        evaluate(c->attr, &m, d);
        for (int j = 0; j < 2; j++) {
            if (!c->out[j].data)
                continue;
            saw_tensor to = saw_item_of(&c->out[j], b);
            saw_walk w = saw_walk_start(y.ndim, 3, (const saw_tensor *[]){&y, &target, &to});
            while (saw_walk_next(&w))
                for (int64_t r = 0; r < w.rows; r++) {
                    double v = (double)*SAW_ROW(real, w, 0, r), t = (double)*SAW_ROW(real, w, 1, r),
                           e = v - t;
                    put(SAW_ROW(real, w, 2, r), saw_adds(c, j),
                        seed * (d[j].sign_e * sign(e) + d[j].sign_t * sign(t) + d[j].e * e +
                                d[j].y * v + d[j].t * t));
                }
        }
    }
}

#else

static bool shape(saw_shape *s)
{
    const saw_dims *y = &s->in[0];
    if (y->n < 2 || !saw_dims_equal(y, &s->in[1]) || !saw_dims_count(y))
        return saw_refuse(s, "needs y and a target of the same dims [B, ...]");
    s->out[0] = SAW_DIMS(y->d[0]);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return SAW_AXIS(0);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return 11 * (double)saw_dims_count(&in[0]);
}

static void list(const void *attr, saw_buffer *out)
{
    static const char *const names[] = {"l1", "l2", "snr", "si_sdr", "l1snr"};
    saw_buffer_printf(out, " %s", names[((const wave_loss_attr *)attr)->distance]);
}

const saw_op saw_op_wave_loss = {
    .name = "wave_loss",
    .attr_bytes = sizeof(wave_loss_attr),
    .shape = shape,
    .axes = axes,
    .flops = flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_wave_loss(saw_graph *g, saw_val y, saw_val target, saw_wave_distance distance,
                      double eps)
{
    return SAW_RECORD(g, &saw_op_wave_loss, (&(wave_loss_attr){distance, eps}), y, target);
}

saw_val saw_l1_loss(saw_graph *g, saw_val y, saw_val target, double weight)
{
    return saw_mean_all(g, saw_wave_loss(g, y, target, SAW_WAVE_L1, 0), weight);
}

#endif
