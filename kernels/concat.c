/*
 * concat.c - values one after another on the last axis. On a leading axis a value may be shorter
 * than the first by a whole factor: each of its elements then serves so many neighbours.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct concat_attr {
    const int64_t *start; /* of each value on the last axis, then their end */
} concat_attr;

/* To the next index over the leading axes, row-major; false after the last. */
static inline bool step_index(const saw_tensor *t, int64_t *index)
{
    for (int i = t->ndim - 1; i-- > 0;) {
        if (++index[i] < t->dims[i])
            return true;
        index[i] = 0;
    }
    return false;
}

/* The row of t, in elements, that serves a row of `whole`. */
static inline int64_t row_of(const saw_tensor *t, const saw_tensor *whole, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < t->ndim - 1; i++)
        at += index[i] / (whole->dims[i] / t->dims[i]) * t->strides[i];
    return at;
}

#ifdef SAW_REF

SAW_REF_KERNEL(concat_forward)
{
    const saw_tensor *y = &c->out[0];
    for (int j = 0; j < c->n_in; j++) {
        const saw_tensor *x = &c->in[j];
        int64_t index[SAW_MAX_DIMS] = {0}, first = ((const concat_attr *)c->attr)->start[j];
        do
            for (int64_t i = 0; i < saw_last(x); i++)
                put((real *)y->data + row_of(y, y, index) + (first + i) * saw_last_stride(y),
                    saw_adds(c, 0),
                    ((const real *)x->data)[row_of(x, y, index) + i * saw_last_stride(x)]);
        while (step_index(y, index));
    }
}

SAW_REF_KERNEL(concat_backward)
{
    const saw_tensor *dy = &c->in[c->n_in - 1];
    for (int j = 0; j < c->n_out; j++) {
        const saw_tensor *dx = &c->out[j];
        int64_t index[SAW_MAX_DIMS] = {0}, first = ((const concat_attr *)c->attr)->start[j];
        start_sum(c, j);
        if (dx->data)
            do
                for (int64_t i = 0; i < saw_last(dx); i++)
                    ((real *)dx->data)[row_of(dx, dy, index) + i * saw_last_stride(dx)] +=
                        ((const real *)
                             dy->data)[row_of(dy, dy, index) + (first + i) * saw_last_stride(dy)];
            while (step_index(dy, index));
    }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const saw_dims *first = &s->in[0];
    int last = first->n - 1;
    if (last < 0)
        return saw_refuse(s, "there is nothing to join");
    s->out[0] = *first;
    for (int j = 1; j < s->n_in; j++) {
        const saw_dims *x = &s->in[j];
        bool fits = x->n == first->n;
        for (int i = 0; fits && i < last; i++)
            fits = x->d[i] > 0 && first->d[i] % x->d[i] == 0;
        if (!fits)
            return saw_refuse(s, "the leading axes of value %d do not fit those of the first", j);
        s->out[0].d[last] += x->d[last];
    }
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)operand;
    uint32_t same = saw_all_but_last(&in[0]);
    for (int j = 1; j < n_in; j++)
        for (int i = 0; i < in[0].n - 1; i++)
            if (in[j].d[i] != in[0].d[i])
                same &= ~SAW_AXIS(i);
    return same;
}

static bool same_rows(const saw_tensor *a, const saw_tensor *b)
{
    for (int i = 0; i < a->ndim - 1; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

/* The part of the joined value that value j of these dims is. */
static saw_tensor part_of(const saw_call *c, const saw_tensor *joined, int j,
                          const saw_tensor *value)
{
    saw_tensor v = *joined;
    v.data = (float *)v.data + ((const concat_attr *)c->attr)->start[j];
    v.dims[v.ndim - 1] = saw_last(value);
    return v;
}

static void move(const saw_call *c, const float *from, float *to, int64_t n, bool add)
{
    if (add)
        c->simd->add(to, from, to, n);
    else
        memcpy(to, from, (size_t)n * sizeof *to);
}

/* Rows of values with the same leading axes. */
static void move_rows(const saw_call *c, const saw_tensor *from, const saw_tensor *to, bool add)
{
    const saw_tensor *t[] = {from, to};
    saw_walk w = saw_walk_start(from->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            move(c, SAW_ROW(const float, w, 0, r), SAW_ROW(float, w, 1, r), saw_last(from), add);
}

static void cpu_concat(const saw_call *c)
{
    const saw_tensor *y = &c->out[0];
    for (int j = 0; j < c->n_in; j++) {
        const saw_tensor *x = &c->in[j];
        saw_tensor to = part_of(c, y, j, x);
        int64_t index[SAW_MAX_DIMS] = {0};
        if (same_rows(x, y))
            move_rows(c, x, &to, saw_adds(c, 0));
        else
            do
                move(c, (const float *)x->data + row_of(x, y, index),
                     (float *)to.data + row_of(y, y, index), saw_last(x), saw_adds(c, 0));
            while (step_index(y, index));
    }
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void cpu_concat_backward(const saw_call *c)
{
    const saw_tensor *dy = &c->in[c->n_in - 1];
    for (int j = 0; j < c->n_out; j++) {
        const saw_tensor *dx = &c->out[j];
        saw_tensor from = part_of(c, dy, j, dx);
        int64_t index[SAW_MAX_DIMS] = {0};
        if (!dx->data)
            continue;
        if (same_rows(dx, dy)) {
            move_rows(c, &from, dx, saw_adds(c, j));
            continue;
        }
        if (!saw_adds(c, j))
            do /* a row is a sum */
                memset((float *)dx->data + row_of(dx, dx, index), 0,
                       (size_t)saw_last(dx) * sizeof(float));
            while (step_index(dx, index));
        do
            move(c, (const float *)from.data + row_of(dy, dy, index),
                 (float *)dx->data + row_of(dx, dy, index), saw_last(dx), true);
        while (step_index(dy, index));
    }
}

const saw_op saw_op_concat = {
    .name = "concat",
    .attr_bytes = sizeof(concat_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .cpu_forward = cpu_concat,
    .cpu_backward = cpu_concat_backward,
    .differentiable = true,
    .tolerance_db = 140,
};

saw_val saw_concat(saw_graph *g, int n, const saw_val *values)
{
    saw_context *ctx = saw_graph_context(g);
    int64_t *widths = saw_calloc(ctx, (size_t)n + 1, sizeof *widths);
    for (int j = 0; widths && j < n; j++)
        widths[j] = values[j] ? saw_dim(g, values[j], -1) : 0;
    concat_attr a = {widths ? saw_band_starts(g, n, widths) : NULL};
    saw_free(ctx, widths);
    return a.start ? saw_record(g, &saw_op_concat, &a, n, values, 1)
                   : saw_graph_fail(g, SAW_ERR_MEMORY, "concat: no memory for %d widths", n);
}

#endif
