/*
 * zero.c - an output filled with zeros: where a gradient that is written in slices begins.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(zero_forward)
{
    start_sum(c, 0);
}

#else

static bool shape(saw_shape *s)
{
    s->out[0] = *(const saw_dims *)s->attr;
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)n_in, (void)in, (void)operand;
    return saw_all_but_last(attr);
}

const saw_op saw_op_zero = {
    .name = "zero",
    .attr_bytes = sizeof(saw_dims),
    .shape = shape,
    .axes = axes,
    .tolerance_db = 200,
};

saw_val saw_zero(saw_graph *g, saw_dims dims)
{
    return saw_record(g, &saw_op_zero, &dims, 0, &(saw_val){0}, 1);
}

#endif
