/*
 * block_linear.c - y = x diag(R_0, R_1, ...)^T: features in blocks of n, y[b n + i] = sum_j R_b[i,
 * j] x[b n + j]. One R serves all blocks where there is only one.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(block_linear_forward)
{
    const saw_tensor *x = &c->in[0], *w = &c->in[1], *y = &c->out[0], *t[] = {x, y};
    int64_t n = w->dims[1], blocks = saw_last(x) / n, sx = saw_last_stride(x);
    saw_walk rows = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t b = 0; b < blocks; b++)
                for (int64_t i = 0; i < n; i++) {
                    const real *wi = (const real *)w->data +
                                     (w->dims[0] > 1 ? b : 0) * w->strides[0] + i * w->strides[1];
                    const real *xr = SAW_ROW(real, rows, 0, r) + b * n * sx;
                    double sum = 0;
                    for (int64_t j = 0; j < n; j++)
                        sum += (double)xr[j * sx] * wi[j * w->strides[2]];
                    put(SAW_ROW(real, rows, 1, r) + (b * n + i) * saw_last_stride(y),
                        saw_adds(c, 0), sum);
                }
}

SAW_REF_KERNEL(block_linear_backward)
{
    const saw_tensor *x = &c->in[0], *w = &c->in[1], *dy = &c->in[3];
    const saw_tensor *dx = &c->out[0], *dw = &c->out[1], *t[] = {x, dy, dx};
    int64_t n = w->dims[1], blocks = saw_last(dy) / n;
    start_sum(c, 0);
    start_sum(c, 1);
    saw_walk rows = saw_walk_start(dy->ndim - 1, 3, t);
    while (saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t b = 0; b < blocks; b++)
                for (int64_t i = 0; i < n; i++) {
                    int64_t own = w->dims[0] > 1 ? b : 0;
                    real d = SAW_ROW(real, rows, 1, r)[(b * n + i) * saw_last_stride(dy)];
                    for (int64_t j = 0; j < n; j++) {
                        int64_t k = b * n + j;
                        if (dx->data)
                            SAW_ROW(real, rows, 2, r)
                            [k * saw_last_stride(dx)] +=
                                d * ((const real *)w->data)[own * w->strides[0] +
                                                            i * w->strides[1] + j * w->strides[2]];
                        if (dw->data)
                            ((real *)dw->data)[own * dw->strides[0] + i * dw->strides[1] +
                                               j * dw->strides[2]] +=
                                d * SAW_ROW(real, rows, 0, r)[k * saw_last_stride(x)];
                    }
                }
}

#else

static bool shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *w = &s->in[1];
    if (x->n < 1 || w->n != 3 || w->d[1] != w->d[2])
        return saw_refuse(s, "needs x [..., K] and square blocks [n, b, b]");
    if (x->d[x->n - 1] % w->d[1] || (w->d[0] != 1 && w->d[0] * w->d[1] != x->d[x->n - 1]))
        return saw_refuse(s, "x has %lld features and the blocks take %lld times %lld",
                          (long long)x->d[x->n - 1], (long long)w->d[0], (long long)w->d[1]);
    s->out[0] = *x;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return 2u | (want & 2 ? 1u : 0);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in;
    return 2 * (double)saw_dims_count(out) * (double)in[1].d[1];
}

const saw_op saw_op_block_linear = {.name = "block_linear",
                                    .shape = shape,
                                    .axes = saw_axes_first,
                                    .keep = keep,
                                    .flops = flops,
                                    .differentiable = true,
                                    .tolerance_db = 110};

saw_val saw_block_linear(saw_graph *g, saw_val x, saw_val blocks)
{
    return SAW_RECORD(g, &saw_op_block_linear, NULL, x, blocks);
}

#endif
