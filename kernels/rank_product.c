/*
 * rank_product.c - y = B A for a few columns: b [N, r], a [r, K] -> [N, K]. What makes a low-rank
 * change of a weight; both are trained, so neither is packed.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

static inline const real *at(const saw_tensor *t, int64_t i, int64_t j)
{
    return (const real *)t->data + i * t->strides[0] + j * t->strides[1];
}

SAW_REF_KERNEL(rank_product_forward)
{
    const saw_tensor *b = &c->in[0], *a = &c->in[1], *y = &c->out[0];
    for (int64_t n = 0; n < y->dims[0]; n++)
        for (int64_t k = 0; k < y->dims[1]; k++) {
            double sum = 0;
            for (int64_t r = 0; r < a->dims[0]; r++)
                sum += (double)*at(b, n, r) * *at(a, r, k);
            put((real *)at(y, n, k), saw_adds(c, 0), sum);
        }
}

SAW_REF_KERNEL(rank_product_backward)
{
    const saw_tensor *b = &c->in[0], *a = &c->in[1], *dy = &c->in[3];
    const saw_tensor *db = &c->out[0], *da = &c->out[1];
    for (int64_t n = 0; n < dy->dims[0] && db->data; n++)
        for (int64_t r = 0; r < db->dims[1]; r++) {
            double sum = 0;
            for (int64_t k = 0; k < dy->dims[1]; k++)
                sum += (double)*at(dy, n, k) * *at(a, r, k);
            put((real *)at(db, n, r), saw_adds(c, 0), sum);
        }
    for (int64_t r = 0; da->data && r < da->dims[0]; r++)
        for (int64_t k = 0; k < dy->dims[1]; k++) {
            double sum = 0;
            for (int64_t n = 0; n < dy->dims[0]; n++)
                sum += (double)*at(dy, n, k) * *at(b, n, r);
            put((real *)at(da, r, k), saw_adds(c, 1), sum);
        }
}

#else

#include "kernels/simd/simd.h"

#include <string.h>

enum { ROWS = 16, COLUMNS = 1024 }; /* of a part of the gradients */

static bool shape(saw_shape *s)
{
    const saw_dims *b = &s->in[0], *a = &s->in[1];
    if (b->n != 2 || a->n != 2 || b->d[1] != a->d[0])
        return saw_refuse(s, "needs b [N, r] and a [r, K]");
    s->out[0] = SAW_DIMS(b->d[0], a->d[1]);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in;
    return operand == 1 ? 0 : SAW_AXIS(0);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in;
    return 2 * (double)saw_dims_count(out) * (double)in[0].d[1];
}

static float *row(const saw_tensor *t, int64_t i)
{
    return (float *)t->data + i * t->strides[0];
}

static void cpu_rank_product(const saw_call *c)
{
    const saw_tensor *b = &c->in[0], *a = &c->in[1], *y = &c->out[0];
    for (int64_t n = 0; n < y->dims[0]; n++) {
        float *to = row(y, n);
        if (!saw_adds(c, 0))
            memset(to, 0, (size_t)y->dims[1] * sizeof *to);
        for (int64_t r = 0; r < a->dims[0]; r++)
            c->simd->axpy(row(b, n)[r * b->strides[1]], row(a, r), to, y->dims[1]);
    }
}

/* Blocks of rows of db, then blocks of columns of da. */
static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return (out[0].d[0] + ROWS - 1) / ROWS + (out[0].d[1] + COLUMNS - 1) / COLUMNS;
}

static void rows_of_b(const saw_call *c, int64_t first)
{
    const saw_tensor *a = &c->in[1], *dy = &c->in[3], *db = &c->out[0];
    int64_t end = first + ROWS < dy->dims[0] ? first + ROWS : dy->dims[0];
    for (int64_t n = first; n < end && db->data; n++)
        for (int64_t r = 0; r < db->dims[1]; r++) {
            float *to = row(db, n) + r * db->strides[1];
            float sum = c->simd->dot(row(dy, n), row(a, r), dy->dims[1]);
            *to = saw_adds(c, 0) ? *to + sum : sum;
        }
}

static void columns_of_a(const saw_call *c, int64_t first)
{
    const saw_tensor *b = &c->in[0], *dy = &c->in[3], *da = &c->out[1];
    int64_t count = dy->dims[1] - first < COLUMNS ? dy->dims[1] - first : COLUMNS;
    for (int64_t r = 0; da->data && r < da->dims[0]; r++) {
        float *to = row(da, r) + first;
        if (!saw_adds(c, 1))
            memset(to, 0, (size_t)count * sizeof *to);
        for (int64_t n = 0; n < dy->dims[0]; n++)
            c->simd->axpy(row(b, n)[r * b->strides[1]], row(dy, n) + first, to, count);
    }
}

static void cpu_rank_product_backward(const saw_call *c)
{
    const saw_dims out = {.n = 2, .d = {c->in[3].dims[0], c->in[3].dims[1]}};
    int64_t blocks = backward_parts(NULL, 0, NULL, &out), rows = (out.d[0] + ROWS - 1) / ROWS;
    for (int64_t i = blocks * c->part / c->parts; i < blocks * (c->part + 1) / c->parts; i++)
        if (i < rows)
            rows_of_b(c, i * ROWS);
        else
            columns_of_a(c, (i - rows) * COLUMNS);
}

const saw_op saw_op_rank_product = {
    .name = "rank_product",
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .flops = flops,
    .cpu_forward = cpu_rank_product,
    .cpu_backward = cpu_rank_product_backward,
    .backward_parts = backward_parts,
    .joint_backward = true,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_rank_product(saw_graph *g, saw_val b, saw_val a)
{
    return SAW_RECORD(g, &saw_op_rank_product, NULL, b, a);
}

#endif
