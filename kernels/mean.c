/*
 * mean.c - mean of every `group` neighbours along a leading axis: y[.., i, ..] = mean of x[.., i
 * group + j, ..] over j.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct mean_attr {
    int axis;
    int64_t group;
} mean_attr;

/* Members number j of all groups. */
static inline saw_tensor members(const saw_tensor *x, const mean_attr *a, int64_t j)
{
    saw_tensor v = *x;
    if (v.data)
        v.data = (char *)v.data + j * x->strides[a->axis] * (int64_t)saw_dtype_bytes(x->dtype);
    v.dims[a->axis] /= a->group;
    v.strides[a->axis] *= a->group;
    return v;
}

#ifdef SAW_REF

SAW_REF_KERNEL(mean_forward)
{
    const mean_attr *a = c->attr;
    const saw_tensor *y = &c->out[0];
    start_sum(c, 0);
    for (int64_t j = 0; j < a->group; j++) {
        saw_tensor x = members(&c->in[0], a, j);
        const saw_tensor *t[] = {&x, y};
        saw_walk w = saw_walk_start(y->ndim, 2, t);
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++)
                *SAW_ROW(real, w, 1, r) += *SAW_ROW(real, w, 0, r) / (real)a->group;
    }
}

SAW_REF_KERNEL(mean_backward)
{
    const mean_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2];
    for (int64_t j = 0; j < a->group; j++) {
        saw_tensor dx = members(&c->out[0], a, j);
        const saw_tensor *t[] = {&dx, dy};
        saw_walk w = saw_walk_start(dy->ndim, 2, t);
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++)
                put(SAW_ROW(real, w, 0, r), saw_adds(c, 0),
                    *SAW_ROW(real, w, 1, r) / (real)a->group);
    }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const mean_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (a->axis < 0 || a->axis >= x->n - 1 || a->group < 1 || x->d[a->axis] % a->group)
        return saw_refuse(s, "axis %d does not fall into groups of %lld", a->axis,
                          (long long)a->group);
    s->out[0] = *x;
    s->out[0].d[a->axis] /= a->group;
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)n_in, (void)operand;
    return saw_all_but_last(&in[0]) & ~SAW_AXIS(((const mean_attr *)attr)->axis);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void list(const void *attr, saw_buffer *out)
{
    const mean_attr *a = attr;
    saw_buffer_printf(out, " axis %d group %lld", a->axis, (long long)a->group);
}

/* The mean's share of a row, set or added. */
static void share(const saw_call *c, const float *from, float *to, int64_t n, bool add)
{
    float s = 1 / (float)((const mean_attr *)c->attr)->group;
    if (add)
        c->simd->axpy(s, from, to, n);
    else
        c->simd->scale(from, s, to, n);
}

static void cpu_mean(const saw_call *c)
{
    const mean_attr *a = c->attr;
    for (int64_t j = 0; j < a->group; j++) {
        saw_tensor x = members(&c->in[0], a, j);
        const saw_tensor *t[] = {&x, &c->out[0]};
        saw_walk w = saw_walk_start(x.ndim - 1, 2, t);
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++)
                share(c, SAW_ROW(const float, w, 0, r), SAW_ROW(float, w, 1, r), saw_last(&x),
                      j > 0 || saw_adds(c, 0));
    }
}

static void cpu_mean_backward(const saw_call *c)
{
    const mean_attr *a = c->attr;
    for (int64_t j = 0; j < a->group; j++) {
        saw_tensor dx = members(&c->out[0], a, j);
        const saw_tensor *t[] = {&c->in[2], &dx};
        saw_walk w = saw_walk_start(dx.ndim - 1, 2, t);
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++)
                share(c, SAW_ROW(const float, w, 0, r), SAW_ROW(float, w, 1, r), saw_last(&dx),
                      saw_adds(c, 0));
    }
}

const saw_op saw_op_mean = {
    .name = "mean",
    .attr_bytes = sizeof(mean_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .list = list,
    .cpu_forward = cpu_mean,
    .cpu_backward = cpu_mean_backward,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_mean(saw_graph *g, saw_val x, int axis, int64_t group)
{
    return SAW_RECORD(g, &saw_op_mean, (&(mean_attr){axis, group}), x);
}

saw_val saw_mean_all(saw_graph *g, saw_val x, double factor)
{
    while (x && saw_dims_val(g, x).n > 1)
        x = saw_merge_last(g, x);
    int64_t n = saw_dim(g, x, 0);
    return saw_scale(g, saw_merge_last(g, saw_mean(g, saw_split_last(g, x, n), 0, n)), factor);
}

#endif
