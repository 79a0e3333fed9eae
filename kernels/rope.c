/*
 * rope.c - rotary position embeddings.
 *
 * rope_table: cos and sin of position * freq, in double.
 * rope (Su et al. 2021): neighbours (x[2i], x[2i+1]) turned as a complex number by the table's row
 * of the position. pope (Gopalakrishnan et al. 2025): every channel becomes softplus(x_i) turned
 * from the real axis by the table and by a learned phase of its head, so that q . k is sum_i
 * softplus(q_i) softplus(k_i) cos(angle_q - angle_k).
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct rope_table_attr {
    int64_t n;
} rope_table_attr;

typedef struct rope_attr {
    int axis;
} rope_attr;

/* A table [n, ...] as a tensor to be walked with rows of x: it moves with axis `axis` of x, from
 * the range's origin on, and its last axis is a row of the table's. */
static inline saw_tensor along(const saw_tensor *table, const saw_tensor *x, int axis,
                               int64_t origin)
{
    saw_tensor t = {.dtype = table->dtype, .ndim = x->ndim};
    if (table->data)
        t.data = (char *)table->data +
                 origin * table->strides[0] * (int64_t)saw_dtype_bytes(table->dtype);
    for (int i = 0; i < t.ndim; i++)
        t.dims[i] = 1;
    t.dims[axis] = x->dims[axis];
    t.strides[axis] = table->strides[0];
    return t;
}

#ifdef SAW_REF

SAW_REF_KERNEL(rope_table_forward)
{
    const saw_tensor *freqs = &c->in[0], *y = &c->out[0];
    for (int64_t p = 0; p < y->dims[0]; p++)
        for (int64_t i = 0; i < y->dims[1]; i++) {
            double angle = (double)p * ((const real *)freqs->data)[i * freqs->strides[0]];
            real *at = (real *)y->data + p * y->strides[0] + i * y->strides[1];
            put(at, saw_adds(c, 0), cos(angle));
            put(at + y->strides[2], saw_adds(c, 0), sin(angle));
        }
}

/* direction 1: turn; -1: turn back, which is the gradient. */
static void turn(const saw_call *c, const saw_tensor *x, int direction)
{
    const saw_tensor *table = &c->in[1], *y = &c->out[0];
    int axis = ((const rope_attr *)c->attr)->axis;
    int64_t sx = saw_last_stride(x), sy = saw_last_stride(y);
    saw_tensor angles = along(table, x, axis, c->origin[axis]);
    const saw_tensor *t[] = {x, y, &angles};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x) / 2; i++) {
                const real *a = SAW_ROW(real, w, 2, r) + i * table->strides[1];
                const real *from = SAW_ROW(real, w, 0, r) + 2 * i * sx;
                real *to = SAW_ROW(real, w, 1, r) + 2 * i * sy;
                double re = from[0], im = from[sx], cosine = a[0],
                       sine = direction * a[table->strides[2]];
                put(to, saw_adds(c, 0), re * cosine - im * sine);
                put(to + sy, saw_adds(c, 0), re * sine + im * cosine);
            }
}

SAW_REF_KERNEL(rope_forward)
{
    turn(c, &c->in[0], 1);
}

SAW_REF_KERNEL(rope_backward)
{
    turn(c, &c->in[3], -1);
}

static double clamped(double bias)
{
    return fmin(fmax(bias, -6.28318530717958647693), 0);
}

SAW_REF_KERNEL(pope_phase_forward)
{
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    for (int64_t h = 0; h < x->dims[0]; h++)
        for (int64_t i = 0; i < x->dims[1]; i++) {
            double angle = clamped(((const real *)x->data)[h * x->strides[0] + i * x->strides[1]]);
            real *at = (real *)y->data + h * y->strides[0] + i * y->strides[1];
            put(at, saw_adds(c, 0), cos(angle));
            put(at + y->strides[2], saw_adds(c, 0), sin(angle));
        }
}

SAW_REF_KERNEL(pope_phase_backward)
{
    const saw_tensor *x = &c->in[0], *dy = &c->in[2], *dx = &c->out[0];
    for (int64_t h = 0; h < x->dims[0]; h++)
        for (int64_t i = 0; i < x->dims[1]; i++) {
            double bias = ((const real *)x->data)[h * x->strides[0] + i * x->strides[1]],
                   angle = clamped(bias);
            const real *d = (const real *)dy->data + h * dy->strides[0] + i * dy->strides[1];
            put((real *)dx->data + h * dx->strides[0] + i * dx->strides[1], saw_adds(c, 0),
                angle == bias ? cos(angle) * d[dy->strides[2]] - sin(angle) * d[0] : 0);
        }
}

/* The angle of element i: the table's row times the phase, as complex numbers. */
typedef struct angle {
    double cosine, sine;
} angle;

static angle joined(const real *a, const saw_tensor *table, const real *phase,
                    const saw_tensor *phases, int64_t i)
{
    double ca = a[i * table->strides[1]], sa = a[i * table->strides[1] + table->strides[2]];
    if (!phase)
        return (angle){ca, sa};
    double cb = phase[i * phases->strides[1]],
           sb = phase[i * phases->strides[1] + phases->strides[2]];
    return (angle){ca * cb - sa * sb, sa * cb + ca * sb};
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

SAW_REF_KERNEL(pope_forward)
{
    const saw_tensor *x = &c->in[0], *table = &c->in[1], *phase = &c->in[2], *y = &c->out[0];
    int axis = ((const rope_attr *)c->attr)->axis, head = x->ndim - 2;
    int64_t sy = saw_last_stride(y);
    saw_tensor angles = along(table, x, axis, c->origin[axis]),
               phases = along(phase, x, head, c->origin[head]);
    const saw_tensor *t[] = {x, y, &angles, &phases};
    saw_walk w = saw_walk_start(x->ndim - 1, 4, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++) {
                angle a = joined(SAW_ROW(real, w, 2, r), table, SAW_ROW(real, w, 3, r), phase, i);
                double size = softplus(SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)]);
                real *to = SAW_ROW(real, w, 1, r) + 2 * i * sy;
                put(to, saw_adds(c, 0), size * a.cosine);
                put(to + sy, saw_adds(c, 0), size * a.sine);
            }
}

SAW_REF_KERNEL(pope_backward)
{
    const saw_tensor *x = &c->in[0], *table = &c->in[1], *phase = &c->in[2], *dy = &c->in[4];
    const saw_tensor *dx = &c->out[0], *dphase = &c->out[2];
    int axis = ((const rope_attr *)c->attr)->axis, head = x->ndim - 2;
    start_sum(c, 2);
    saw_tensor angles = along(table, x, axis, c->origin[axis]);
    saw_tensor phases = along(phase, x, head, c->origin[head]);
    saw_tensor phase_grads = along(dphase, x, head, 0);
    const saw_tensor *t[] = {x, dy, &angles, &phases, dx, &phase_grads};
    saw_walk w = saw_walk_start(x->ndim - 1, 6, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t i = 0; i < saw_last(x); i++) {
                const real *a = SAW_ROW(real, w, 2, r);
                const real *d = SAW_ROW(real, w, 1, r) + 2 * i * saw_last_stride(dy);
                double re = d[0], im = d[saw_last_stride(dy)];
                double xi = SAW_ROW(real, w, 0, r)[i * saw_last_stride(x)];
                angle turned = joined(a, table, SAW_ROW(real, w, 3, r), phase, i);
                if (dx->data)
                    put(SAW_ROW(real, w, 4, r) + i * saw_last_stride(dx), saw_adds(c, 0),
                        (re * turned.cosine + im * turned.sine) / (1 + exp(-xi)));
                if (dphase->data) {
                    angle plain = joined(a, table, NULL, NULL, i);
                    real *to = SAW_ROW(real, w, 5, r) + i * dphase->strides[1];
                    to[0] += (real)(softplus(xi) * (re * plain.cosine + im * plain.sine));
                    to[dphase->strides[2]] +=
                        (real)(softplus(xi) * (im * plain.cosine - re * plain.sine));
                }
            }
}

#else

#include "kernels/simd/simd.h"

#include <string.h>

static bool table_shape(saw_shape *s)
{
    if (s->in[0].n != 1)
        return saw_refuse(s, "the frequencies are not a vector");
    int64_t n = ((const rope_table_attr *)s->attr)->n;
    if (n < 1)
        return saw_refuse(s, "a table of %lld positions", (long long)n);
    s->out[0] = SAW_DIMS(n, s->in[0].d[0], 2);
    return true;
}

static uint32_t uncut(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return 0;
}

static void list_positions(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " positions %lld", (long long)((const rope_table_attr *)attr)->n);
}

const saw_op saw_op_rope_table = {
    .name = "rope_table",
    .attr_bytes = sizeof(rope_table_attr),
    .shape = table_shape,
    .axes = uncut,
    .list = list_positions,
    .tolerance_db = 130,
};

saw_val saw_rope_table(saw_graph *g, saw_val freqs, int64_t n)
{
    return SAW_RECORD(g, &saw_op_rope_table, &(rope_table_attr){n}, freqs);
}

/* x [..., H, d] and a table [n, pairs, 2] that reaches along the axis. */
static bool takes_table(saw_shape *s, int64_t features_a_pair)
{
    const saw_dims *x = &s->in[0], *table = &s->in[1];
    int axis = ((const rope_attr *)s->attr)->axis;
    if (x->n < 2 || axis < 0 || axis >= x->n - 1)
        return saw_refuse(s, "axis %d of a value of %d axes", axis, x->n);
    if (table->n != 3 || table->d[2] != 2 || features_a_pair * table->d[1] != x->d[x->n - 1])
        return saw_refuse(s, "the table does not fit %lld features", (long long)x->d[x->n - 1]);
    if (table->d[0] < x->d[axis])
        return saw_refuse(s, "a table of %lld positions for %lld", (long long)table->d[0],
                          (long long)x->d[axis]);
    return true;
}

static void list_axis(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " axis %d", ((const rope_attr *)attr)->axis);
}

static bool rope_shape(saw_shape *s)
{
    s->out[0] = s->in[0];
    return takes_table(s, 2);
}

static uint32_t keep_table(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 2;
}

static double rope_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 3 * (double)saw_dims_count(out);
}

static size_t row_scratch(const saw_call *c)
{
    return (size_t)saw_last(&c->in[0]) * sizeof(float);
}

/* conjugate: turn back, which is the gradient. */
static void cpu_turn(const saw_call *c, const saw_tensor *x, bool conjugate)
{
    const saw_tensor *y = &c->out[0];
    int axis = ((const rope_attr *)c->attr)->axis;
    int64_t d = saw_last(x);
    saw_tensor angles = along(&c->in[1], x, axis, c->origin[axis]);
    const saw_tensor *t[] = {x, y, &angles};
    saw_walk w = saw_walk_start(x->ndim - 1, 3, t);
    while (saw_walk_next(&w)) {
        if (!saw_adds(c, 0)) {
            c->simd->rope(SAW_ROW(const float, w, 0, 0), w.stride[0], SAW_ROW(float, w, 1, 0),
                          w.stride[1], SAW_ROW(const float, w, 2, 0), w.stride[2], conjugate,
                          w.rows, d);
            continue;
        }
        for (int64_t r = 0; r < w.rows; r++) {
            float *out = SAW_ROW(float, w, 1, r);
            c->simd->rope(SAW_ROW(const float, w, 0, r), 0, c->scratch, 0,
                          SAW_ROW(const float, w, 2, r), 0, conjugate, 1, d);
            c->simd->add(out, c->scratch, out, d);
        }
    }
}

static void cpu_rope(const saw_call *c)
{
    cpu_turn(c, &c->in[0], false);
}

static void cpu_rope_backward(const saw_call *c)
{
    cpu_turn(c, &c->in[3], true);
}

static size_t gradient_row_scratch(const saw_call *c)
{
    return (size_t)saw_last(&c->in[3]) * sizeof(float);
}

const saw_op saw_op_rope = {
    .name = "rope",
    .attr_bytes = sizeof(rope_attr),
    .shape = rope_shape,
    .axes = saw_axes_first,
    .keep = keep_table,
    .scratch = row_scratch,
    .flops = rope_flops,
    .list = list_axis,
    .cpu_forward = cpu_rope,
    .cpu_backward = cpu_rope_backward,
    .backward_scratch = gradient_row_scratch,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_rope(saw_graph *g, saw_val x, saw_val table, int axis)
{
    return SAW_RECORD(g, &saw_op_rope, &(rope_attr){axis}, x, table);
}

static bool phase_shape(saw_shape *s)
{
    if (s->in[0].n != 2)
        return saw_refuse(s, "the bias is not [H, d]");
    s->out[0] = SAW_DIMS(s->in[0].d[0], s->in[0].d[1], 2);
    return true;
}

const saw_op saw_op_pope_phase = {
    .name = "pope_phase",
    .shape = phase_shape,
    .axes = uncut,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_pope_phase(saw_graph *g, saw_val bias)
{
    return SAW_RECORD(g, &saw_op_pope_phase, NULL, bias);
}

static bool pope_shape(saw_shape *s)
{
    const saw_dims *x = &s->in[0], *phase = &s->in[2];
    if (!takes_table(s, 1))
        return false;
    if (phase->n && (phase->n != 3 || phase->d[0] != x->d[x->n - 2] ||
                     phase->d[1] != x->d[x->n - 1] || phase->d[2] != 2))
        return saw_refuse(s, "the phase is not [%lld, %lld, 2]", (long long)x->d[x->n - 2],
                          (long long)x->d[x->n - 1]);
    s->out[0] = *x;
    s->out[0].d[x->n - 1] *= 2;
    return true;
}

static double pope_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 16 * (double)saw_dims_count(out);
}

static void cpu_pope(const saw_call *c)
{
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    int axis = ((const rope_attr *)c->attr)->axis, head = x->ndim - 2;
    int64_t d = saw_last(x);
    float *size = c->scratch;
    saw_tensor angles = along(&c->in[1], x, axis, c->origin[axis]),
               phases = along(&c->in[2], x, head, c->origin[head]);
    const saw_tensor *t[] = {x, y, &angles, &phases};
    saw_walk w = saw_walk_start(x->ndim - 1, 4, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *a = SAW_ROW(const float, w, 2, r), *phase = SAW_ROW(const float, w, 3, r);
            float *out = SAW_ROW(float, w, 1, r);
            c->simd->softplus(SAW_ROW(const float, w, 0, r), size, d);
            for (int64_t i = 0; i < d; i++) {
                float re = a[2 * i], im = a[2 * i + 1];
                if (phase) {
                    re = a[2 * i] * phase[2 * i] - a[2 * i + 1] * phase[2 * i + 1];
                    im = a[2 * i + 1] * phase[2 * i] + a[2 * i] * phase[2 * i + 1];
                }
                out[2 * i] = size[i] * re + (saw_adds(c, 0) ? out[2 * i] : 0);
                out[2 * i + 1] = size[i] * im + (saw_adds(c, 0) ? out[2 * i + 1] : 0);
            }
        }
}

enum { SUM_POSITIONS = 64 }; /* positions whose sum is taken apart */

static size_t pope_backward_scratch(const saw_call *c)
{
    size_t d = (size_t)saw_last(&c->in[0]), heads = (size_t)c->in[0].dims[c->in[0].ndim - 2];
    return (3 + heads) * 2 * d * sizeof(float);
}

/* dx_i = sigmoid(x_i) times the part of dy_i along its angle. */
static void pope_data(const saw_call *c)
{
    const saw_tensor *x = &c->in[0], *table = &c->in[1], *phase = &c->in[2];
    int axis = ((const rope_attr *)c->attr)->axis, head = x->ndim - 2;
    int64_t d = saw_last(x);
    float *turned = c->scratch, *slope = turned + 2 * d;
    saw_tensor angles = along(table, x, axis, c->origin[axis]),
               phases = along(phase, x, head, c->origin[head]);
    const saw_tensor *t[] = {x, &c->in[4], &angles, &phases, &c->out[0]};
    saw_walk w = saw_walk_start(head + 1, 5, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            float *dx = SAW_ROW(float, w, 4, r);
            c->simd->complex_mul(SAW_ROW(const float, w, 1, r), SAW_ROW(const float, w, 2, r), true,
                                 turned, d);
            if (phase->data)
                c->simd->complex_mul(turned, SAW_ROW(const float, w, 3, r), true, turned, d);
            c->simd->sigmoid(SAW_ROW(const float, w, 0, r), slope, d);
            for (int64_t i = 0; i < d; i++)
                dx[i] = (saw_adds(c, 0) ? dx[i] : 0) + turned[2 * i] * slope[i];
        }
}

/* dphase of heads [first, first + heads) = sum of softplus(x_i) dy_i turned back by the table. */
static void pope_phase_gradient(const saw_call *c, int64_t first, int64_t heads)
{
    int axis = ((const rope_attr *)c->attr)->axis, head = c->in[0].ndim - 2;
    saw_tensor x = c->in[0], dy = c->in[4];
    x.data = (float *)x.data + first * x.strides[head];
    dy.data = (float *)dy.data + first * dy.strides[head];
    x.dims[head] = dy.dims[head] = heads;
    int64_t d = saw_last(&x), n = heads * 2 * d, rows = 0;
    float *turned = c->scratch, *size = turned + 2 * d, *pairs = size + 2 * d;
    float *sum = pairs + 2 * d, *dphase = (float *)c->out[2].data + first * 2 * d;
    if (!saw_adds(c, 2))
        memset(dphase, 0, (size_t)n * sizeof *dphase);
    memset(sum, 0, (size_t)n * sizeof *sum);
    saw_tensor angles = along(&c->in[1], &x, axis, c->origin[axis]);
    const saw_tensor *t[] = {&x, &dy, &angles};
    saw_walk w = saw_walk_start(head + 1, 3, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++, rows++) {
            if (rows && rows % (SUM_POSITIONS * heads) == 0) {
                c->simd->add(dphase, sum, dphase, n);
                memset(sum, 0, (size_t)n * sizeof *sum);
            }
            c->simd->complex_mul(SAW_ROW(const float, w, 1, r), SAW_ROW(const float, w, 2, r), true,
                                 turned, d);
            c->simd->softplus(SAW_ROW(const float, w, 0, r), size, d);
            for (int64_t i = 0; i < d; i++)
                pairs[2 * i] = pairs[2 * i + 1] = size[i];
            c->simd->mul_add(turned, pairs, sum + rows % heads * 2 * d, 2 * d);
        }
    c->simd->add(dphase, sum, dphase, n);
}

static int64_t pope_backward_parts(const void *attr, int n_in, const saw_dims *in,
                                   const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return in[0].d[in[0].n - 2];
}

static void cpu_pope_backward(const saw_call *c)
{
    if (c->out[0].data)
        pope_data(c);
    if (c->out[2].data) {
        int64_t heads = c->out[2].dims[0], first = heads * c->part / c->parts,
                end = heads * (c->part + 1) / c->parts;
        if (end > first)
            pope_phase_gradient(c, first, end - first);
    }
}

const saw_op saw_op_pope = {
    .name = "pope",
    .attr_bytes = sizeof(rope_attr),
    .shape = pope_shape,
    .axes = saw_axes_first,
    .scratch = row_scratch,
    .flops = pope_flops,
    .list = list_axis,
    .cpu_forward = cpu_pope,
    .cpu_backward = cpu_pope_backward,
    .backward_parts = pope_backward_parts,
    .backward_scratch = pope_backward_scratch,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_pope(saw_graph *g, saw_val x, saw_val table, saw_val phase, int axis)
{
    return SAW_RECORD(g, &saw_op_pope, &(rope_attr){axis}, x, table, phase);
}

#endif
