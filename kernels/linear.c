/*
 * linear.c - y[r, n] = sum_k x[r, k] w[n, k] + bias[n] for every row r of the leading axes.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(linear_forward)
{
    const saw_tensor *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *y = &c->out[0];
    int64_t sx = saw_last_stride(x), sw = w->strides[1], sy = saw_last_stride(y);
    const saw_tensor *t[] = {x, y};
    saw_walk rows = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t n = 0; n < saw_last(y); n++) {
                const real *xr = SAW_ROW(real, rows, 0, r);
                const real *wn = (const real *)w->data + n * w->strides[0];
                double sum = bias->data ? ((const real *)bias->data)[n * bias->strides[0]] : 0;
                for (int64_t k = 0; k < saw_last(x); k++)
                    sum += (double)xr[k * sx] * wn[k * sw];
                put(SAW_ROW(real, rows, 1, r) + n * sy, saw_adds(c, 0), sum);
            }
}

SAW_REF_KERNEL(linear_backward)
{
    const saw_tensor *x = &c->in[0], *w = &c->in[1], *dy = &c->in[4];
    const saw_tensor *dx = &c->out[0], *dw = &c->out[1], *dbias = &c->out[2];
    for (int j = 0; j < 3; j++)
        start_sum(c, j);
    const saw_tensor *t[] = {x, dy, dx};
    saw_walk rows = saw_walk_start(dy->ndim - 1, 3, t);
    while (saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t n = 0; n < saw_last(dy); n++) {
                real d = SAW_ROW(real, rows, 1, r)[n * saw_last_stride(dy)];
                if (dx->data) {
                    real *to = SAW_ROW(real, rows, 2, r);
                    const real *wn = (const real *)w->data + n * w->strides[0];
                    for (int64_t k = 0; k < saw_last(dx); k++)
                        to[k * saw_last_stride(dx)] += d * wn[k * w->strides[1]];
                }
                if (dw->data) {
                    real *to = (real *)dw->data + n * dw->strides[0];
                    const real *xr = SAW_ROW(real, rows, 0, r);
                    for (int64_t k = 0; k < saw_last(x); k++)
                        to[k * dw->strides[1]] += d * xr[k * saw_last_stride(x)];
                }
                if (dbias->data)
                    ((real *)dbias->data)[n * dbias->strides[0]] += d;
            }
}

#else

#include "kernels/product.h"

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *w = &s->in[1], *bias = &s->in[2];
    if (x->n < 1 || !saw_is_matrix(w))
        return saw_refuse(s, "needs x [..., K] and w [N, K]");
    if (w->d[1] != x->d[x->n - 1])
        return saw_refuse(s, "x has %lld features and w takes %lld", (long long)x->d[x->n - 1],
                          (long long)w->d[1]);
    if (bias->n && (bias->n != 1 || bias->d[0] != w->d[0]))
        return saw_refuse(s, "bias is not [%lld]", (long long)w->d[0]);
    s->out[0] = *x;
    s->out[0].d[x->n - 1] = w->d[0];
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

static saw_pack pack(const void *attr, int operand)
{
    (void)attr;
    return operand == 1 ? SAW_PACK_GEMM : SAW_PACK_NONE;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in;
    return 2 * (double)saw_dims_count(out) * (double)in[1].d[1];
}

static void cpu_linear(const saw_call *c)
{
    const saw_tensor *t[] = {&c->in[0], &c->out[0]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        product_rows(c, &w, c->packed[1], c->in[2].data);
}

enum { ENOUGH_BLOCKS = 4 };

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    product_grid g = product_grid_of(in[1].d[0], in[1].d[1], ENOUGH_BLOCKS);
    return g.high * g.wide;
}

/* Of a call for the weights; those of the bias alone have a grid too. */
static product_grid grid_of(const saw_call *c)
{
    return product_grid_of(saw_last(&c->in[4]), c->out[1].ndim ? saw_last(&c->in[0]) : 1,
                           ENOUGH_BLOCKS);
}

static size_t backward_scratch(const saw_call *c)
{
    const saw_tensor *dy = &c->in[4], *dx = &c->out[0];
    return dx->ndim ? product_data_scratch(c->simd, saw_last(dy), saw_last(dx))
                    : product_weight_scratch(c->simd, grid_of(c));
}

static void cpu_linear_backward(const saw_call *c)
{
    const saw_tensor *dy = &c->in[4], *dx = &c->out[0], *dw = &c->out[1];
    if (dx->data) {
        product_data_gradient(c, c->packed[1], dy, dx);
        return;
    }
    product_grid g = grid_of(c);
    int64_t blocks = g.high * g.wide;
    product_weight_gradient(c, dy, &c->in[0], g, blocks * c->part / c->parts,
                            blocks * (c->part + 1) / c->parts, dw->data, dw->strides[0],
                            saw_adds(c, 1), c->out[2].data, saw_adds(c, 2));
}

const saw_op saw_op_linear = {
    .name = "linear",
    .shape = shape,
    .axes = saw_axes_first,
    .keep = keep,
    .scratch = product_scratch,
    .pack = pack,
    .flops = flops,
    .cpu_forward = cpu_linear,
    .cpu_backward = cpu_linear_backward,
    .backward_parts = backward_parts,
    .backward_scratch = backward_scratch,
    .backward_packed = true,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_linear(saw_graph *g, saw_val x, saw_val w, saw_val bias)
{
    return SAW_RECORD(g, &saw_op_linear, NULL, x, w, bias);
}

#endif
