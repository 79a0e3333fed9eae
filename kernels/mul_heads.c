/*
 * mul_heads.c - every head times its own number: y[..., h, e] = x[..., h, e] g[..., h].
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(mul_heads_forward)
{
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    const saw_tensor *t[] = {x, &c->in[1], y};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++)
                put(SAW_ROW(real, w, 2, r) + i * saw_last_stride(y), saw_adds(c, 0),
                    (double)SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)] *
                        *SAW_ROW(real, w, 1, r));
}

SAW_REF_KERNEL(mul_heads_backward)
{
    const saw_tensor *x = &c->in[0], *dy = &c->in[3], *dx = &c->out[0], *dg = &c->out[1];
    const saw_tensor *t[] = {x, &c->in[1], dy, dx, dg};
    saw_walk w = saw_walk_start(dy->ndim - 1, 5, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const real *d = SAW_ROW(real, w, 2, r);
            for (int64_t i = 0; dx->data && i < saw_last(dy); i++)
                put(SAW_ROW(real, w, 3, r) + i * saw_last_stride(dx), saw_adds(c, 0),
                    (double)d[i * saw_last_stride(dy)] * *SAW_ROW(real, w, 1, r));
            double sum = 0;
            for (int64_t i = 0; dg->data && i < saw_last(dy); i++)
                sum += (double)d[i * saw_last_stride(dy)] *
                       SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)];
            if (dg->data)
                put(SAW_ROW(real, w, 4, r), saw_adds(c, 1), sum);
        }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *gate = &s->in[1];
    bool same = x->n >= 2 && gate->n == x->n - 1;
    for (int i = 0; same && i < gate->n; i++)
        same = gate->d[i] == x->d[i];
    if (!same)
        return saw_refuse(s, "needs x [..., H, d] and a gate [..., H]");
    s->out[0] = *x;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

/* out[0] = from times the gates. */
static void multiply(const saw_call *c, const saw_tensor *from)
{
    const saw_tensor *t[] = {from, &c->in[1], &c->out[0]};
    int64_t d = saw_last(from);
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r);
            float gate = *SAW_ROW(const float, w, 1, r), *y = SAW_ROW(float, w, 2, r);
            if (saw_adds(c, 0))
                c->simd->axpy(gate, x, y, d);
            else
                c->simd->scale(x, gate, y, d);
        }
}

static void cpu_mul_heads(const saw_call *c)
{
    multiply(c, &c->in[0]);
}

static void cpu_mul_heads_backward(const saw_call *c)
{
    const saw_tensor *dy = &c->in[3];
    if (c->out[0].data)
        multiply(c, dy);
    if (!c->out[1].data)
        return;
    const saw_tensor *t[] = {&c->in[0], dy, &c->out[1]};
    saw_walk w = saw_walk_start(dy->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            float *gate = SAW_ROW(float, w, 2, r);
            *gate = (saw_adds(c, 1) ? *gate : 0) + c->simd->dot(SAW_ROW(const float, w, 0, r),
                                                                SAW_ROW(const float, w, 1, r),
                                                                saw_last(dy));
        }
}

const saw_op saw_op_mul_heads = {
    .name = "mul_heads",
    .shape = shape,
    .axes = saw_axes_rows,
    .keep = keep,
    .cpu_forward = cpu_mul_heads,
    .cpu_backward = cpu_mul_heads_backward,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_mul_heads(saw_graph *g, saw_val x, saw_val gate)
{
    return SAW_RECORD(g, &saw_op_mul_heads, NULL, x, gate);
}

#endif
