/*
 * scale.c - a constant times x.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct scale_attr {
    double factor;
} scale_attr;

#ifdef SAW_REF

static void scaled(const saw_call *c, const saw_tensor *x)
{
    const scale_attr *a = c->attr;
    const saw_tensor *t[] = {x, &c->out[0]};
    saw_walk w = saw_walk_start(x->ndim, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            put(SAW_ROW(real, w, 1, r), saw_adds(c, 0), a->factor * *SAW_ROW(real, w, 0, r));
}

SAW_REF_KERNEL(scale_forward)
{
    scaled(c, &c->in[0]);
}

SAW_REF_KERNEL(scale_backward)
{
    scaled(c, &c->in[2]);
}

#else

static bool shape(saw_shape *s)
{
    if (s->in[0].n < 1)
        return saw_refuse(s, "needs a value of one axis or more");
    s->out[0] = s->in[0];
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " factor %g", ((const scale_attr *)attr)->factor);
}

const saw_op saw_op_scale = {
    .name = "scale",
    .attr_bytes = sizeof(scale_attr),
    .shape = shape,
    .axes = saw_axes_rows,
    .keep = keep,
    .list = list,
    .in_place = true,
    .backward_in_place = true,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_scale(saw_graph *g, saw_val x, double factor)
{
    return SAW_RECORD(g, &saw_op_scale, &(scale_attr){factor}, x);
}

#endif
