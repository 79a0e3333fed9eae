/*
 * batch_norm_train.c - batch norm by the statistics of the batch (Ioffe and Szegedy, arXiv
 * 1502.03167). For every feature of x [..., D], over all N rows:
 *
 *     y = h weight + bias,   h = (x - mean) / sqrt(v + eps),   v = mean of (x - mean)^2
 *
 * The other outputs, mean and var = v N / (N - 1), are what running statistics are averaged from;
 * they have no gradient of their own. Through y:
 *
 *     dbias = sum dy,   dweight = sum dy h
 *     dx = weight / sqrt(v + eps) (dy - (dbias + h dweight) / N)
 *
 * Features have nothing to do with each other, so that is how calls are cut.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct batch_norm_train_attr {
    double eps;
} batch_norm_train_attr;

enum { X, WEIGHT, BIAS, INPUTS };
enum { Y, MEAN, VAR, OUTPUTS };

static inline int64_t rows_of(const saw_tensor *t)
{
    return saw_tensor_count(t) / saw_last(t);
}

/* 1 / sqrt(v + eps) from the output var. */
static inline double rate_of(const saw_call *c, double var, int64_t rows)
{
    const batch_norm_train_attr *a = c->attr;
    return 1 / sqrt(var * ((double)rows - 1) / (double)rows + a->eps);
}

#ifdef SAW_REF

static double feature(const saw_tensor *t, int64_t i)
{
    return (double)((const real *)t->data)[i * t->strides[0]];
}

#define FOR_EACH_ROW(...)                                                                          \
    for (saw_walk w = saw_walk_start(c->in[X].ndim - 1, 3, ((const saw_tensor *[]){__VA_ARGS__})); \
         saw_walk_next(&w);)                                                                       \
        for (int64_t r = 0; r < w.rows; r++)
#define AT(k, t) (SAW_ROW(real, w, k, r)[i * saw_last_stride(t)])

SAW_REF_KERNEL(batch_norm_train_forward)
{
    const saw_tensor *x = &c->in[X], *y = &c->out[Y];
    int64_t rows = rows_of(x), features = saw_last(x);
    for (int64_t i = features * c->part / c->parts; i < features * (c->part + 1) / c->parts; i++) {
        double mean = 0, var = 0;
        FOR_EACH_ROW(x, x, x)
        mean += (double)AT(0, x) / (double)rows;
        FOR_EACH_ROW(x, x, x)
        var += ((double)AT(0, x) - mean) * ((double)AT(0, x) - mean) / ((double)rows - 1);
        FOR_EACH_ROW(x, y, y)
        put(&AT(1, y), saw_adds(c, Y),
            ((double)AT(0, x) - mean) * rate_of(c, var, rows) * feature(&c->in[WEIGHT], i) +
                feature(&c->in[BIAS], i));
        put((real *)c->out[MEAN].data + i * c->out[MEAN].strides[0], saw_adds(c, MEAN), mean);
        put((real *)c->out[VAR].data + i * c->out[VAR].strides[0], saw_adds(c, VAR), var);
    }
}

SAW_REF_KERNEL(batch_norm_train_backward)
{
    const saw_tensor *x = &c->in[X], *dy = &c->in[INPUTS + OUTPUTS + Y];
    const saw_tensor *dx = &c->out[X], *dw = &c->out[WEIGHT], *db = &c->out[BIAS];
    int64_t rows = rows_of(x), features = saw_last(x);
    for (int64_t i = features * c->part / c->parts; i < features * (c->part + 1) / c->parts; i++) {
        double mean = feature(&c->in[INPUTS + MEAN], i), sum = 0, sum_h = 0;
        double rate = rate_of(c, feature(&c->in[INPUTS + VAR], i), rows);
        FOR_EACH_ROW(x, dy, dx)
        {
            sum += (double)AT(1, dy);
            sum_h += (double)AT(1, dy) * ((double)AT(0, x) - mean) * rate;
        }
        if (dx->data)
            FOR_EACH_ROW(x, dy, dx)
            {
                double h = ((double)AT(0, x) - mean) * rate;
                put(&AT(2, dx), saw_adds(c, X),
                    feature(&c->in[WEIGHT], i) * rate *
                        ((double)AT(1, dy) - (sum + h * sum_h) / (double)rows));
            }
        if (dw->data)
            put((real *)dw->data + i * dw->strides[0], saw_adds(c, WEIGHT), sum_h);
        if (db->data)
            put((real *)db->data + i * db->strides[0], saw_adds(c, BIAS), sum);
    }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[X];
    int64_t d = x->n ? x->d[x->n - 1] : 0;
    if (d < 1 || saw_dims_count(x) < 2 * d)
        return saw_refuse(s, "needs two rows or more to take statistics of");
    for (int j = WEIGHT; j <= BIAS; j++)
        if (s->in[j].n != 1 || s->in[j].d[0] != d)
            return saw_refuse(s, "weight and bias are not both [%lld]", (long long)d);
    s->out[Y] = *x;
    s->out[MEAN] = s->out[VAR] = SAW_DIMS(d);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return 0;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr;
    return 1u << X | (want & (1u << X) ? 1u << WEIGHT : 0) | 1u << (n_in + MEAN) |
           1u << (n_in + VAR);
}

static int64_t parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return saw_column_parts(in[WEIGHT].d[0]);
}

static size_t scratch(const saw_call *c)
{
    return (size_t)saw_last(&c->in[X]) * (2 * sizeof(double) + 3 * sizeof(float));
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 6 * (double)saw_dims_count(out);
}

/* Sums over all rows of y and of x y, for n features from `first` on. */
static void sum_columns(const saw_call *c, const saw_tensor *x, const saw_tensor *y, int64_t first,
                        int64_t n, double *sum, double *product)
{
    const saw_tensor *t[] = {x, y};
    memset(sum, 0, (size_t)n * sizeof *sum);
    memset(product, 0, (size_t)n * sizeof *product);
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        c->simd->column_sums(SAW_ROW(const float, w, 0, 0) + first, w.stride[0],
                             SAW_ROW(const float, w, 1, 0) + first, w.stride[1], w.rows, n, sum,
                             product);
}

static void cpu_forward(const saw_call *c)
{
    const saw_tensor *x = &c->in[X], *t[] = {x, &c->out[Y]};
    int64_t features = saw_last(x), rows = rows_of(x), first = features * c->part / c->parts,
            n = features * (c->part + 1) / c->parts - first;
    double *sum = c->scratch, *square = sum + n;
    float *mean = (float *)(square + n), *scale = mean + n,
          *bias = (float *)c->in[BIAS].data + first;
    float *mean_out = c->out[MEAN].data, *var_out = c->out[VAR].data;
    sum_columns(c, x, x, first, n, sum, square);
    for (int64_t i = 0, k = first; i < n; i++, k++) {
        double m = sum[i] / (double)rows, all = square[i] - m * sum[i];
        double var = all > 0 ? all / ((double)rows - 1) : 0;
        mean[i] = (float)m;
        scale[i] = (float)(((const float *)c->in[WEIGHT].data)[k] * rate_of(c, var, rows));
        mean_out[k] = (saw_adds(c, MEAN) ? mean_out[k] : 0) + (float)m;
        var_out[k] = (saw_adds(c, VAR) ? var_out[k] : 0) + (float)var;
    }
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *from = SAW_ROW(const float, w, 0, r) + first;
            float *to = SAW_ROW(float, w, 1, r) + first;
            for (int64_t i = 0; i < n; i++) {
                float v = (from[i] - mean[i]) * scale[i] + bias[i];
                to[i] = saw_adds(c, Y) ? to[i] + v : v;
            }
        }
}

static void write_gradient(const float *restrict x, const float *restrict dy,
                           const float *restrict mean, const float *restrict of_dy,
                           const float *restrict of_x, const float *restrict constant,
                           float *restrict dx, int64_t n, bool add)
{
    if (add)
        for (int64_t i = 0; i < n; i++)
            dx[i] += dy[i] * of_dy[i] + ((x[i] - mean[i]) * of_x[i] + constant[i]);
    else
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * of_dy[i] + ((x[i] - mean[i]) * of_x[i] + constant[i]);
}

static void cpu_backward(const saw_call *c)
{
    const saw_tensor *x = &c->in[X], *dy = &c->in[INPUTS + OUTPUTS + Y], *dx = &c->out[X];
    int64_t features = saw_last(x), rows = rows_of(x), first = features * c->part / c->parts,
            n = features * (c->part + 1) / c->parts - first;
    const float *mean = (const float *)c->in[INPUTS + MEAN].data + first,
                *var = (const float *)c->in[INPUTS + VAR].data + first;
    float *dw = c->out[WEIGHT].data, *db = c->out[BIAS].data;
    double *sum = c->scratch, *product = sum + n;
    float *of_dy = (float *)(product + n), *of_x = of_dy + n, *constant = of_x + n;
    sum_columns(c, x, dy, first, n, sum, product);
    for (int64_t i = 0, k = first; i < n; i++, k++) {
        double rate = rate_of(c, var[i], rows), sum_h = (product[i] - mean[i] * sum[i]) * rate;
        if (dx->data) {
            double scale = ((const float *)c->in[WEIGHT].data)[k] * rate;
            of_dy[i] = (float)scale;
            of_x[i] = (float)(-scale * rate * sum_h / (double)rows);
            constant[i] = (float)(-scale * sum[i] / (double)rows);
        }
        if (dw)
            dw[k] = (saw_adds(c, WEIGHT) ? dw[k] : 0) + (float)sum_h;
        if (db)
            db[k] = (saw_adds(c, BIAS) ? db[k] : 0) + (float)sum[i];
    }
    if (!dx->data)
        return;
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            write_gradient(SAW_ROW(const float, w, 0, r) + first,
                           SAW_ROW(const float, w, 1, r) + first, mean, of_dy, of_x, constant,
                           SAW_ROW(float, w, 2, r) + first, n, saw_adds(c, X));
}

const saw_op saw_op_batch_norm_train = {
    .name = "batch_norm_train",
    .attr_bytes = sizeof(batch_norm_train_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .scratch = scratch,
    .parts = parts,
    .flops = flops,
    .cpu_forward = cpu_forward,
    .cpu_backward = cpu_backward,
    .backward_parts = parts,
    .backward_scratch = scratch,
    .joint_backward = true,
    .differentiable = true,
    .tolerance_db = 115,
};

saw_val saw_batch_norm_train(saw_graph *g, saw_val x, saw_val weight, saw_val bias, double eps,
                             saw_val *mean, saw_val *var)
{
    batch_norm_train_attr a = {eps};
    saw_val y =
        saw_record(g, &saw_op_batch_norm_train, &a, INPUTS, (saw_val[]){x, weight, bias}, OUTPUTS);
    *mean = y ? y + MEAN : 0;
    *var = y ? y + VAR : 0;
    return y;
}

#endif
