/*
 * band_linear.c - one linear layer a band: y_b = x_b W_b^T + bias_b, b in [0, F).
 *
 * Inputs: x, W_0 .. W_{F-1}, then, if there are biases, bias_0 .. bias_{F-1}. x and y are each
 * uniform, [B,T,F,D], or ragged, [B,T,R]. Cut along F (axis 2) the range says which bands: by the
 * uniform side, origin[2] being the first.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct band_linear_attr {
    int bands;
    bool bias, ragged_in, ragged_out;
    const int64_t *in_start, *out_start; /* bands + 1 */
} band_linear_attr;

/* Bands of this call. */
typedef struct band_range {
    int first, end;
} band_range;

static inline band_range bands_of(const saw_call *c, const saw_tensor *x, const saw_tensor *y)
{
    const band_linear_attr *a = c->attr;
    if (a->ragged_in && a->ragged_out)
        return (band_range){0, a->bands};
    int64_t n = a->ragged_out ? x->dims[2] : y->dims[2];
    return (band_range){(int)c->origin[2], (int)(c->origin[2] + n)};
}

/* The view [B, T, width of band b] of x or y. */
static inline saw_tensor band_of(const saw_tensor *t, bool ragged, const int64_t *start, int b,
                                 int first)
{
    saw_tensor band = *t;
    int64_t offset = ragged ? start[b] * t->strides[2] : (b - first) * t->strides[2];
    if (t->data)
        band.data = (char *)t->data + offset * (int64_t)saw_dtype_bytes(t->dtype);
    band.ndim = 3;
    band.dims[2] = start[b + 1] - start[b];
    band.strides[2] = saw_last_stride(t);
    return band;
}

#ifdef SAW_REF

SAW_REF_KERNEL(band_linear_forward)
{
    const band_linear_attr *a = c->attr;
    band_range range = bands_of(c, &c->in[0], &c->out[0]);
    for (int b = range.first; b < range.end; b++) {
        saw_tensor x = band_of(&c->in[0], a->ragged_in, a->in_start, b, range.first);
        saw_tensor y = band_of(&c->out[0], a->ragged_out, a->out_start, b, range.first);
        const saw_tensor *w = &c->in[1 + b], *bias = a->bias ? &c->in[1 + a->bands + b] : NULL;
        const saw_tensor *t[] = {&x, &y};
        saw_walk rows = saw_walk_start(2, 2, t);
        while (saw_walk_next(&rows))
            for (int64_t r = 0; r < rows.rows; r++)
                for (int64_t n = 0; n < y.dims[2]; n++) {
                    const real *xr = SAW_ROW(real, rows, 0, r);
                    const real *wn = (const real *)w->data + n * w->strides[0];
                    double sum = bias ? ((const real *)bias->data)[n * bias->strides[0]] : 0;
                    for (int64_t k = 0; k < x.dims[2]; k++)
                        sum += (double)xr[k * x.strides[2]] * wn[k * w->strides[1]];
                    put(SAW_ROW(real, rows, 1, r) + n * y.strides[2], saw_adds(c, 0), sum);
                }
    }
}

SAW_REF_KERNEL(band_linear_backward)
{
    const band_linear_attr *a = c->attr;
    for (int j = 0; j < c->n_out; j++)
        start_sum(c, j);
    const saw_tensor *y_grad = &c->in[c->n_out + 1], *x_grad = &c->out[0];
    band_range range = bands_of(c, c->in[0].data ? &c->in[0] : x_grad, y_grad);
    for (int b = range.first; b < range.end; b++) {
        saw_tensor x = band_of(&c->in[0], a->ragged_in, a->in_start, b, range.first);
        saw_tensor dx = band_of(x_grad, a->ragged_in, a->in_start, b, range.first);
        saw_tensor dy = band_of(y_grad, a->ragged_out, a->out_start, b, range.first);
        const saw_tensor *w = &c->in[1 + b], *dw = &c->out[1 + b];
        const saw_tensor *dbias = a->bias ? &c->out[1 + a->bands + b] : NULL;
        const saw_tensor *t[] = {&x, &dy, &dx};
        saw_walk rows = saw_walk_start(2, 3, t);
        while (saw_walk_next(&rows))
            for (int64_t r = 0; r < rows.rows; r++)
                for (int64_t n = 0; n < dy.dims[2]; n++) {
                    real d = SAW_ROW(real, rows, 1, r)[n * dy.strides[2]];
                    real *to = SAW_ROW(real, rows, 2, r);
                    for (int64_t k = 0; dx.data && k < dx.dims[2]; k++)
                        to[k * dx.strides[2]] +=
                            d * ((const real *)w->data)[n * w->strides[0] + k * w->strides[1]];
                    for (int64_t k = 0; dw->data && k < x.dims[2]; k++)
                        ((real *)dw->data)[n * dw->strides[0] + k * dw->strides[1]] +=
                            d * SAW_ROW(real, rows, 0, r)[k * x.strides[2]];
                    if (dbias && dbias->data)
                        ((real *)dbias->data)[n * dbias->strides[0]] += d;
                }
    }
}

#else

#include "kernels/product.h"

/* Does `x` hold these bands, uniform or ragged? */
static bool fits(const saw_dims *x, bool ragged, int bands, const int64_t *start)
{
    if (ragged)
        return x->n == 3 && x->d[2] == start[bands];
    if (x->n != 4 || x->d[2] != bands)
        return false;
    for (int b = 0; b < bands; b++)
        if (start[b + 1] - start[b] != x->d[3])
            return false;
    return true;
}

static bool shape(saw_shape *s)
{
    const band_linear_attr *a = s->attr;
    const saw_dims *w = &s->in[1], *bias = w + a->bands;
    if (!fits(&s->in[0], a->ragged_in, a->bands, a->in_start))
        return saw_refuse(s, "x does not hold %d bands of the widths that the weights take",
                          a->bands);
    for (int b = 0; b < a->bands; b++) {
        if (!saw_is_matrix(&w[b]))
            return saw_refuse(s, "the weight of band %d is not a matrix", b);
        if (a->bias && (bias[b].n != 1 || bias[b].d[0] != w[b].d[0]))
            return saw_refuse(s, "the bias of band %d is not [%lld]", b, (long long)w[b].d[0]);
    }
    int64_t n = a->out_start[1];
    s->out[0] = a->ragged_out ? SAW_DIMS(s->in[0].d[0], s->in[0].d[1], a->out_start[a->bands])
                              : SAW_DIMS(s->in[0].d[0], s->in[0].d[1], a->bands, n);
    if (!fits(&s->out[0], a->ragged_out, a->bands, a->out_start))
        return saw_refuse(s, "the bands give different numbers of features");
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    const band_linear_attr *a = attr;
    (void)in;
    if (operand == 0)
        return SAW_LEADING(a->ragged_in ? 2 : 3);
    return operand >= n_in ? SAW_LEADING(a->ragged_out ? 2 : 3) : 0;
}

static uint32_t disjoint(const void *attr, int n_in, const saw_dims *in)
{
    const band_linear_attr *a = attr;
    (void)n_in, (void)in;
    return a->ragged_out && !a->ragged_in ? SAW_AXIS(2) : 0;
}

static saw_pack pack(const void *attr, int operand)
{
    const band_linear_attr *a = attr;
    return operand >= 1 && operand <= a->bands ? SAW_PACK_GEMM : SAW_PACK_NONE;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    const band_linear_attr *a = attr;
    (void)n_in, (void)out;
    double sum = 0;
    for (int b = 0; b < a->bands; b++)
        sum += (double)saw_dims_count(&in[1 + b]);
    return 2 * sum * (double)in[0].d[0] * (double)in[0].d[1];
}

static void list(const void *attr, saw_buffer *out)
{
    const band_linear_attr *a = attr;
    saw_buffer_printf(out, " bands %d", a->bands);
}

static void cpu_band_linear(const saw_call *c)
{
    const band_linear_attr *a = c->attr;
    band_range range = bands_of(c, &c->in[0], &c->out[0]);
    for (int b = range.first; b < range.end; b++) {
        saw_tensor x = band_of(&c->in[0], a->ragged_in, a->in_start, b, range.first);
        saw_tensor y = band_of(&c->out[0], a->ragged_out, a->out_start, b, range.first);
        const saw_tensor *t[] = {&x, &y};
        saw_walk w = saw_walk_start(2, 2, t);
        while (saw_walk_next(&w))
            product_rows(c, &w, c->packed[1 + b], a->bias ? c->in[1 + a->bands + b].data : NULL);
    }
}

/* Blocks of the gradient of a band's weight. */
static product_grid grid_of(const band_linear_attr *a, int b)
{
    return product_grid_of(a->out_start[b + 1] - a->out_start[b],
                           a->in_start[b + 1] - a->in_start[b], a->bands < 4 ? 4 : 1);
}

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    const band_linear_attr *a = attr;
    (void)n_in, (void)in, (void)out;
    int64_t blocks = 0;
    for (int b = 0; b < a->bands; b++) {
        product_grid g = grid_of(a, b);
        blocks += g.high * g.wide;
    }
    return blocks;
}

static size_t backward_scratch(const saw_call *c)
{
    const band_linear_attr *a = c->attr;
    size_t most = 0;
    for (int b = 0; b < a->bands; b++) {
        product_grid g = grid_of(a, b);
        size_t bytes = c->out[0].ndim ? product_data_scratch(c->simd, g.n, g.k)
                                      : product_weight_scratch(c->simd, g);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void cpu_band_linear_backward(const saw_call *c)
{
    const band_linear_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *dy = &c->in[c->n_out + 1], *dx = &c->out[0];
    band_range range = bands_of(c, dx->data ? dx : x, dy);
    for (int b = range.first; b < range.end && dx->data; b++) {
        saw_tensor from = band_of(dy, a->ragged_out, a->out_start, b, range.first);
        saw_tensor to = band_of(dx, a->ragged_in, a->in_start, b, range.first);
        product_data_gradient(c, c->packed[1 + b], &from, &to);
    }
    if (dx->data)
        return;
    int64_t all = backward_parts(a, 0, NULL, NULL), first = all * c->part / c->parts;
    int64_t end = all * (c->part + 1) / c->parts;
    for (int b = 0; b < a->bands; b++) {
        product_grid g = grid_of(a, b);
        int64_t blocks = g.high * g.wide;
        const saw_tensor *dw = &c->out[1 + b], *dbias = a->bias ? dw + a->bands : NULL;
        saw_tensor from = band_of(dy, a->ragged_out, a->out_start, b, 0);
        saw_tensor with = band_of(x, a->ragged_in, a->in_start, b, 0);
        product_weight_gradient(c, &from, &with, g, first > 0 ? first : 0,
                                end < blocks ? end : blocks, dw->data, dw->strides[0],
                                saw_adds(c, 1 + b), dbias ? dbias->data : NULL,
                                saw_adds(c, 1 + a->bands + b));
        first -= blocks;
        end -= blocks;
    }
}

const saw_op saw_op_band_linear = {
    .name = "band_linear",
    .attr_bytes = sizeof(band_linear_attr),
    .shape = shape,
    .axes = axes,
    .disjoint = disjoint,
    .scratch = product_scratch,
    .pack = pack,
    .dealt_axis = 2,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_band_linear,
    .cpu_backward = cpu_band_linear_backward,
    .backward_parts = backward_parts,
    .backward_scratch = backward_scratch,
    .backward_packed = true,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_band_linear(saw_graph *g, saw_val x, int bands, const saw_val *w, const saw_val *bias,
                        bool ragged)
{
    if (bands < 1)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "band_linear: there are no bands");
    saw_context *ctx = saw_graph_context(g);
    int n_in = 1 + (bias ? 2 : 1) * bands;
    saw_val *in = saw_calloc(ctx, (size_t)n_in, sizeof *in), out = 0;
    int64_t *widths = saw_calloc(ctx, 2 * (size_t)bands, sizeof *widths);
    if (in && widths) {
        in[0] = x;
        for (int b = 0; b < bands; b++) {
            saw_dims d = saw_dims_val(g, in[1 + b] = w[b]);
            widths[b] = saw_is_matrix(&d) ? d.d[1] : 0;
            widths[bands + b] = saw_is_matrix(&d) ? d.d[0] : 0;
            if (bias)
                in[1 + bands + b] = bias[b];
        }
        band_linear_attr a = {bands,
                              bias != NULL,
                              saw_dims_val(g, x).n == 3,
                              ragged,
                              saw_band_starts(g, bands, widths),
                              saw_band_starts(g, bands, widths + bands)};
        if (a.in_start && a.out_start)
            out = saw_record(g, &saw_op_band_linear, &a, n_in, in, 1);
    } else {
        saw_graph_fail(g, SAW_ERR_MEMORY, "band_linear: no memory for %d bands", bands);
    }
    saw_free(ctx, in);
    saw_free(ctx, widths);
    return out;
}

#endif
