/*
 * ratio_mask.c - the share of one estimate in all: e_0 .. e_{n-1} of the same dims, none negative,
 *
 *     y = (e_k^p + eps / n) / (e_0^p + ... + e_{n-1}^p + eps)
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct ratio_mask_attr {
    int which;
    double power, eps;
} ratio_mask_attr;

#ifdef SAW_REF

/* The sum at one index, each estimate at its own place. */
static double total(const saw_call *c, int n, const int64_t *at)
{
    const ratio_mask_attr *a = c->attr;
    double sum = a->eps;
    for (int j = 0; j < n; j++)
        sum += pow(((const real *)c->in[j].data)[at[j]], a->power);
    return sum;
}

/* Walks all elements of `whole`; *at: the element of each of n tensors. */
static bool step_index(const saw_tensor *whole, int64_t *index)
{
    for (int i = whole->ndim; i-- > 0;) {
        if (++index[i] < whole->dims[i])
            return true;
        index[i] = 0;
    }
    return false;
}

static int64_t element(const saw_tensor *t, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < t->ndim; i++)
        at += index[i] * t->strides[i];
    return at;
}

enum { MOST = 32 };

SAW_REF_KERNEL(ratio_mask_forward)
{
    const ratio_mask_attr *a = c->attr;
    int64_t index[SAW_MAX_DIMS] = {0}, at[MOST];
    do {
        for (int j = 0; j < c->n_in; j++)
            at[j] = element(&c->in[j], index);
        double own = pow(((const real *)c->in[a->which].data)[at[a->which]], a->power);
        put((real *)c->out[0].data + element(&c->out[0], index), saw_adds(c, 0),
            (own + a->eps / c->n_in) / total(c, c->n_in, at));
    } while (step_index(&c->out[0], index));
}

SAW_REF_KERNEL(ratio_mask_backward)
{
    const ratio_mask_attr *a = c->attr;
    int n = c->n_out;
    const saw_tensor *dy = &c->in[n + 1];
    int64_t index[SAW_MAX_DIMS] = {0}, at[MOST];
    do {
        for (int j = 0; j < n; j++)
            at[j] = element(&c->in[j], index);
        double sum = total(c, n, at), d = ((const real *)dy->data)[element(dy, index)];
        double own = pow(((const real *)c->in[a->which].data)[at[a->which]], a->power);
        double y = (own + a->eps / n) / sum;
        for (int j = 0; j < n; j++) {
            if (!c->out[j].data)
                continue;
            double slope = a->power * pow(((const real *)c->in[j].data)[at[j]], a->power - 1) / sum;
            put((real *)c->out[j].data + element(&c->out[j], index), saw_adds(c, j),
                d * slope * ((j == a->which) - y));
        }
    } while (step_index(dy, index));
}

#else

#include "kernels/simd/simd.h"

enum { MOST = 32, PIECE = 256 };

static bool shape(saw_shape *s)
{
    if (s->n_in < 1 || s->n_in > MOST || s->in[0].n < 1)
        return saw_refuse(s, "takes 1 to %d estimates of one axis or more", (int)MOST);
    for (int j = 1; j < s->n_in; j++)
        if (!saw_dims_equal(&s->in[j], &s->in[0]))
            return saw_refuse(s, "estimate %d has other dims than the first", j);
    s->out[0] = s->in[0];
    return true;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)in;
    return (2.0 * n_in + 3) * (double)saw_dims_count(out);
}

static void list(const void *attr, saw_buffer *out)
{
    const ratio_mask_attr *a = attr;
    saw_buffer_printf(out, " of %d power %g", a->which, a->power);
}

/* Rows: of the axes from `lead` on, which follow each other in memory in all values. */
typedef struct rows {
    int lead;
    int64_t n; /* elements of one */
} rows;

static void join_axes(const saw_tensor *t, rows *r)
{
    int64_t n = saw_last(t);
    int lead = t->ndim - 1;
    while (t->data && lead > r->lead && t->strides[lead - 1] == n)
        n *= t->dims[--lead];
    if (t->data && lead > r->lead)
        r->lead = lead;
}

static rows rows_of(const saw_call *c, int estimates, const saw_tensor *shape)
{
    rows r = {.n = 1};
    join_axes(shape, &r);
    for (int j = 0; j < estimates; j++)
        join_axes(&c->in[j], &r);
    for (int j = 0; j < c->n_out; j++)
        join_axes(&c->out[j], &r);
    for (int d = r.lead; d < shape->ndim; d++)
        r.n *= shape->dims[d];
    return r;
}

/* Row `index` of a tensor, from element `first` of it. */
static float *row_at(const saw_tensor *t, const rows *r, const int64_t *index, int64_t first)
{
    float *p = (float *)t->data + first;
    for (int d = 0; d < r->lead; d++)
        p += index[d] * t->strides[d];
    return p;
}

/* To the next row; false after the last. */
static bool next_row(const saw_tensor *t, const rows *r, int64_t *index)
{
    for (int d = r->lead; d-- > 0;) {
        if (++index[d] < t->dims[d])
            return true;
        index[d] = 0;
    }
    return false;
}

/* y = x^power */
static void raise(const float *x, double power, float *y, int64_t n)
{
    if (power == 2)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * x[i];
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = power == 1 ? x[i] : powf(x[i], (float)power);
}

/* The shares of a piece of a row, and the sums that they are shares of. */
static void shares(const saw_call *c, int estimates, const rows *r, const int64_t *index,
                   int64_t first, int64_t n, float *share, float *sum)
{
    const ratio_mask_attr *a = c->attr;
    float part[PIECE];
    for (int64_t i = 0; i < n; i++)
        sum[i] = (float)a->eps;
    for (int j = 0; j < estimates; j++) {
        float *power = j == a->which ? share : part;
        raise(row_at(&c->in[j], r, index, first), a->power, power, n);
        c->simd->add(sum, power, sum, n);
    }
    for (int64_t i = 0; i < n; i++)
        share[i] = (share[i] + (float)(a->eps / estimates)) / sum[i];
}

static void cpu_ratio_mask(const saw_call *c)
{
    const saw_tensor *y = &c->out[0];
    const rows r = rows_of(c, c->n_in, y);
    int64_t index[SAW_MAX_DIMS] = {0};
    float sum[PIECE], share[PIECE];
    do
        for (int64_t first = 0; first < r.n; first += PIECE) {
            int64_t n = r.n - first < PIECE ? r.n - first : PIECE;
            float *to = row_at(y, &r, index, first);
            shares(c, c->n_in, &r, index, first, n, share, sum);
            for (int64_t i = 0; i < n; i++)
                to[i] = saw_adds(c, 0) ? to[i] + share[i] : share[i];
        }
    while (next_row(y, &r, index));
}

static void cpu_ratio_mask_backward(const saw_call *c)
{
    const ratio_mask_attr *a = c->attr;
    const saw_tensor *dy = &c->in[c->n_out + 1];
    const rows r = rows_of(c, c->n_out, dy);
    int64_t index[SAW_MAX_DIMS] = {0};
    float sum[PIECE], share[PIECE], slope[PIECE];
    do
        for (int64_t first = 0; first < r.n; first += PIECE) {
            int64_t n = r.n - first < PIECE ? r.n - first : PIECE;
            const float *d = row_at(dy, &r, index, first);
            shares(c, c->n_out, &r, index, first, n, share, sum);
            for (int64_t i = 0; i < n; i++)
                sum[i] = (float)a->power * d[i] / sum[i];
            for (int j = 0; j < c->n_out; j++) {
                if (!c->out[j].data)
                    continue;
                const float *e = row_at(&c->in[j], &r, index, first), own = j == a->which;
                float *to = row_at(&c->out[j], &r, index, first);
                if (a->power != 2)
                    raise(e, a->power - 1, slope, n);
                for (int64_t i = 0; i < n; i++) {
                    float v = sum[i] * (a->power != 2 ? slope[i] : e[i]) * (own - share[i]);
                    to[i] = saw_adds(c, j) ? to[i] + v : v;
                }
            }
        }
    while (next_row(dy, &r, index));
}

const saw_op saw_op_ratio_mask = {
    .name = "ratio_mask",
    .attr_bytes = sizeof(ratio_mask_attr),
    .shape = shape,
    .axes = saw_axes_rows,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_ratio_mask,
    .cpu_backward = cpu_ratio_mask_backward,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_ratio_mask(saw_graph *g, int n, const saw_val *estimates, int which, double power,
                       double eps)
{
    ratio_mask_attr a = {which, power, eps};
    return saw_record(g, &saw_op_ratio_mask, &a, n, estimates, 1);
}

#endif
