/*
 * rmsnorm.c - y = x / max(|x|, 1e-12) sqrt(d) gamma over the last axis, |x| the Euclidean norm; and
 * the same within every band of ragged features. With s = sqrt(d) / |x| and g = gamma dy:
 *
 *     dx = s (g - x (g . x) / |x|^2),  dgamma = sum over rows of s x dy
 *
 * where a norm below the limit counts as a constant.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct band_rmsnorm_attr {
    int bands;
    const int64_t *start; /* bands + 1 */
} band_rmsnorm_attr;

/* The view of band b of ragged features. */
static inline saw_tensor band_of(const saw_tensor *t, const int64_t *start, int b)
{
    saw_tensor band = *t;
    if (t->data)
        band.data =
            (char *)t->data + start[b] * saw_last_stride(t) * (int64_t)saw_dtype_bytes(t->dtype);
    band.dims[t->ndim - 1] = start[b + 1] - start[b];
    return band;
}

#ifdef SAW_REF

static double sum_squares(const real *x, int64_t stride, int64_t d)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++)
        sum += (double)x[i * stride] * x[i * stride];
    return sum;
}

static void forward(const saw_tensor *x, const saw_tensor *gamma, const saw_tensor *y, bool add)
{
    int64_t d = saw_last(x);
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const real *xr = SAW_ROW(real, w, 0, r);
            double s = sqrt((double)d) / fmax(sqrt(sum_squares(xr, saw_last_stride(x), d)), 1e-12);
            for (int64_t i = 0; i < d; i++)
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), add,
                    xr[i * saw_last_stride(x)] * s *
                        ((const real *)gamma->data)[i * gamma->strides[0]]);
        }
}

/* dgamma is added to. */
static void backward(const saw_tensor *x, const saw_tensor *gamma, const saw_tensor *dy,
                     const saw_tensor *dx, bool add, const saw_tensor *dgamma)
{
    int64_t d = saw_last(x), sx = saw_last_stride(x), sy = saw_last_stride(dy);
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const real *xr = SAW_ROW(real, w, 0, r), *dyr = SAW_ROW(real, w, 1, r);
            double norm = sqrt(sum_squares(xr, sx, d)), s = sqrt((double)d) / fmax(norm, 1e-12),
                   dot = 0;
            const real *g = gamma->data;
            for (int64_t i = 0; dx->data && i < d; i++)
                dot += (double)dyr[i * sy] * g[i * gamma->strides[0]] * xr[i * sx];
            double pull = norm > 1e-12 ? dot / (norm * norm) : 0;
            for (int64_t i = 0; dx->data && i < d; i++)
                put(SAW_ROW(real, w, 2, r) + i * saw_last_stride(dx), add,
                    s * ((double)dyr[i * sy] * g[i * gamma->strides[0]] - xr[i * sx] * pull));
            for (int64_t i = 0; dgamma->data && i < d; i++)
                ((real *)dgamma->data)[i * dgamma->strides[0]] +=
                    (real)(s * xr[i * sx] * dyr[i * sy]);
        }
}

SAW_REF_KERNEL(rmsnorm_forward)
{
    forward(&c->in[0], &c->in[1], &c->out[0], saw_adds(c, 0));
}

SAW_REF_KERNEL(rmsnorm_backward)
{
    start_sum(c, 1);
    backward(&c->in[0], &c->in[1], &c->in[3], &c->out[0], saw_adds(c, 0), &c->out[1]);
}

SAW_REF_KERNEL(band_rmsnorm_forward)
{
    const band_rmsnorm_attr *a = c->attr;
    for (int b = 0; b < a->bands; b++) {
        saw_tensor x = band_of(&c->in[0], a->start, b), y = band_of(&c->out[0], a->start, b);
        forward(&x, &c->in[1 + b], &y, saw_adds(c, 0));
    }
}

SAW_REF_KERNEL(band_rmsnorm_backward)
{
    const band_rmsnorm_attr *a = c->attr;
    for (int b = 0; b < a->bands; b++) {
        start_sum(c, 1 + b);
        saw_tensor x = band_of(&c->in[0], a->start, b),
                   dy = band_of(&c->in[c->n_out + 1], a->start, b);
        saw_tensor dx = c->out[0].data ? band_of(&c->out[0], a->start, b) : c->out[0];
        backward(&x, &c->in[1 + b], &dy, &dx, saw_adds(c, 0), &c->out[1 + b]);
    }
}

#else

#include "kernels/simd/simd.h"

#include <string.h>

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 4 * (double)saw_dims_count(out);
}

static size_t scratch(const saw_call *c)
{
    return (size_t)saw_last(&c->in[0]) * sizeof(float);
}

static void cpu_rows(const saw_call *c, const saw_tensor *x, const float *gamma,
                     const saw_tensor *y)
{
    int64_t d = saw_last(x);
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w)) {
        if (!saw_adds(c, 0)) {
            c->simd->rmsnorm(SAW_ROW(const float, w, 0, 0), w.stride[0], SAW_ROW(float, w, 1, 0),
                             w.stride[1], gamma, w.rows, d);
            continue;
        }
        for (int64_t r = 0; r < w.rows; r++) {
            float *out = SAW_ROW(float, w, 1, r);
            c->simd->rmsnorm(SAW_ROW(const float, w, 0, r), 0, c->scratch, 0, gamma, 1, d);
            c->simd->add(out, c->scratch, out, d);
        }
    }
}

static void cpu_data_gradient(const saw_call *c, const saw_tensor *x, const float *gamma,
                              const saw_tensor *dy, const saw_tensor *dx)
{
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        c->simd->rmsnorm_gradient(
            SAW_ROW(const float, w, 0, 0), w.stride[0], SAW_ROW(const float, w, 1, 0), w.stride[1],
            gamma, SAW_ROW(float, w, 2, 0), w.stride[2], saw_adds(c, 0), w.rows, saw_last(x));
}

enum { SUM_ROWS = 64, PART_COLUMNS = 128 }; /* rows whose sum is taken apart, of so many columns */

/* Columns [first, end) of dgamma, which is added to. */
static void cpu_gamma_gradient(const saw_call *c, const saw_tensor *x, const saw_tensor *dy,
                               float *dgamma, int64_t first, int64_t end)
{
    const saw_tensor *t[] = {x, dy};
    int64_t d = saw_last(x), n = end - first, summed = 0;
    float *product = c->scratch, *sum = product + n, root = sqrtf((float)d);
    memset(sum, 0, (size_t)n * sizeof *sum);
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *xr = SAW_ROW(const float, w, 0, r);
            float norm = sqrtf(c->simd->sum_squares(xr, d));
            c->simd->mul(xr + first, SAW_ROW(const float, w, 1, r) + first, product, n);
            c->simd->axpy(root / (norm < 1e-12f ? 1e-12f : norm), product, sum, n);
            if (++summed % SUM_ROWS == 0) {
                c->simd->add(dgamma + first, sum, dgamma + first, n);
                memset(sum, 0, (size_t)n * sizeof *sum);
            }
        }
    c->simd->add(dgamma + first, sum, dgamma + first, n);
}

static size_t backward_scratch(const saw_call *c)
{
    return 2 * (size_t)saw_last(&c->in[0]) * sizeof(float);
}

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *gamma = &s->in[1];
    if (x->n < 1 || gamma->n != 1 || gamma->d[0] != x->d[x->n - 1])
        return saw_refuse(s, "needs x [..., D] and gamma [D]");
    s->out[0] = *x;
    return true;
}

static void cpu_rmsnorm(const saw_call *c)
{
    cpu_rows(c, &c->in[0], c->in[1].data, &c->out[0]);
}

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return (in[1].d[0] + PART_COLUMNS - 1) / PART_COLUMNS;
}

static void cpu_rmsnorm_backward(const saw_call *c)
{
    const saw_tensor *x = &c->in[0], *dy = &c->in[3], *dgamma = &c->out[1];
    if (c->out[0].data)
        cpu_data_gradient(c, x, c->in[1].data, dy, &c->out[0]);
    if (!dgamma->data)
        return;
    int64_t d = saw_last(x), first = d * c->part / c->parts, end = d * (c->part + 1) / c->parts;
    if (!saw_adds(c, 1))
        memset((float *)dgamma->data + first, 0, (size_t)(end - first) * sizeof(float));
    cpu_gamma_gradient(c, x, dy, dgamma->data, first, end);
}

const saw_op saw_op_rmsnorm = {
    .name = "rmsnorm",
    .shape = shape,
    .axes = saw_axes_first,
    .scratch = scratch,
    .flops = flops,
    .cpu_forward = cpu_rmsnorm,
    .cpu_backward = cpu_rmsnorm_backward,
    .backward_parts = backward_parts,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_rmsnorm(saw_graph *g, saw_val x, saw_val gamma)
{
    return SAW_RECORD(g, &saw_op_rmsnorm, NULL, x, gamma);
}

static bool band_shape(saw_shape *s)
{
    const band_rmsnorm_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    for (int b = 0; b < a->bands; b++)
        if (s->in[1 + b].n != 1)
            return saw_refuse(s, "gamma of band %d is not a vector", b);
    if (x->n < 1 || x->d[x->n - 1] != a->start[a->bands])
        return saw_refuse(s, "x does not hold the %lld features of %d bands",
                          (long long)a->start[a->bands], a->bands);
    s->out[0] = *x;
    return true;
}

static void cpu_band_rmsnorm(const saw_call *c)
{
    const band_rmsnorm_attr *a = c->attr;
    for (int b = 0; b < a->bands; b++) {
        saw_tensor x = band_of(&c->in[0], a->start, b), y = band_of(&c->out[0], a->start, b);
        cpu_rows(c, &x, c->in[1 + b].data, &y);
    }
}

static int64_t band_backward_parts(const void *attr, int n_in, const saw_dims *in,
                                   const saw_dims *out)
{
    (void)n_in, (void)out;
    const band_rmsnorm_attr *a = attr;
    int64_t parts = (in[0].d[in[0].n - 1] + PART_COLUMNS - 1) / PART_COLUMNS;
    return parts < a->bands ? parts : a->bands;
}

static void cpu_band_rmsnorm_backward(const saw_call *c)
{
    const band_rmsnorm_attr *a = c->attr;
    for (int b = 0; b < a->bands; b++) {
        const saw_tensor *dgamma = &c->out[1 + b];
        saw_tensor x = band_of(&c->in[0], a->start, b),
                   dy = band_of(&c->in[c->n_out + 1], a->start, b);
        if (c->out[0].data) {
            saw_tensor dx = band_of(&c->out[0], a->start, b);
            cpu_data_gradient(c, &x, c->in[1 + b].data, &dy, &dx);
        }
        if (!dgamma->data || b * c->parts / a->bands != c->part)
            continue;
        if (!saw_adds(c, 1 + b))
            memset(dgamma->data, 0, (size_t)saw_last(&x) * sizeof(float));
        cpu_gamma_gradient(c, &x, &dy, dgamma->data, 0, saw_last(&x));
    }
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " bands %d", ((const band_rmsnorm_attr *)attr)->bands);
}

const saw_op saw_op_band_rmsnorm = {
    .name = "band_rmsnorm",
    .attr_bytes = sizeof(band_rmsnorm_attr),
    .shape = band_shape,
    .axes = saw_axes_first,
    .scratch = scratch,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_band_rmsnorm,
    .cpu_backward = cpu_band_rmsnorm_backward,
    .backward_parts = band_backward_parts,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_band_rmsnorm(saw_graph *g, saw_val x, int bands, const saw_val *gamma)
{
    if (bands < 1)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "band_rmsnorm: there are no bands");
    saw_context *ctx = saw_graph_context(g);
    saw_val *in = saw_calloc(ctx, (size_t)bands + 1, sizeof *in), out = 0;
    int64_t *widths = saw_calloc(ctx, (size_t)bands, sizeof *widths);
    if (in && widths) {
        in[0] = x;
        for (int b = 0; b < bands; b++) {
            saw_dims d = saw_dims_val(g, in[1 + b] = gamma[b]);
            widths[b] = d.n == 1 ? d.d[0] : 0;
        }
        band_rmsnorm_attr a = {bands, saw_band_starts(g, bands, widths)};
        if (a.start)
            out = saw_record(g, &saw_op_band_rmsnorm, &a, bands + 1, in, 1);
    } else {
        saw_graph_fail(g, SAW_ERR_MEMORY, "band_rmsnorm: no memory for %d bands", bands);
    }
    saw_free(ctx, in);
    saw_free(ctx, widths);
    return out;
}

#endif
