/*
 * magnitude.c - |re + j im| of pairs: x [..., 2m] -> [..., m].
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(magnitude_forward)
{
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    const saw_tensor *t[] = {x, y};
    int64_t sx = saw_last_stride(x);
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(y); i++) {
                const real *z = SAW_ROW(const real, w, 0, r) + 2 * i * sx;
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), saw_adds(c, 0),
                    hypot(z[0], z[sx]));
            }
}

/* The gradient at 0 is 0. */
SAW_REF_KERNEL(magnitude_backward)
{
    const saw_tensor *x = &c->in[0], *dy = &c->in[2], *dx = &c->out[0];
    const saw_tensor *t[] = {x, dy, dx};
    int64_t sx = saw_last_stride(x);
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(dy); i++) {
                const real *z = SAW_ROW(const real, w, 0, r) + 2 * i * sx;
                double size = hypot(z[0], z[sx]);
                double d = SAW_ROW(real, w, 1, r)[i * saw_last_stride(dy)];
                for (int k = 0; k < 2; k++)
                    put(SAW_ROW(real, w, 2, r) + (2 * i + k) * saw_last_stride(dx), saw_adds(c, 0),
                        size > 0 ? z[k * sx] / size * d : 0);
            }
}

#else

static bool shape(saw_shape *s)
{
    s->out[0] = s->in[0];
    if (s->in[0].n < 1 || s->in[0].d[s->in[0].n - 1] % 2)
        return saw_refuse(s, "needs pairs of re and im on the last axis");
    s->out[0].d[s->in[0].n - 1] /= 2;
    return true;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 4 * (double)saw_dims_count(out);
}

static void cpu_magnitude(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r);
            float *y = SAW_ROW(float, w, 1, r);
            for (int64_t i = 0; i < saw_last(t[1]); i++) {
                float v = sqrtf(x[2 * i] * x[2 * i] + x[2 * i + 1] * x[2 * i + 1]);
                y[i] = saw_adds(c, 0) ? y[i] + v : v;
            }
        }
}

static void cpu_magnitude_backward(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    const bool add = saw_adds(c, 0);
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r), *dy = SAW_ROW(const float, w, 1, r);
            float *dx = SAW_ROW(float, w, 2, r);
            for (int64_t i = 0; i < saw_last(t[1]); i++) {
                float square = x[2 * i] * x[2 * i] + x[2 * i + 1] * x[2 * i + 1];
                float rate = dy[i] / sqrtf(square > 0 ? square : 1);
                dx[2 * i] = (add ? dx[2 * i] : 0) + x[2 * i] * rate;
                dx[2 * i + 1] = (add ? dx[2 * i + 1] : 0) + x[2 * i + 1] * rate;
            }
        }
}

const saw_op saw_op_magnitude = {
    .name = "magnitude",
    .shape = shape,
    .axes = saw_axes_first,
    .flops = flops,
    .cpu_forward = cpu_magnitude,
    .cpu_backward = cpu_magnitude_backward,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_magnitude(saw_graph *g, saw_val x)
{
    return SAW_RECORD(g, &saw_op_magnitude, NULL, x);
}

#endif
