/*
 * pad.c - zeros put before and after along one axis; negative counts cut away.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include "kernels/simd/simd.h"

#include <string.h>

typedef struct pad_attr {
    int axis;
    int64_t before, after;
} pad_attr;

/* The views of what both have in common: elements of x that are in y, and their places there. */
static inline void common(const pad_attr *a, saw_tensor *x, saw_tensor *y, size_t bytes)
{
    int64_t skip = a->before < 0 ? -a->before : 0, first = a->before > 0 ? a->before : 0;
    int64_t n = x->dims[a->axis] - skip;
    if (n > y->dims[a->axis] - first)
        n = y->dims[a->axis] - first;
    x->data = x->data ? (char *)x->data + skip * x->strides[a->axis] * (int64_t)bytes : NULL;
    y->data = y->data ? (char *)y->data + first * y->strides[a->axis] * (int64_t)bytes : NULL;
    x->dims[a->axis] = y->dims[a->axis] = n > 0 ? n : 0;
}

#ifdef SAW_REF

static void copy(const saw_call *c, const saw_tensor *from, const saw_tensor *to)
{
    const saw_tensor *t[] = {from, to};
    start_sum(c, 0);
    if (from->dims[((const pad_attr *)c->attr)->axis] == 0)
        return;
    saw_walk w = saw_walk_start(from->ndim, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            *SAW_ROW(real, w, 1, r) += *SAW_ROW(real, w, 0, r);
}

SAW_REF_KERNEL(pad_forward)
{
    saw_tensor x = c->in[0], y = c->out[0];
    common(c->attr, &x, &y, sizeof(real));
    copy(c, &x, &y);
}

SAW_REF_KERNEL(pad_backward)
{
    saw_tensor dy = c->in[2], dx = c->out[0];
    common(c->attr, &dx, &dy, sizeof(real));
    copy(c, &dy, &dx);
}

#else

static bool shape(saw_shape *s)
{
    const pad_attr *a = s->attr;
    if (a->axis < 0 || a->axis >= s->in[0].n)
        return saw_refuse(s, "there is no axis %d", a->axis);
    s->out[0] = s->in[0];
    s->out[0].d[a->axis] += a->before + a->after;
    if (s->out[0].d[a->axis] < 1)
        return saw_refuse(s, "nothing would be left of axis %d", a->axis);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)n_in, (void)operand;
    return saw_all_but_last(&in[0]) & ~SAW_AXIS(((const pad_attr *)attr)->axis);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void list(const void *attr, saw_buffer *out)
{
    const pad_attr *a = attr;
    saw_buffer_printf(out, " axis %d by %lld and %lld", a->axis, (long long)a->before,
                      (long long)a->after);
}

/* The elements that x and y have in common from one to the other: to output 0, whose rest is 0. */
static void move(const saw_call *c, saw_tensor x, saw_tensor y, bool back)
{
    const pad_attr *a = c->attr;
    const saw_tensor *whole[] = {&c->out[0]};
    saw_walk w = saw_walk_start(whole[0]->ndim - 1, 1, whole);
    while (!saw_adds(c, 0) && saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            memset(SAW_ROW(float, w, 0, r), 0, (size_t)saw_last(whole[0]) * sizeof(float));
    common(a, &x, &y, sizeof(float));
    if (!x.dims[a->axis])
        return;
    const saw_tensor *t[] = {back ? &y : &x, back ? &x : &y};
    w = saw_walk_start(x.ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            float *to = SAW_ROW(float, w, 1, r);
            if (saw_adds(c, 0))
                c->simd->add(to, SAW_ROW(const float, w, 0, r), to, saw_last(&x));
            else
                memcpy(to, SAW_ROW(const float, w, 0, r), (size_t)saw_last(&x) * sizeof *to);
        }
}

static void cpu_pad(const saw_call *c)
{
    move(c, c->in[0], c->out[0], false);
}

static void cpu_pad_backward(const saw_call *c)
{
    move(c, c->out[0], c->in[2], true);
}

const saw_op saw_op_pad = {
    .name = "pad",
    .attr_bytes = sizeof(pad_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .list = list,
    .cpu_forward = cpu_pad,
    .cpu_backward = cpu_pad_backward,
    .differentiable = true,
    .tolerance_db = 140,
};

saw_val saw_pad(saw_graph *g, saw_val x, int axis, int64_t before, int64_t after)
{
    pad_attr a = {axis, before, after};
    return SAW_RECORD(g, &saw_op_pad, &a, x);
}

#endif
