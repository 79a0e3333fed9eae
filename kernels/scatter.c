/*
 * scatter.c - y[i] = mean of all x[r] with table[r] == i, 0 where there is none: masks of
 * overlapping bands joined.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct scatter_attr {
    int64_t n, size;
    const int32_t *table;
    const double *share; /* n: 1 / how many entries of the table name the same place */
} scatter_attr;

#ifdef SAW_REF

SAW_REF_KERNEL(scatter_forward)
{
    const scatter_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    const saw_tensor *t[] = {x, y};
    start_sum(c, 0);
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < a->n; i++)
                if (a->table[i] >= 0)
                    put(SAW_ROW(real, w, 1, r) + a->table[i] * saw_last_stride(y), true,
                        a->share[i] * SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)]);
}

SAW_REF_KERNEL(scatter_backward)
{
    const scatter_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2], *dx = &c->out[0];
    const saw_tensor *t[] = {dy, dx};
    saw_walk w = saw_walk_start(dy->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < a->n; i++)
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(dx), saw_adds(c, 0),
                    a->table[i] < 0
                        ? 0
                        : a->share[i] * SAW_ROW(real, w, 0, r)[a->table[i] * saw_last_stride(dy)]);
}

#else

#include "kernels/table.h"

static bool shape(saw_shape *s)
{
    const scatter_attr *a = s->attr;
    s->out[0] = s->in[0];
    s->out[0].d[s->in[0].n - 1] = a->size;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void cpu_scatter(const saw_call *c)
{
    const scatter_attr *a = c->attr;
    table_add(c, &c->in[0], a->table, a->share, a->n);
}

static void cpu_scatter_backward(const saw_call *c)
{
    const scatter_attr *a = c->attr;
    table_read(c, &c->in[2], a->table, a->share, a->n);
}

const saw_op saw_op_scatter = {
    .name = "scatter",
    .attr_bytes = sizeof(scatter_attr),
    .shape = shape,
    .axes = saw_axes_first,
    .keep = keep,
    .cpu_forward = cpu_scatter,
    .cpu_backward = cpu_scatter_backward,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_scatter(saw_graph *g, saw_val x, const int32_t *table, int64_t size)
{
    saw_dims d = saw_dims_val(g, x);
    if (!d.n)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "scatter: there is no input");
    int64_t n = d.d[d.n - 1];
    for (int64_t i = 0; i < n; i++)
        if (table[i] < -1 || table[i] >= size)
            return saw_graph_fail(g, SAW_ERR_SHAPE,
                                  "scatter: entry %lld of the table is %d, of %lld features",
                                  (long long)i, (int)table[i], (long long)size);
    saw_context *ctx = saw_graph_context(g);
    double *share = saw_calloc(ctx, (size_t)n, sizeof *share),
           *count = saw_calloc(ctx, (size_t)size, sizeof *count);
    saw_val out = 0;
    if (share && count) {
        for (int64_t i = 0; i < n; i++)
            if (table[i] >= 0)
                count[table[i]]++;
        for (int64_t i = 0; i < n; i++)
            share[i] = table[i] < 0 ? 0 : 1 / count[table[i]];
        scatter_attr a = {n, size, saw_graph_copy(g, table, (size_t)n * sizeof *table),
                          saw_graph_copy(g, share, (size_t)n * sizeof *share)};
        out = SAW_RECORD(g, &saw_op_scatter, &a, x);
    } else {
        saw_graph_fail(g, SAW_ERR_MEMORY, "scatter: no memory for a table of %lld", (long long)n);
    }
    saw_free(ctx, share);
    saw_free(ctx, count);
    return out;
}

#endif
