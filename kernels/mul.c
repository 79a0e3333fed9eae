/*
 * mul.c - a * b, an axis of size 1 repeated; the gradient of a repeated operand is the sum over its
 * uses.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(mul_forward)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[1], &c->out[0]};
    saw_walk w = saw_walk_start(t[2]->ndim, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            put(SAW_ROW(real, w, 2, r), saw_adds(c, 0),
                (double)*SAW_ROW(real, w, 0, r) * *SAW_ROW(real, w, 1, r));
}

SAW_REF_KERNEL(mul_backward)
{
    for (int j = 0; j < 2; j++) {
        if (!c->out[j].data)
            continue;
        start_sum(c, j);
        const saw_tensor *t[] = {&c->in[3], &c->in[1 - j], &c->out[j]};
        saw_walk w = saw_walk_start(t[0]->ndim, 3, t);
        while (saw_walk_next(&w))
            for (int64_t r = 0; r < w.rows; r++)
                *SAW_ROW(real, w, 2, r) += *SAW_ROW(real, w, 0, r) * *SAW_ROW(real, w, 1, r);
    }
}

#else

#include "kernels/binary.h"
#include "kernels/simd/simd.h"

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

static void cpu_mul(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[1], &c->out[0]};
    saw_walk w = saw_walk_start(t[2]->ndim, 3, t);
    while (saw_walk_next(&w)) {
        const float *a = SAW_ROW(const float, w, 0, 0), *b = SAW_ROW(const float, w, 1, 0);
        float *y = SAW_ROW(float, w, 2, 0);
        if (binary_dense(&w) && !saw_adds(c, 0))
            c->simd->mul(a, b, y, w.rows);
        else if (saw_adds(c, 0))
            for (int64_t r = 0; r < w.rows; r++)
                y[r * w.stride[2]] += a[r * w.stride[0]] * b[r * w.stride[1]];
        else
            for (int64_t r = 0; r < w.rows; r++)
                y[r * w.stride[2]] = a[r * w.stride[0]] * b[r * w.stride[1]];
    }
}

static void cpu_mul_backward(const saw_call *c)
{
    const saw_tensor *dy = &c->in[3];
    for (int j = 0; j < 2; j++) {
        const saw_tensor *other = &c->in[1 - j], *dx = &c->out[j], *t[] = {dy, other, dx};
        if (!dx->data)
            continue;
        bool add = binary_adds(c, j, dy);
        bool one = saw_last(other) != saw_last(dy), sum = saw_last(dx) != saw_last(dy);
        saw_walk w = saw_walk_start(dy->ndim - 1, 3, t);
        while (saw_walk_next(&w)) {
            int64_t d = saw_last(dy), rows = one || sum ? w.rows : saw_join_rows(&w, &d);
            for (int64_t r = 0; r < rows; r++) {
                const float *from = SAW_ROW(const float, w, 0, r);
                const float *factor = SAW_ROW(const float, w, 1, r);
                float *to = SAW_ROW(float, w, 2, r);
                if (sum)
                    *to += c->simd->dot(from, factor, d);
                else if (one && add)
                    c->simd->axpy(*factor, from, to, d);
                else if (one)
                    c->simd->scale(from, *factor, to, d);
                else
                    (add ? c->simd->mul_add : c->simd->mul)(from, factor, to, d);
            }
        }
    }
}

const saw_op saw_op_mul = {
    .name = "mul",
    .shape = binary_shape,
    .axes = binary_axes,
    .keep = keep,
    .cpu_forward = cpu_mul,
    .cpu_backward = cpu_mul_backward,
    .in_place = true,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_mul(saw_graph *g, saw_val a, saw_val b)
{
    return SAW_RECORD(g, &saw_op_mul, NULL, a, b);
}

#endif
