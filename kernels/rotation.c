/*
 * rotation.c - the numbers of plane rotations with a gain: for each radius and angle r cos t, then
 * all r sin t, then all -r sin t.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(rotation_forward)
{
    int64_t n = c->in[0].dims[0], sy = c->out[0].strides[0];
    for (int64_t i = 0; i < n; i++) {
        double r = ((const real *)c->in[0].data)[i * c->in[0].strides[0]];
        double t = ((const real *)c->in[1].data)[i * c->in[1].strides[0]];
        real *y = (real *)c->out[0].data + i * sy;
        put(y, saw_adds(c, 0), r * cos(t));
        put(y + n * sy, saw_adds(c, 0), r * sin(t));
        put(y + 2 * n * sy, saw_adds(c, 0), -r * sin(t));
    }
}

SAW_REF_KERNEL(rotation_backward)
{
    const saw_tensor *dy = &c->in[3];
    int64_t n = c->in[0].dims[0];
    for (int64_t i = 0; i < n; i++) {
        double r = ((const real *)c->in[0].data)[i * c->in[0].strides[0]];
        double t = ((const real *)c->in[1].data)[i * c->in[1].strides[0]];
        const real *d = (const real *)dy->data + i * dy->strides[0];
        double dc = d[0], ds = (double)d[n * dy->strides[0]] - d[2 * n * dy->strides[0]];
        if (c->out[0].data)
            put((real *)c->out[0].data + i * c->out[0].strides[0], saw_adds(c, 0),
                dc * cos(t) + ds * sin(t));
        if (c->out[1].data)
            put((real *)c->out[1].data + i * c->out[1].strides[0], saw_adds(c, 1),
                r * (ds * cos(t) - dc * sin(t)));
    }
}

#else

static bool shape(saw_shape *s)
{
    if (s->in[0].n != 1 || !saw_dims_equal(&s->in[0], &s->in[1]))
        return saw_refuse(s, "needs as many radii as angles");
    s->out[0] = SAW_DIMS(3 * s->in[0].d[0]);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return 0;
}

const saw_op saw_op_rotation = {
    .name = "rotation", .shape = shape, .axes = axes, .differentiable = true, .tolerance_db = 110};

saw_val saw_rotation(saw_graph *g, saw_val radius, saw_val angle)
{
    return SAW_RECORD(g, &saw_op_rotation, NULL, radius, angle);
}

#endif
