/*
 * kernel.h - small tools that op files share.
 *
 * Reference kernels take any view. CPU kernels of ops that work on rows need the last axis
 * contiguous, which holds for every value and for views of saw_slice_last, saw_split_last and
 * saw_merge_last.
 */
#ifndef SAW_KERNEL_H
#define SAW_KERNEL_H

#include "core/graph.h"

#include <math.h>

/** Row r of the present step of a walk, of tensor i. */
#define SAW_ROW(type, w, i, r) ((type *)(w).data[i] + (r) * (w).stride[i])

/* Size and stride of the last axis; 0 when the operand is absent. */
static inline int64_t saw_last(const saw_tensor *t)
{
    return t->ndim ? t->dims[t->ndim - 1] : 0;
}

static inline int64_t saw_last_stride(const saw_tensor *t)
{
    return t->ndim ? t->strides[t->ndim - 1] : 0;
}

/** The view without axis `axis`: one element of it, to be stepped through by hand. */
static inline saw_tensor saw_without(saw_tensor t, int axis)
{
    t.dims[axis] = 1;
    return t;
}

/** Item b of the batch alone. */
static inline saw_tensor saw_item_of(const saw_tensor *t, int64_t b)
{
    saw_tensor v = saw_without(*t, 0);
    if (v.data)
        v.data = (char *)v.data + b * t->strides[0] * (int64_t)saw_dtype_bytes(t->dtype);
    return v;
}

/** Rows of d elements that follow each other in every tensor of the present step are one long row:
 * returns the rows to go through, *d elements each. */
static inline int64_t saw_join_rows(const saw_walk *w, int64_t *d)
{
    for (int i = 0; i < w->n; i++)
        if (w->data[i] && w->stride[i] != *d)
            return w->rows;
    *d *= w->rows;
    return 1;
}

#ifdef SAW_REF

/** Set *at, or add to it. */
static inline void put(real *at, bool add, double v)
{
    *at = (real)(add ? (double)*at + v : v);
}

/** Make output j ready to be added to: zero, unless the call adds. */
static inline void start_sum(const saw_call *c, int j)
{
    const saw_tensor *t = &c->out[j];
    if (!t->data || saw_adds(c, j))
        return;
    saw_walk w = saw_walk_start(t->ndim, 1, &t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            *SAW_ROW(real, w, 0, r) = 0;
}

#else

/** The rule's sentence; returns false. */
static inline bool SAW_PRINTF(2, 3) saw_refuse(saw_shape *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, args);
    va_end(args);
    return false;
}

/** A matrix [rows, inner], or the weight of a 1x1 convolution, [rows, inner, 1, ...]. */
static inline bool saw_is_matrix(const saw_dims *w)
{
    return w->n >= 2 && saw_dims_count(w) == w->d[0] * w->d[1];
}

static inline uint32_t saw_all_but_last(const saw_dims *d)
{
    return d->n ? SAW_LEADING(d->n - 1) : 0;
}

/** All but the last axis of input 0 and of the output; other inputs are whole. */
static inline uint32_t saw_axes_first(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr;
    return operand == 0 || operand >= n_in ? saw_all_but_last(&in[0]) : 0;
}

/** All but the last axis of every operand: all have the leading dims of input 0. */
static inline uint32_t saw_axes_rows(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)operand;
    return saw_all_but_last(&in[0]);
}

/** Parts that d columns of rows are dealt out in: of whole cache lines. */
static inline int64_t saw_column_parts(int64_t d)
{
    enum { LINE = 16, PARTS = 8 };
    int64_t lines = d / LINE;
    return lines < 2 || d % LINE ? 1 : lines < PARTS ? lines : PARTS;
}

/** Sums of the widths before each band, bands + 1 numbers; owned by the graph. NULL when memory
 * fails. */
static inline const int64_t *saw_band_starts(saw_graph *g, int bands, const int64_t *widths)
{
    int64_t *start = saw_calloc(saw_graph_context(g), (size_t)bands + 1, sizeof *start);
    if (!start) {
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for the table of %d bands", bands);
        return NULL;
    }
    for (int b = 0; b < bands; b++)
        start[b + 1] = start[b] + widths[b];
    const int64_t *kept = saw_graph_copy(g, start, ((size_t)bands + 1) * sizeof *start);
    saw_free(saw_graph_context(g), start);
    return kept;
}

#endif
#endif
