/*
 * masked_loss.c - mean |y - target|^p without the largest errors: y and target [B, ...] -> [B].
 *
 * Errors above their q-quantile count as 0; the mean is over all. Fine: the errors are those of the
 * samples, the quantile is of each item. Coarse: an error is the mean of an item, the quantile that
 * of the batch. The least error above which nothing counts is the sorted errors' number floor(q (n
 * - 1)), which itself counts: so the loss of a batch of one is its plain mean, and equal errors
 * stay together. The choice has no gradient.
 *
 * This is the masked loss of the tool Music-Source-Separation-Training (utils/losses.py), but for
 * its fault: it keeps what is strictly below the quantile, and so nothing of a coarse batch of one.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct masked_loss_attr {
    double q;
    int power;
    bool coarse;
} masked_loss_attr;

#ifdef SAW_REF

/* Number k of v[n] in rising order; v is reordered. */
static real select_kth(real *v, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n;
    for (;;) {
        real a = v[lo], b = v[lo + (hi - lo) / 2], z = v[hi - 1];
        real pivot = a < b ? (b < z ? b : a < z ? z : a) : (a < z ? a : b < z ? z : b);
        int64_t less = lo, greater = hi; /* [lo, less) < pivot, [greater, hi) > pivot */
        for (int64_t i = lo; i < greater;) {
            real x = v[i];
            if (x < pivot) {
                v[i++] = v[less];
                v[less++] = x;
            } else if (x > pivot) {
                v[i] = v[--greater];
                v[greater] = x;
            } else {
                i++;
            }
        }
        if (k < less)
            hi = less;
        else if (k >= greater)
            lo = greater;
        else
            return pivot;
    }
}

static real error_of(const masked_loss_attr *a, real y, real target)
{
    real e = y - target;
    return a->power == 2 ? e * e : e < 0 ? -e : e;
}

/* The errors of an item, in order; returns their sum. */
static double errors_of(const masked_loss_attr *a, const saw_tensor *y, const saw_tensor *target,
                        real *errors)
{
    double sum = 0;
    int64_t i = 0;
    saw_walk w = saw_walk_start(y->ndim, 2, (const saw_tensor *[]){y, target});
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++, i++) {
            real e = error_of(a, *SAW_ROW(real, w, 0, r), *SAW_ROW(real, w, 1, r));
            sum += (double)e;
            if (errors)
                errors[i] = e;
        }
    return sum;
}

static real limit_of(const masked_loss_attr *a, real *errors, int64_t n)
{
    return select_kth(errors, n, (int64_t)(a->q * (double)(n - 1)));
}

/* The mean of an item rounded like the errors that the limit was chosen from. */
static real mean_of(const masked_loss_attr *a, const saw_tensor *y, const saw_tensor *target)
{
    return (real)(errors_of(a, y, target, NULL) / (double)saw_tensor_count(y));
}

static real batch_limit(const saw_call *c)
{
    real *means = c->scratch;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), target = saw_item_of(&c->in[1], b);
        means[b] = mean_of(c->attr, &y, &target);
    }
    return limit_of(c->attr, means, c->in[0].dims[0]);
}

/* The limit of the samples of item b; of a coarse loss, infinity or, for an item that does not
 * count, -1. */
static real item_limit(const saw_call *c, const saw_tensor *y, const saw_tensor *target, real batch)
{
    const masked_loss_attr *a = c->attr;
    if (a->coarse)
        return mean_of(a, y, target) > batch ? -1 : (real)INFINITY;
    errors_of(a, y, target, c->scratch);
    return limit_of(a, c->scratch, saw_tensor_count(y));
}

SAW_REF_KERNEL(masked_loss_forward)
{
    const masked_loss_attr *a = c->attr;
    real batch = a->coarse ? batch_limit(c) : 0;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), target = saw_item_of(&c->in[1], b);
        real limit = item_limit(c, &y, &target, batch);
        double sum = 0;
        saw_walk w = saw_walk_start(y.ndim, 2, (const saw_tensor *[]){&y, &target});
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++) {
                real e = error_of(a, *SAW_ROW(real, w, 0, r), *SAW_ROW(real, w, 1, r));
                sum += e > limit ? 0 : (double)e;
            }
        put((real *)c->out[0].data + b * c->out[0].strides[0], saw_adds(c, 0),
            sum / (double)saw_tensor_count(&y));
    }
}

SAW_REF_KERNEL(masked_loss_backward)
{
    const masked_loss_attr *a = c->attr;
    real batch = a->coarse ? batch_limit(c) : 0;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), target = saw_item_of(&c->in[1], b);
        real limit = item_limit(c, &y, &target, batch);
        double seed = (double)((const real *)c->in[3].data)[b * c->in[3].strides[0]] /
                      (double)saw_tensor_count(&y);
        for (int j = 0; j < 2; j++) {
            if (!c->out[j].data)
                continue;
            saw_tensor to = saw_item_of(&c->out[j], b);
            saw_walk w = saw_walk_start(y.ndim, 3, (const saw_tensor *[]){&y, &target, &to});
            while (saw_walk_next(&w))
                for (int64_t r = 0; r < w.rows; r++) {
                    real v = *SAW_ROW(real, w, 0, r), t = *SAW_ROW(real, w, 1, r);
                    double e = (double)v - (double)t,
                           slope = a->power == 2 ? 2 * e : (e > 0) - (e < 0);
                    bool counts = !(error_of(a, v, t) > limit);
                    put(SAW_ROW(real, w, 2, r), saw_adds(c, j),
                        counts ? (j ? -seed : seed) * slope : 0);
                }
        }
    }
}

#else

static bool shape(saw_shape *s)
{
    const masked_loss_attr *a = s->attr;
    const saw_dims *y = &s->in[0];
    if (y->n < 2 || !saw_dims_equal(y, &s->in[1]) || !saw_dims_count(y))
        return saw_refuse(s, "needs y and a target of the same dims [B, ...]");
    if (!(a->q > 0 && a->q <= 1) || a->power < 1 || a->power > 2)
        return saw_refuse(s, "needs 0 < q <= 1 and a power of 1 or 2");
    s->out[0] = SAW_DIMS(y->d[0]);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)n_in, (void)in, (void)operand;
    return ((const masked_loss_attr *)attr)->coarse ? 0 : SAW_AXIS(0);
}

static size_t scratch(const saw_call *c)
{
    const saw_tensor *y = &c->in[0];
    int64_t n = ((const masked_loss_attr *)c->attr)->coarse
                    ? y->dims[0]
                    : saw_tensor_count(y) / (y->dims[0] ? y->dims[0] : 1);
    return (size_t)n * saw_dtype_bytes(y->dtype);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return 8 * (double)saw_dims_count(&in[0]);
}

static void list(const void *attr, saw_buffer *out)
{
    const masked_loss_attr *a = attr;
    saw_buffer_printf(out, " q %g power %d%s", a->q, a->power, a->coarse ? " coarse" : "");
}

const saw_op saw_op_masked_loss = {
    .name = "masked_loss",
    .attr_bytes = sizeof(masked_loss_attr),
    .shape = shape,
    .axes = axes,
    .scratch = scratch,
    .flops = flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_masked_loss(saw_graph *g, saw_val y, saw_val target, double q, int power, bool coarse)
{
    return SAW_RECORD(g, &saw_op_masked_loss, (&(masked_loss_attr){q, power, coarse}), y, target);
}

#endif
