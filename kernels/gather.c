/*
 * gather.c - features picked by a table: y[r] = x[table[r]], 0 where the table says -1.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct gather_attr {
    int64_t n;
    const int32_t *table;
} gather_attr;

#ifdef SAW_REF

SAW_REF_KERNEL(gather_forward)
{
    const gather_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(x->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < a->n; i++)
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(y), saw_adds(c, 0),
                    a->table[i] < 0 ? 0 : SAW_ROW(real, w, 0, r)[a->table[i] * saw_last_stride(x)]);
}

SAW_REF_KERNEL(gather_backward)
{
    const gather_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2], *dx = &c->out[0];
    const saw_tensor *t[] = {dy, dx};
    start_sum(c, 0);
    saw_walk w = saw_walk_start(dy->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const real *from = SAW_ROW(real, w, 0, r);
            real *to = SAW_ROW(real, w, 1, r);
            for (int64_t i = 0; i < a->n; i++)
                if (a->table[i] >= 0)
                    to[a->table[i] * saw_last_stride(dx)] += from[i * saw_last_stride(dy)];
        }
}

#else

#include "kernels/table.h"

static bool shape(saw_shape *s)
{
    const gather_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (x->n < 1 || a->n < 1)
        return saw_refuse(s, "there is nothing to pick");
    int64_t size = x->d[x->n - 1];
    for (int64_t i = 0; i < a->n; i++)
        if (a->table[i] < -1 || a->table[i] >= size)
            return saw_refuse(s, "entry %lld of the table is %d, of %lld features", (long long)i,
                              (int)a->table[i], (long long)size);
    s->out[0] = *x;
    s->out[0].d[x->n - 1] = a->n;
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void cpu_gather(const saw_call *c)
{
    const gather_attr *a = c->attr;
    table_read(c, &c->in[0], a->table, NULL, a->n);
}

static void cpu_gather_backward(const saw_call *c)
{
    const gather_attr *a = c->attr;
    table_add(c, &c->in[2], a->table, NULL, a->n);
}

const saw_op saw_op_gather = {
    .name = "gather",
    .attr_bytes = sizeof(gather_attr),
    .shape = shape,
    .axes = saw_axes_first,
    .keep = keep,
    .cpu_forward = cpu_gather,
    .cpu_backward = cpu_gather_backward,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_gather(saw_graph *g, saw_val x, const int32_t *table, int64_t n)
{
    gather_attr a = {n, n > 0 ? saw_graph_copy(g, table, (size_t)n * sizeof *table) : NULL};
    return SAW_RECORD(g, &saw_op_gather, &a, x);
}

#endif
