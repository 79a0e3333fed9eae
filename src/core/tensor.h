/*
 * tensor.h - a view of numbers: data, dims, strides. Owns nothing.
 */
#ifndef SAW_TENSOR_H
#define SAW_TENSOR_H

#include "base/base.h"

typedef struct saw_dims {
    int n;
    int64_t d[SAW_MAX_DIMS];
} saw_dims;

typedef struct saw_tensor {
    void *data; /* NULL: operand is absent */
    saw_dtype dtype;
    int ndim;
    int64_t dims[SAW_MAX_DIMS];
    int64_t strides[SAW_MAX_DIMS]; /* in elements */
} saw_tensor;

static inline int64_t saw_dims_count(const saw_dims *d)
{
    int64_t n = 1;
    for (int i = 0; i < d->n; i++)
        n *= d->d[i];
    return n;
}

static inline saw_dims saw_dims_of(int n, const int64_t *d)
{
    saw_dims r = {.n = n};
    for (int i = 0; i < n; i++)
        r.d[i] = d[i];
    return r;
}

#define SAW_DIMS(...)                                                                              \
    saw_dims_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static inline bool saw_dims_equal(const saw_dims *a, const saw_dims *b)
{
    if (a->n != b->n)
        return false;
    for (int i = 0; i < a->n; i++)
        if (a->d[i] != b->d[i])
            return false;
    return true;
}

/** Elements in the tensor. */
int64_t saw_tensor_count(const saw_tensor *t);
/** Dense row-major strides for dims. */
void saw_dense_strides(int ndim, const int64_t *dims, int64_t *strides);

enum { SAW_WALK_TENSORS = 8 };

/**
 * Walk several tensors row by row together. The first `lead` dims of all are the same (a dim of 1
 * is repeated); neighbouring dims that are contiguous in every tensor are merged, so that a step
 * covers as many rows as can be reached with one stride per tensor:
 *
 *     saw_walk w = saw_walk_start(lead, n, tensors);
 *     while (saw_walk_next(&w))
 *         for (int64_t r = 0; r < w.rows; r++)
 *             ... (float *)w.data[i] + r * w.stride[i] ...
 *
 * Absent tensors (data NULL) stay NULL. The order of rows is row-major.
 */
typedef struct saw_walk {
    int n;
    int64_t rows;                     /* rows of this step */
    char *data[SAW_WALK_TENSORS];     /* first row of this step */
    int64_t stride[SAW_WALK_TENSORS]; /* elements from row to row */
    /* private */
    int levels, started;
    int64_t count[SAW_MAX_DIMS], at[SAW_MAX_DIMS];
    int64_t step[SAW_WALK_TENSORS][SAW_MAX_DIMS];
    char *base[SAW_WALK_TENSORS];
    size_t bytes[SAW_WALK_TENSORS];
} saw_walk;
saw_walk saw_walk_start(int lead, int n, const saw_tensor *const *tensors);
bool saw_walk_next(saw_walk *w);

#endif
