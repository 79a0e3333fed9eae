/*
 * cmul.c - complex product of interleaved (re, im) features; da = dy conj(b).
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

/* y = a b, or a conj(b). */
static void product(const saw_call *c, const saw_tensor *a, const saw_tensor *b, int sign, int j)
{
    const saw_tensor *y = &c->out[j];
    const saw_tensor *t[] = {a, b, y};
    int64_t sa = saw_last_stride(a), sb = saw_last_stride(b), sy = saw_last_stride(y);
    saw_walk w = saw_walk_start(y->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(y); i += 2) {
                const real *ai = SAW_ROW(real, w, 0, r) + i * sa,
                           *bi = SAW_ROW(real, w, 1, r) + i * sb;
                double re = bi[0], im = sign * bi[sb];
                put(SAW_ROW(real, w, 2, r) + i * sy, saw_adds(c, j), ai[0] * re - ai[sa] * im);
                put(SAW_ROW(real, w, 2, r) + (i + 1) * sy, saw_adds(c, j),
                    ai[0] * im + ai[sa] * re);
            }
}

SAW_REF_KERNEL(cmul_forward)
{
    product(c, &c->in[0], &c->in[1], 1, 0);
}

SAW_REF_KERNEL(cmul_backward)
{
    for (int j = 0; j < 2; j++)
        if (c->out[j].data)
            product(c, &c->in[3], &c->in[1 - j], -1, j);
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const saw_dims *a = &s->in[0];
    if (a->n < 1 || !saw_dims_equal(a, &s->in[1]) || a->d[a->n - 1] % 2)
        return saw_refuse(s, "needs two values of the same dims with an even number of features");
    s->out[0] = *a;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 3 * (double)saw_dims_count(out);
}

/* out[j] = a b, or a conj(b). */
static void multiply(const saw_call *c, const saw_tensor *a, const saw_tensor *b, bool conjugate,
                     int j)
{
    const saw_tensor *t[] = {a, b, &c->out[j]};
    float buffer[256];
    saw_walk w = saw_walk_start(a->ndim - 1, 3, t);
    while (saw_walk_next(&w)) {
        int64_t d = saw_last(a), rows = saw_join_rows(&w, &d);
        for (int64_t r = 0; r < rows; r++) {
            const float *ar = SAW_ROW(const float, w, 0, r), *br = SAW_ROW(const float, w, 1, r);
            float *y = SAW_ROW(float, w, 2, r);
            if (!saw_adds(c, j)) {
                c->simd->complex_mul(ar, br, conjugate, y, d / 2);
                continue;
            }
            for (int64_t i = 0; i < d; i += 256) {
                int64_t n = d - i < 256 ? d - i : 256;
                c->simd->complex_mul(ar + i, br + i, conjugate, buffer, n / 2);
                c->simd->add(y + i, buffer, y + i, n);
            }
        }
    }
}

static void cpu_cmul(const saw_call *c)
{
    multiply(c, &c->in[0], &c->in[1], false, 0);
}

static void cpu_cmul_backward(const saw_call *c)
{
    for (int j = 0; j < 2; j++)
        if (c->out[j].data)
            multiply(c, &c->in[3], &c->in[1 - j], true, j);
}

const saw_op saw_op_cmul = {
    .name = "cmul",
    .shape = shape,
    .axes = saw_axes_rows,
    .keep = keep,
    .flops = flops,
    .cpu_forward = cpu_cmul,
    .cpu_backward = cpu_cmul_backward,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_cmul(saw_graph *g, saw_val a, saw_val b)
{
    return SAW_RECORD(g, &saw_op_cmul, NULL, a, b);
}

#endif
