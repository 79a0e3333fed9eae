/*
 * standardize.c - a whole item brought to mean 0 and deviation 1, and back.
 *
 *     y = (x - mean) / (s + eps),   s^2 = sum |x - mean|^2 / (n - 1)
 *
 * over everything but the batch. With `components` P numbers on the last axis belong together (2:
 * complex numbers): mean has P parts, |.| is the modulus and n counts groups of P. The statistics
 * are a value of their own, [B, P + 1]: mean, then s; `restore` makes x = y s + mean of any y.
 *
 * With d = x - mean and ds = ds_out - sum dy d / (s + eps)^2:
 *
 *     dx = dy / (s + eps) + ds d / ((n - 1) s) + (dmean_out - sum dy / (s + eps)) / n
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct standardize_attr {
    int components;
    double eps;
} standardize_attr;

#ifdef SAW_REF

enum { MAX_COMPONENTS = 2 };

/* For every number of x, with y and z at the same place (either may be NULL). */
#define FOR_EACH(x, y, z, component)                                                               \
    for (saw_walk w = saw_walk_start((x)->ndim - 1, 3, ((const saw_tensor *[]){x, y, z}));         \
         saw_walk_next(&w);)                                                                       \
        for (int64_t r = 0; r < w.rows; r++)                                                       \
            for (int64_t i = 0, component = 0; i < saw_last(x); i++, component = i % a->components)
#define AT(k, t) (SAW_ROW(real, w, k, r)[i * saw_last_stride(t)])

typedef struct moments {
    double mean[MAX_COMPONENTS], s, n;
} moments;

static moments measure(const standardize_attr *a, const saw_tensor *x)
{
    moments m = {.n = (double)(saw_tensor_count(x) / a->components)};
    FOR_EACH(x, x, x, k)
    m.mean[k] += (double)AT(0, x) / m.n;
    FOR_EACH(x, x, x, k)
    m.s += ((double)AT(0, x) - m.mean[k]) * ((double)AT(0, x) - m.mean[k]);
    m.s = sqrt(m.s / (m.n - 1));
    return m;
}

SAW_REF_KERNEL(standardize_forward)
{
    const standardize_attr *a = c->attr;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor x = saw_item_of(&c->in[0], b), y = saw_item_of(&c->out[0], b),
                   stats = saw_item_of(&c->out[1], b);
        moments m = measure(a, &x);
        FOR_EACH(&x, &y, &y, k)
        put(&AT(1, &y), saw_adds(c, 0), ((double)AT(0, &x) - m.mean[k]) / (m.s + a->eps));
        for (int k = 0; k <= a->components; k++)
            put((real *)stats.data + k * saw_last_stride(&stats), saw_adds(c, 1),
                k < a->components ? m.mean[k] : m.s);
    }
}

SAW_REF_KERNEL(standardize_backward)
{
    const standardize_attr *a = c->attr;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor x = saw_item_of(&c->in[0], b), dx = saw_item_of(&c->out[0], b);
        saw_tensor dy = saw_item_of(&c->in[3], b), dstats = saw_item_of(&c->in[4], b);
        moments m = measure(a, &x);
        double dmean[MAX_COMPONENTS + 1] = {0}, scale = 1 / (m.s + a->eps);
        for (int k = 0; dstats.data && k <= a->components; k++)
            dmean[k] = (double)((const real *)dstats.data)[k * saw_last_stride(&dstats)];
        double ds = dmean[a->components];
        if (dy.data)
            FOR_EACH(&x, &dy, &dy, k)
            {
                ds -= (double)AT(1, &dy) * ((double)AT(0, &x) - m.mean[k]) * scale * scale;
                dmean[k] -= (double)AT(1, &dy) * scale;
            }
        FOR_EACH(&x, &dy, &dx, k)
        {
            double v = ds * ((double)AT(0, &x) - m.mean[k]) / ((m.n - 1) * m.s) + dmean[k] / m.n;
            put(&AT(2, &dx), saw_adds(c, 0), v + (dy.data ? (double)AT(1, &dy) * scale : 0));
        }
    }
}

SAW_REF_KERNEL(restore_forward)
{
    const standardize_attr *a = c->attr;
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), x = saw_item_of(&c->out[0], b),
                   stats = saw_item_of(&c->in[1], b);
        const real *m = stats.data;
        int64_t step = saw_last_stride(&stats);
        FOR_EACH(&y, &x, &x, k)
        put(&AT(1, &x), saw_adds(c, 0), (double)AT(0, &y) * m[a->components * step] + m[k * step]);
    }
}

SAW_REF_KERNEL(restore_backward)
{
    const standardize_attr *a = c->attr;
    start_sum(c, 1);
    for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
        saw_tensor y = saw_item_of(&c->in[0], b), dx = saw_item_of(&c->in[3], b),
                   dy = saw_item_of(&c->out[0], b);
        saw_tensor stats = saw_item_of(&c->in[1], b), dstats = saw_item_of(&c->out[1], b);
        double s = (double)((const real *)stats.data)[a->components * saw_last_stride(&stats)];
        double sums[MAX_COMPONENTS + 1] = {0};
        FOR_EACH(&y, &dx, &dy, k)
        {
            double d = (double)AT(1, &dx);
            sums[k] += d;
            sums[a->components] += d * (double)AT(0, &y);
            if (dy.data)
                put(&AT(2, &dy), saw_adds(c, 0), d * s);
        }
        for (int k = 0; dstats.data && k <= a->components; k++)
            ((real *)dstats.data)[k * saw_last_stride(&dstats)] += (real)sums[k];
    }
}

#else

static bool item_fits(saw_shape *s)
{
    const standardize_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (a->components < 1 || a->components > 2 || x->n < 2 || x->d[x->n - 1] % a->components)
        return saw_refuse(s, "needs x [B, ..., n %d]", a->components);
    s->out[0] = *x;
    return true;
}

static bool shape(saw_shape *s)
{
    if (!item_fits(s))
        return false;
    s->out[1] = SAW_DIMS(s->in[0].d[0], ((const standardize_attr *)s->attr)->components + 1);
    return true;
}

static bool restore_shape(saw_shape *s)
{
    const saw_dims *stats = &s->in[1];
    if (!item_fits(s))
        return false;
    if (stats->n != 2 || stats->d[0] != s->in[0].d[0] ||
        stats->d[1] != ((const standardize_attr *)s->attr)->components + 1)
        return saw_refuse(s, "the statistics are not those of this value");
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return SAW_AXIS(0);
}

static uint32_t restore_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in;
    return operand == 1 ? SAW_AXIS(0) : saw_all_but_last(&in[0]);
}

const saw_op saw_op_standardize = {
    .name = "standardize",
    .attr_bytes = sizeof(standardize_attr),
    .shape = shape,
    .axes = axes,
    .differentiable = true,
    .tolerance_db = 120,
};

const saw_op saw_op_restore = {
    .name = "restore",
    .attr_bytes = sizeof(standardize_attr),
    .shape = restore_shape,
    .axes = restore_axes,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_standardize(saw_graph *g, saw_val x, int components, double eps, saw_val *statistics)
{
    saw_val y = saw_record(g, &saw_op_standardize, &(standardize_attr){components, eps}, 1, &x, 2);
    *statistics = y ? y + 1 : 0;
    return y;
}

saw_val saw_restore(saw_graph *g, saw_val y, saw_val statistics)
{
    standardize_attr a = {.components = (int)saw_dim(g, statistics, -1) - 1};
    return SAW_RECORD(g, &saw_op_restore, &a, y, statistics);
}

#endif
