/*
 * leaky_relu.c - y = x where x > 0, else slope * x.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct leaky_relu_attr {
    float slope;
} leaky_relu_attr;

#ifdef SAW_REF

SAW_REF_KERNEL(leaky_relu_forward)
{
    double slope = ((const leaky_relu_attr *)c->attr)->slope;
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            double x = *SAW_ROW(real, w, 0, r);
            put(SAW_ROW(real, w, 1, r), saw_adds(c, 0), x > 0 ? x : slope * x);
        }
}

SAW_REF_KERNEL(leaky_relu_backward)
{
    double slope = ((const leaky_relu_attr *)c->attr)->slope;
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            put(SAW_ROW(real, w, 2, r), saw_adds(c, 0),
                *SAW_ROW(real, w, 1, r) * (*SAW_ROW(real, w, 0, r) > 0 ? 1 : slope));
}

#else

static bool shape(saw_shape *s)
{
    if (s->in[0].n < 1)
        return saw_refuse(s, "needs a value of one axis or more");
    s->out[0] = s->in[0];
    return true;
}

static void cpu_leaky_relu(const saw_call *c)
{
    float slope = ((const leaky_relu_attr *)c->attr)->slope;
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 2, t);
    while (saw_walk_next(&w)) {
        const float *x = SAW_ROW(const float, w, 0, 0);
        float *y = SAW_ROW(float, w, 1, 0);
        int64_t sx = w.stride[0], sy = w.stride[1];
        if (sx == 1 && sy == 1 && !saw_adds(c, 0)) { /* vectors */
            for (int64_t i = 0; i < w.rows; i++) {
                float v = x[i], low = slope * v;
                y[i] = v > 0 ? v : low;
            }
            continue;
        }
        for (int64_t i = 0; i < w.rows; i++) {
            float v = x[i * sx] > 0 ? x[i * sx] : slope * x[i * sx];
            y[i * sy] = saw_adds(c, 0) ? y[i * sy] + v : v;
        }
    }
}

static void cpu_leaky_relu_backward(const saw_call *c)
{
    float slope = ((const leaky_relu_attr *)c->attr)->slope;
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w)) {
        int64_t d = saw_last(t[0]), rows = saw_join_rows(&w, &d);
        for (int64_t r = 0; r < rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r), *dy = SAW_ROW(const float, w, 1, r);
            float *dx = SAW_ROW(float, w, 2, r);
            for (int64_t i = 0; i < d; i++) {
                float v = dy[i] * (x[i] > 0 ? 1 : slope);
                dx[i] = saw_adds(c, 0) ? dx[i] + v : v;
            }
        }
    }
}

const saw_op saw_op_leaky_relu = {
    .name = "leaky_relu",
    .attr_bytes = sizeof(leaky_relu_attr),
    .shape = shape,
    .axes = saw_axes_rows,
    .cpu_forward = cpu_leaky_relu,
    .cpu_backward = cpu_leaky_relu_backward,
    .differentiable = true,
    .tolerance_db = 140,
};

saw_val saw_leaky_relu(saw_graph *g, saw_val x, double slope)
{
    leaky_relu_attr a = {(float)slope};
    return SAW_RECORD(g, &saw_op_leaky_relu, &a, x);
}

#endif
