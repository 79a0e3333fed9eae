/*
 * batch_norm.c - batch norm by running statistics (Ioffe and Szegedy, arXiv 1502.03167):
 *
 *     y = (x - mean) / sqrt(var + eps) * weight + bias        for every feature
 *
 * mean and var are buffers of the checkpoint: they have no gradient, and training leaves them as
 * they are.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct batch_norm_attr {
    double eps;
} batch_norm_attr;

enum { X, WEIGHT, BIAS, MEAN, VAR };

#ifdef SAW_REF

static double feature(const saw_tensor *t, int64_t i)
{
    return ((const real *)t->data)[i * t->strides[0]];
}

static double inverse(const saw_call *c, int64_t i)
{
    return 1 / sqrt(feature(&c->in[VAR], i) + ((const batch_norm_attr *)c->attr)->eps);
}

SAW_REF_KERNEL(batch_norm_forward)
{
    const saw_tensor *x = &c->in[X], *y = &c->out[0];
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++) {
                double unit =
                    (SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)] - feature(&c->in[MEAN], i)) *
                    inverse(c, i);
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), saw_adds(c, 0),
                    unit * feature(&c->in[WEIGHT], i) + feature(&c->in[BIAS], i));
            }
}

SAW_REF_KERNEL(batch_norm_backward)
{
    const saw_tensor *x = &c->in[X], *dy = &c->in[VAR + 2];
    const saw_tensor *dx = &c->out[X], *dw = &c->out[WEIGHT], *db = &c->out[BIAS];
    start_sum(c, WEIGHT);
    start_sum(c, BIAS);
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(dy->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(dy); i++) {
                double d = SAW_ROW(real, w, 1, r)[i * saw_last_stride(dy)];
                if (dx->data)
                    put(SAW_ROW(real, w, 2, r) + i * saw_last_stride(dx), saw_adds(c, X),
                        d * inverse(c, i) * feature(&c->in[WEIGHT], i));
                if (dw->data)
                    ((real *)dw->data)[i * dw->strides[0]] +=
                        (real)(d * inverse(c, i) *
                               (SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)] -
                                feature(&c->in[MEAN], i)));
                if (db->data)
                    ((real *)db->data)[i * db->strides[0]] += (real)d;
            }
}

#else

#include "kernels/simd/simd.h"

enum { ROW = 1024 }; /* rows in memory one after another are taken so many numbers at a time */

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[X];
    if (x->n < 1)
        return saw_refuse(s, "needs a value of one axis or more");
    for (int j = WEIGHT; j <= VAR; j++)
        if (s->in[j].n != 1 || s->in[j].d[0] != x->d[x->n - 1])
            return saw_refuse(s, "weight, bias, mean and var are not all [%lld]",
                              (long long)x->d[x->n - 1]);
    s->out[0] = *x;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & (1u << X) ? 1u << WEIGHT | 1u << VAR : 0) |
           (want & (1u << WEIGHT) ? 1u << X | 1u << MEAN | 1u << VAR : 0);
}

static int64_t row_length(int64_t features)
{
    return features < ROW ? ROW / features * features : features;
}

static size_t scratch(const saw_call *c)
{
    bool forward = c->n_out == 1;
    return forward ? 2 * sizeof(float) * (size_t)row_length(saw_last(&c->in[X])) : 0;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 2 * (double)saw_dims_count(out);
}

static void cpu_batch_norm(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[X], &c->out[0]};
    int64_t features = saw_last(t[0]), length = row_length(features);
    float *scale = c->scratch, *shift = scale + length;
    for (int64_t i = 0; i < length; i++) {
        int64_t k = i % features;
        double s =
            ((const float *)c->in[WEIGHT].data)[k] /
            sqrt(((const float *)c->in[VAR].data)[k] + ((const batch_norm_attr *)c->attr)->eps);
        scale[i] = (float)s;
        shift[i] = (float)(((const float *)c->in[BIAS].data)[k] -
                           ((const float *)c->in[MEAN].data)[k] * s);
    }
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w)) {
        bool dense = w.stride[0] == features && w.stride[1] == features;
        int64_t rows = dense ? length / features : 1;
        for (int64_t r = 0; r < w.rows; r += rows) {
            int64_t n = features * (w.rows - r < rows ? w.rows - r : rows);
            const float *x = SAW_ROW(const float, w, 0, r);
            float *y = SAW_ROW(float, w, 1, r);
            if (saw_adds(c, 0)) {
                c->simd->mul_add(x, scale, y, n);
                c->simd->add(y, shift, y, n);
            } else {
                c->simd->mul(x, scale, y, n);
                c->simd->add(y, shift, y, n);
            }
        }
    }
}

static void data_gradient(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[VAR + 2], &c->out[X]};
    int64_t features = saw_last(t[0]), length = row_length(features);
    float *scale = c->scratch;
    for (int64_t i = 0; i < length; i++)
        scale[i] = (float)(((const float *)c->in[WEIGHT].data)[i % features] /
                           sqrt(((const float *)c->in[VAR].data)[i % features] +
                                ((const batch_norm_attr *)c->attr)->eps));
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w)) {
        bool dense = w.stride[0] == features && w.stride[1] == features;
        int64_t rows = dense ? length / features : 1;
        for (int64_t r = 0; r < w.rows; r += rows) {
            int64_t n = features * (w.rows - r < rows ? w.rows - r : rows);
            (saw_adds(c, X) ? c->simd->mul_add : c->simd->mul)(SAW_ROW(const float, w, 0, r), scale,
                                                               SAW_ROW(float, w, 1, r), n);
        }
    }
}

/* A part of the features. */
static void weight_gradients(const saw_call *c)
{
    const saw_tensor *dy = &c->in[VAR + 2], *x = c->in[X].data ? &c->in[X] : dy, *t[] = {x, dy};
    int64_t features = saw_last(dy), first = features * c->part / c->parts,
            n = features * (c->part + 1) / c->parts - first;
    float *dw = c->out[WEIGHT].data, *db = c->out[BIAS].data;
    double *sum = c->scratch, *product = sum + n;
    memset(sum, 0, 2 * (size_t)n * sizeof *sum);
    saw_walk w = saw_walk_start(dy->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        c->simd->column_sums(SAW_ROW(const float, w, 0, 0) + first, w.stride[0],
                             SAW_ROW(const float, w, 1, 0) + first, w.stride[1], w.rows, n, sum,
                             product);
    for (int64_t k = first, i = 0; i < n; i++, k++) {
        if (dw) {
            double mean = ((const float *)c->in[MEAN].data)[k],
                   var = ((const float *)c->in[VAR].data)[k];
            dw[k] = (saw_adds(c, WEIGHT) ? dw[k] : 0) +
                    (float)((product[i] - mean * sum[i]) /
                            sqrt(var + ((const batch_norm_attr *)c->attr)->eps));
        }
        if (db)
            db[k] = (saw_adds(c, BIAS) ? db[k] : 0) + (float)sum[i];
    }
}

static void cpu_batch_norm_backward(const saw_call *c)
{
    if (c->out[X].data)
        data_gradient(c);
    if (c->out[WEIGHT].data || c->out[BIAS].data)
        weight_gradients(c);
}

static size_t backward_scratch(const saw_call *c)
{
    size_t features = (size_t)saw_last(&c->in[VAR + 2]),
           row = (size_t)row_length((int64_t)features);
    return row * sizeof(float) + 2 * features * sizeof(double);
}

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return saw_column_parts(in[WEIGHT].d[0]);
}

const saw_op saw_op_batch_norm = {
    .name = "batch_norm",
    .attr_bytes = sizeof(batch_norm_attr),
    .shape = shape,
    .axes = saw_axes_first,
    .keep = keep,
    .scratch = scratch,
    .flops = flops,
    .cpu_forward = cpu_batch_norm,
    .cpu_backward = cpu_batch_norm_backward,
    .backward_parts = backward_parts,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_batch_norm(saw_graph *g, saw_val x, saw_val weight, saw_val bias, saw_val mean,
                       saw_val var, double eps)
{
    batch_norm_attr a = {eps};
    return SAW_RECORD(g, &saw_op_batch_norm, &a, x, weight, bias, mean, var);
}

#endif
