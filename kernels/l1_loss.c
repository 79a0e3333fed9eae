/*
 * l1_loss.c - weight * mean |y - target| over all elements.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct l1_loss_attr {
    double weight;
} l1_loss_attr;

#ifdef SAW_REF

SAW_REF_KERNEL(l1_loss_forward)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[1]};
    double sum = 0;
    saw_walk w = saw_walk_start(t[0]->ndim, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            sum += fabs((double)*SAW_ROW(real, w, 0, r) - *SAW_ROW(real, w, 1, r));
    put(c->out[0].data, saw_adds(c, 0),
        ((const l1_loss_attr *)c->attr)->weight * sum / (double)saw_tensor_count(t[0]));
}

SAW_REF_KERNEL(l1_loss_backward)
{
    const saw_tensor *t[] = {&c->in[0], &c->in[1], &c->out[0], &c->out[1]};
    double step = ((const l1_loss_attr *)c->attr)->weight / (double)saw_tensor_count(t[0]) *
                  *(const real *)c->in[3].data;
    saw_walk w = saw_walk_start(t[0]->ndim, 4, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            real y = *SAW_ROW(real, w, 0, r), target = *SAW_ROW(real, w, 1, r);
            double slope = step * ((y > target) - (y < target));
            if (c->out[0].data)
                put(SAW_ROW(real, w, 2, r), saw_adds(c, 0), slope);
            if (c->out[1].data)
                put(SAW_ROW(real, w, 3, r), saw_adds(c, 1), -slope);
        }
}

#else

static bool shape(saw_shape *s)
{
    if (!s->in[0].n || !saw_dims_equal(&s->in[0], &s->in[1]) || !saw_dims_count(&s->in[0]))
        return saw_refuse(s, "y and the target do not have the same dims");
    s->out[0] = SAW_DIMS(1);
    return true;
}

static uint32_t uncut(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return 0;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return 3 * (double)saw_dims_count(&in[0]);
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " weight %g", ((const l1_loss_attr *)attr)->weight);
}

const saw_op saw_op_l1_loss = {
    .name = "l1_loss",
    .attr_bytes = sizeof(l1_loss_attr),
    .shape = shape,
    .axes = uncut,
    .flops = flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_l1_loss(saw_graph *g, saw_val y, saw_val target, double weight)
{
    return SAW_RECORD(g, &saw_op_l1_loss, &(l1_loss_attr){weight}, y, target);
}

#endif
