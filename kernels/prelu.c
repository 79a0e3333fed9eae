/*
 * prelu.c - y = x where x > 0, else slope x: one slope for all, or one a feature.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

#ifdef SAW_REF

SAW_REF_KERNEL(prelu_forward)
{
    const saw_tensor *x = &c->in[0], *slope = &c->in[1], *y = &c->out[0];
    int64_t step = slope->dims[0] > 1 ? slope->strides[0] : 0;
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++) {
                real v = SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)];
                real s = ((const real *)slope->data)[i * step];
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), saw_adds(c, 0),
                    v > 0 ? v : s * v);
            }
}

SAW_REF_KERNEL(prelu_backward)
{
    const saw_tensor *x = &c->in[0], *slope = &c->in[1], *dy = &c->in[3], *dx = &c->out[0],
                     *ds = &c->out[1];
    int64_t step = slope->dims[0] > 1 ? slope->strides[0] : 0,
            step_out = slope->dims[0] > 1 ? ds->strides[0] : 0;
    start_sum(c, 1);
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++) {
                real v = SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)];
                real d = SAW_ROW(real, w, 1, r)[i * saw_last_stride(dy)];
                real s = ((const real *)slope->data)[i * step];
                if (dx->data)
                    put(SAW_ROW(real, w, 2, r) + i * saw_last_stride(dx), saw_adds(c, 0),
                        v > 0 ? d : s * d);
                if (ds->data && !(v > 0))
                    ((real *)ds->data)[i * step_out] += d * v;
            }
}

#else

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *slope = &s->in[1];
    if (x->n < 1 || slope->n != 1 || (slope->d[0] != 1 && slope->d[0] != x->d[x->n - 1]))
        return saw_refuse(s, "needs x [..., D] and a slope [1] or [D]");
    s->out[0] = *x;
    return true;
}

static void cpu_prelu(const saw_call *c)
{
    const float *slope = c->in[1].data;
    const int64_t d = saw_last(&c->in[0]), step = c->in[1].dims[0] > 1;
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r);
            float *y = SAW_ROW(float, w, 1, r);
            for (int64_t i = 0; i < d; i++) {
                float v = x[i] > 0 ? x[i] : slope[i * step] * x[i];
                y[i] = saw_adds(c, 0) ? y[i] + v : v;
            }
        }
}

static void data_gradient(const saw_call *c)
{
    const float *slope = c->in[1].data;
    const int64_t d = saw_last(&c->in[0]), step = c->in[1].dims[0] > 1;
    const saw_tensor *t[] = {&c->in[0], &c->in[3], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r), *dy = SAW_ROW(const float, w, 1, r);
            float *dx = SAW_ROW(float, w, 2, r);
            for (int64_t i = 0; i < d; i++) {
                float v = dy[i] * (x[i] > 0 ? 1 : slope[i * step]);
                dx[i] = saw_adds(c, 0) ? dx[i] + v : v;
            }
        }
}

/* The sum of dy x over x <= 0, of every feature; that of all is added up last. */
static void slope_gradient(const saw_call *c)
{
    const int64_t d = saw_last(&c->in[0]), slopes = c->in[1].dims[0];
    float *out = c->out[1].data;
    double *sum = c->scratch;
    memset(sum, 0, (size_t)d * sizeof *sum);
    const saw_tensor *t[] = {&c->in[0], &c->in[3]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r), *dy = SAW_ROW(const float, w, 1, r);
            for (int64_t i = 0; i < d; i++)
                sum[i] += (double)dy[i] * (x[i] > 0 ? 0 : x[i]);
        }
    for (int64_t i = 1; slopes == 1 && i < d; i++)
        sum[0] += sum[i];
    for (int64_t i = 0; i < slopes; i++)
        out[i] = (saw_adds(c, 1) ? out[i] : 0) + (float)sum[i];
}

static void cpu_prelu_backward(const saw_call *c)
{
    if (c->out[0].data)
        data_gradient(c);
    if (c->out[1].data)
        slope_gradient(c);
}

static size_t backward_scratch(const saw_call *c)
{
    return (size_t)saw_last(&c->in[0]) * sizeof(double);
}

const saw_op saw_op_prelu = {
    .name = "prelu",
    .shape = shape,
    .axes = saw_axes_first,
    .cpu_forward = cpu_prelu,
    .cpu_backward = cpu_prelu_backward,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_prelu(saw_graph *g, saw_val x, saw_val slope)
{
    return SAW_RECORD(g, &saw_op_prelu, NULL, x, slope);
}

#endif
