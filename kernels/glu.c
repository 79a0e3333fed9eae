/*
 * glu.c - the gated linear unit of every band of ragged features. Band b of x is its values, then
 * as many gates: y = value * sigmoid(gate).
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct glu_attr {
    int bands;
    const int64_t *start; /* bands + 1, of the output */
} glu_attr;

#ifdef SAW_REF

SAW_REF_KERNEL(glu_forward)
{
    const glu_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int b = 0; b < a->bands; b++)
                for (int64_t i = a->start[b]; i < a->start[b + 1]; i++) {
                    const real *value =
                        SAW_ROW(real, w, 0, r) + (a->start[b] + i) * saw_last_stride(x);
                    double gate = value[(a->start[b + 1] - a->start[b]) * saw_last_stride(x)];
                    put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), saw_adds(c, 0),
                        *value / (1 + exp(-gate)));
                }
}

SAW_REF_KERNEL(glu_backward)
{
    const glu_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *dy = &c->in[2], *dx = &c->out[0];
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int b = 0; b < a->bands; b++)
                for (int64_t i = a->start[b]; i < a->start[b + 1]; i++) {
                    int64_t width = a->start[b + 1] - a->start[b], first = a->start[b] + i;
                    const real *value = SAW_ROW(real, w, 0, r) + first * saw_last_stride(x);
                    real *to = SAW_ROW(real, w, 2, r) + first * saw_last_stride(dx);
                    double s = 1 / (1 + exp(-(double)value[width * saw_last_stride(x)]));
                    double d = SAW_ROW(real, w, 1, r)[i * saw_last_stride(dy)];
                    put(to, saw_adds(c, 0), d * s);
                    put(to + width * saw_last_stride(dx), saw_adds(c, 0), d * *value * s * (1 - s));
                }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const glu_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    for (int b = 0; b < a->bands; b++)
        if (a->start[b + 1] <= a->start[b])
            return saw_refuse(s, "band %d has no features", b);
    if (x->n < 1 || x->d[x->n - 1] != 2 * a->start[a->bands])
        return saw_refuse(s, "x does not hold %lld values and as many gates",
                          (long long)a->start[a->bands]);
    s->out[0] = *x;
    s->out[0].d[x->n - 1] /= 2;
    return true;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 13 * (double)saw_dims_count(out);
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " bands %d", ((const glu_attr *)attr)->bands);
}

static void cpu_glu(const saw_call *c)
{
    const glu_attr *a = c->attr;
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    float gates[256];
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int b = 0; b < a->bands; b++)
                for (int64_t i = a->start[b]; i < a->start[b + 1]; i += 256) {
                    int64_t n = a->start[b + 1] - i < 256 ? a->start[b + 1] - i : 256;
                    const float *value = SAW_ROW(const float, w, 0, r) + a->start[b] + i;
                    float *y = SAW_ROW(float, w, 1, r) + i;
                    c->simd->sigmoid(value + a->start[b + 1] - a->start[b], gates, n);
                    if (saw_adds(c, 0))
                        c->simd->mul_add(value, gates, y, n);
                    else
                        c->simd->mul(value, gates, y, n);
                }
}

static void cpu_glu_backward(const saw_call *c)
{
    const glu_attr *a = c->attr;
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    float buffer[256];
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int b = 0; b < a->bands; b++)
                for (int64_t i = a->start[b]; i < a->start[b + 1]; i += 256) {
                    int64_t n = a->start[b + 1] - i < 256 ? a->start[b + 1] - i : 256;
                    int64_t width = a->start[b + 1] - a->start[b], at = a->start[b] + i;
                    const float *value = SAW_ROW(const float, w, 0, r) + at, *gate = value + width;
                    const float *dy = SAW_ROW(const float, w, 1, r) + i;
                    float *dvalue = SAW_ROW(float, w, 2, r) + at;
                    c->simd->mul(dy, value, buffer, n);
                    c->simd->sigmoid_gradient(gate, buffer, dvalue + width, saw_adds(c, 0), n);
                    c->simd->sigmoid(gate, buffer, n);
                    (saw_adds(c, 0) ? c->simd->mul_add : c->simd->mul)(dy, buffer, dvalue, n);
                }
}

const saw_op saw_op_glu = {
    .name = "glu",
    .attr_bytes = sizeof(glu_attr),
    .shape = shape,
    .axes = saw_axes_first,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_glu,
    .cpu_backward = cpu_glu_backward,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_glu(saw_graph *g, saw_val x, int bands, const int64_t *widths)
{
    if (bands < 1)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "glu: there are no bands");
    glu_attr a = {bands, saw_band_starts(g, bands, widths)};
    return a.start ? SAW_RECORD(g, &saw_op_glu, &a, x) : 0;
}

#endif
