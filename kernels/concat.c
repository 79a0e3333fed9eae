/*
 * concat.c - values one after another on the last axis. On a leading axis a value may be shorter
 * than the first by a whole factor: each of its elements then serves so many neighbours.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

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
    int64_t first = 0;
    for (int j = 0; j < c->n_in; first += saw_last(&c->in[j++])) {
        const saw_tensor *x = &c->in[j];
        int64_t index[SAW_MAX_DIMS] = {0};
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
    int64_t first = 0;
    for (int j = 0; j < c->n_out; first += saw_last(&c->in[j++])) {
        const saw_tensor *dx = &c->out[j];
        int64_t index[SAW_MAX_DIMS] = {0};
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

static void cpu_concat(const saw_call *c)
{
    const saw_tensor *y = &c->out[0];
    int64_t first = 0;
    for (int j = 0; j < c->n_in; first += saw_last(&c->in[j++])) {
        const saw_tensor *x = &c->in[j];
        int64_t index[SAW_MAX_DIMS] = {0}, n = saw_last(x);
        do {
            float *out = (float *)y->data + row_of(y, y, index) + first;
            const float *from = (const float *)x->data + row_of(x, y, index);
            if (saw_adds(c, 0))
                for (int64_t i = 0; i < n; i++)
                    out[i] += from[i];
            else
                memcpy(out, from, (size_t)n * sizeof *out);
        } while (step_index(y, index));
    }
}

const saw_op saw_op_concat = {
    .name = "concat",
    .shape = shape,
    .axes = axes,
    .cpu_forward = cpu_concat,
    .differentiable = true,
    .tolerance_db = 140,
};

saw_val saw_concat(saw_graph *g, int n, const saw_val *values)
{
    return saw_record(g, &saw_op_concat, NULL, n, values, 1);
}

#endif
