/*
 * unary.c - functions of one element: y = f(x), dx = f'(x) dy.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

static void map(const saw_call *c, double (*f)(double))
{
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            put(SAW_ROW(real, w, 1, r), saw_adds(c, 0), f(*SAW_ROW(real, w, 0, r)));
}

static void map_gradient(const saw_call *c, double (*slope)(double))
{
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            put(SAW_ROW(real, w, 2, r), saw_adds(c, 0),
                *SAW_ROW(real, w, 1, r) * slope(*SAW_ROW(real, w, 0, r)));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double phi(double x) /* the normal distribution function, exact also where it is small */
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}

static double gelu(double x)
{
    return x * phi(x);
}

static double gelu_slope(double x)
{
    return phi(x) + x * exp(-0.5 * x * x) * 0.39894228040143267794;
}

static double tanh_slope(double x)
{
    return 1 - tanh(x) * tanh(x);
}

static double sigmoid_slope(double x)
{
    return sigmoid(x) * sigmoid(-x);
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double silu_slope(double x)
{
    return sigmoid(x) * (1 + x * sigmoid(-x));
}

static double relu(double x)
{
    return x > 0 ? x : 0;
}

static double relu_slope(double x)
{
    return x > 0;
}

static double elu(double x)
{
    return x > 0 ? x : expm1(x);
}

static double elu_slope(double x)
{
    return x > 0 ? 1 : exp(x);
}

#define UNARY(name, f, slope)                                                                      \
    SAW_REF_KERNEL(name##_forward)                                                                 \
    {                                                                                              \
        map(c, f);                                                                                 \
    }                                                                                              \
    SAW_REF_KERNEL(name##_backward)                                                                \
    {                                                                                              \
        map_gradient(c, slope);                                                                    \
    }
UNARY(gelu, gelu, gelu_slope)
UNARY(tanh, tanh, tanh_slope)
UNARY(sigmoid, sigmoid, sigmoid_slope)
UNARY(softplus, softplus, sigmoid)
UNARY(silu, silu, silu_slope)
UNARY(relu, relu, relu_slope)
UNARY(elu, elu, elu_slope)
UNARY(exp, exp, exp)

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    if (s->in[0].n < 1)
        return saw_refuse(s, "needs a value of one axis or more");
    s->out[0] = s->in[0];
    return true;
}

/* Rows that are not contiguous, or added to, go through a buffer. */
static void map(const saw_call *c, saw_map *f)
{
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim, 2, t);
    float buffer[256];
    while (saw_walk_next(&w)) {
        const float *x = SAW_ROW(const float, w, 0, 0);
        float *y = SAW_ROW(float, w, 1, 0);
        bool dense = w.rows == 1 || (w.stride[0] == 1 && w.stride[1] == 1);
        if (dense && !saw_adds(c, 0)) {
            f(x, y, w.rows);
            continue;
        }
        for (int64_t at = 0; at < w.rows; at += 256) {
            int64_t n = w.rows - at < 256 ? w.rows - at : 256;
            for (int64_t i = 0; i < n; i++)
                buffer[i] = x[(at + i) * w.stride[0]];
            f(buffer, buffer, n);
            for (int64_t i = 0; i < n; i++) {
                float *out = &y[(at + i) * w.stride[1]];
                *out = saw_adds(c, 0) ? *out + buffer[i] : buffer[i];
            }
        }
    }
}

static void map_gradient(const saw_call *c, saw_map_gradient *f)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[2], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 3, t);
    while (saw_walk_next(&w)) {
        int64_t d = saw_last(t[0]), rows = saw_join_rows(&w, &d);
        for (int64_t r = 0; r < rows; r++)
            f(SAW_ROW(const float, w, 0, r), SAW_ROW(const float, w, 1, r), SAW_ROW(float, w, 2, r),
              saw_adds(c, 0), d);
    }
}

#define UNARY(fn, cost)                                                                            \
    static void cpu_##fn(const saw_call *c)                                                        \
    {                                                                                              \
        map(c, c->simd->fn);                                                                       \
    }                                                                                              \
    static void cpu_##fn##_backward(const saw_call *c)                                             \
    {                                                                                              \
        map_gradient(c, c->simd->fn##_gradient);                                                   \
    }                                                                                              \
    static double fn##_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)  \
    {                                                                                              \
        (void)attr, (void)n_in, (void)in;                                                          \
        return cost * (double)saw_dims_count(out);                                                 \
    }                                                                                              \
    const saw_op saw_op_##fn = {                                                                   \
        .name = #fn,                                                                               \
        .shape = shape,                                                                            \
        .axes = saw_axes_rows,                                                                     \
        .flops = fn##_flops,                                                                       \
        .cpu_forward = cpu_##fn,                                                                   \
        .cpu_backward = cpu_##fn##_backward,                                                       \
        .in_place = true,                                                                          \
        .backward_in_place = true,                                                                 \
        .differentiable = true,                                                                    \
        .tolerance_db = 120,                                                                       \
    };                                                                                             \
    saw_val saw_##fn(saw_graph *g, saw_val x)                                                      \
    {                                                                                              \
        return SAW_RECORD(g, &saw_op_##fn, NULL, x);                                               \
    }

UNARY(gelu, 20)
UNARY(tanh, 20)
UNARY(sigmoid, 12)
UNARY(softplus, 24)
UNARY(silu, 13)
UNARY(relu, 1)
UNARY(elu, 11)
UNARY(exp, 10)

#endif
