/*
 * binary.h - what ops of two operands share: as many axes in both, an axis of size 1 repeated.
 */
#ifndef SAW_BINARY_H
#define SAW_BINARY_H

#include "kernels/kernel.h"

#include <string.h>

static inline bool binary_shape(saw_shape *s)
{
    const saw_dims *a = &s->in[0], *b = &s->in[1];
    if (a->n != b->n || a->n < 1)
        return saw_refuse(s, "one operand has %d axes, the other %d", a->n, b->n);
    s->out[0] = *a;
    for (int i = 0; i < a->n; i++) {
        if (a->d[i] != b->d[i] && a->d[i] != 1 && b->d[i] != 1)
            return saw_refuse(s, "axis %d has %lld elements in one operand and %lld in the other",
                              i, (long long)a->d[i], (long long)b->d[i]);
        s->out[0].d[i] = a->d[i] == 1 ? b->d[i] : a->d[i];
    }
    return true;
}

/** A repeated axis of an operand is not cut. */
static inline uint32_t binary_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr;
    uint32_t mask = saw_all_but_last(&in[0]);
    for (int i = 0; operand < n_in && i < in[0].n; i++)
        if (in[operand].d[i] != in[1 - operand].d[i] && in[operand].d[i] == 1)
            mask &= ~SAW_AXIS(i);
    return mask;
}

/** Are the elements of this step one after another in all three tensors? */
static inline bool binary_dense(const saw_walk *w)
{
    return w->rows == 1 || (w->stride[0] == 1 && w->stride[1] == 1 && w->stride[2] == 1);
}

/** Gradient j of an operand that is repeated is a sum: it is set to zero where the call does not
 * add. Returns whether it is to be added to. */
static inline bool binary_adds(const saw_call *c, int j, const saw_tensor *dy)
{
    const saw_tensor *dx = &c->out[j];
    bool sum = false;
    for (int i = 0; i < dy->ndim; i++)
        sum = sum || dx->dims[i] != dy->dims[i];
    if (!sum || saw_adds(c, j))
        return saw_adds(c, j);
    saw_walk w = saw_walk_start(dx->ndim - 1, 1, &dx);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            memset(SAW_ROW(float, w, 0, r), 0, (size_t)saw_last(dx) * sizeof(float));
    return true;
}

#endif
