/*
 * attention.c - o_i = sum_j p_ij v_j with p_i = softmax_j(scale q_i . k_j), along one axis, for
 * every other leading index (batch, the other axis, head). Backward makes p again; with dp_ij =
 * do_i . v_j and ds = p (dp - sum_j p dp):
 *
 *     dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij do_i
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct attention_attr {
    int axis;
    double scale;
} attention_attr;

#ifdef SAW_REF

/* Positions of one operand of one head: element e of position i. */
typedef struct rows {
    real *data;
    int64_t step, stride;
} rows;

static rows rows_at(const saw_walk *w, int i, int64_t r, const saw_tensor *t, int axis)
{
    return (rows){w->data[i] ? SAW_ROW(real, *w, i, r) : NULL, t->strides[axis],
                  saw_last_stride(t)};
}

static real *at(rows x, int64_t i, int64_t e)
{
    return &x.data[i * x.step + e * x.stride];
}

static void weights(rows q, int64_t i, rows k, int64_t n, int64_t d, double scale, double *p)
{
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        double score = 0;
        for (int64_t e = 0; e < d; e++)
            score += (double)*at(q, i, e) * *at(k, j, e);
        p[j] = scale * score;
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - top);
    for (int64_t j = 0; j < n; j++)
        p[j] /= sum;
}

SAW_REF_KERNEL(attention_forward)
{
    const attention_attr *a = c->attr;
    int64_t n_q = c->in[0].dims[a->axis], n_k = c->in[1].dims[a->axis];
    int64_t d = saw_last(&c->in[0]), d_v = saw_last(&c->in[2]);
    saw_tensor q1 = saw_without(c->in[0], a->axis), k1 = saw_without(c->in[1], a->axis);
    saw_tensor v1 = saw_without(c->in[2], a->axis), o1 = saw_without(c->out[0], a->axis);
    const saw_tensor *t[] = {&q1, &k1, &v1, &o1};
    saw_walk w = saw_walk_start(q1.ndim - 1, 4, t);
    double *p = c->scratch;
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            rows q = rows_at(&w, 0, r, &q1, a->axis), k = rows_at(&w, 1, r, &k1, a->axis);
            rows v = rows_at(&w, 2, r, &v1, a->axis), o = rows_at(&w, 3, r, &o1, a->axis);
            for (int64_t i = 0; i < n_q; i++) {
                weights(q, i, k, n_k, d, a->scale, p);
                for (int64_t e = 0; e < d_v; e++) {
                    double sum = 0;
                    for (int64_t j = 0; j < n_k; j++)
                        sum += p[j] * *at(v, j, e);
                    put(at(o, i, e), saw_adds(c, 0), sum);
                }
            }
        }
}

SAW_REF_KERNEL(attention_backward)
{
    const attention_attr *a = c->attr;
    int64_t n_q = c->in[0].dims[a->axis], n_k = c->in[1].dims[a->axis];
    int64_t d = saw_last(&c->in[0]), d_v = saw_last(&c->in[4]);
    saw_tensor views[7];
    const saw_tensor *t[7];
    for (int i = 0; i < 7; i++) {
        views[i] = saw_without(i < 3 ? c->in[i] : i == 3 ? c->in[4] : c->out[i - 4], a->axis);
        t[i] = &views[i];
    }
    for (int j = 0; j < 3; j++)
        start_sum(c, j);
    saw_walk w = saw_walk_start(views[0].ndim - 1, 7, t);
    double *p = c->scratch, *ds = p + n_k;
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            rows x[7];
            for (int i = 0; i < 7; i++)
                x[i] = rows_at(&w, i, r, &views[i], a->axis);
            rows q = x[0], k = x[1], v = x[2], grad = x[3], dq = x[4], dk = x[5], dv = x[6];
            for (int64_t i = 0; i < n_q; i++) {
                weights(q, i, k, n_k, d, a->scale, p);
                double mean = 0;
                for (int64_t j = 0; (dq.data || dk.data) && j < n_k; j++) {
                    ds[j] = 0;
                    for (int64_t e = 0; e < d_v; e++)
                        ds[j] += (double)*at(grad, i, e) * *at(v, j, e);
                    mean += p[j] * ds[j];
                }
                for (int64_t j = 0; j < n_k; j++) {
                    double s = a->scale * p[j] * (ds[j] - mean);
                    for (int64_t e = 0; dq.data && e < d; e++)
                        *at(dq, i, e) += (real)(s * *at(k, j, e));
                    for (int64_t e = 0; dk.data && e < d; e++)
                        *at(dk, j, e) += (real)(s * *at(q, i, e));
                    for (int64_t e = 0; dv.data && e < d_v; e++)
                        *at(dv, j, e) += (real)(p[j] * *at(grad, i, e));
                }
            }
        }
}

#else

#include "kernels/simd/simd.h"

static bool shape(saw_shape *s)
{
    const attention_attr *a = s->attr;
    const saw_dims *q = &s->in[0], *k = &s->in[1], *v = &s->in[2];
    if (q->n < 2 || k->n != q->n || v->n != q->n || a->axis < 0 || a->axis >= q->n - 1)
        return saw_refuse(s, "axis %d of q, k, v of %d, %d and %d axes", a->axis, q->n, k->n, v->n);
    int last = q->n - 1;
    for (int i = 0; i < last; i++)
        if (k->d[i] != v->d[i] || (i != a->axis && q->d[i] != k->d[i]))
            return saw_refuse(s, "q, k, v have %lld, %lld and %lld along axis %d",
                              (long long)q->d[i], (long long)k->d[i], (long long)v->d[i], i);
    if (q->d[last] != k->d[last])
        return saw_refuse(s, "q has %lld features a head and k %lld", (long long)q->d[last],
                          (long long)k->d[last]);
    s->out[0] = *q;
    s->out[0].d[last] = v->d[last];
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)n_in, (void)operand;
    return saw_all_but_last(&in[0]) & ~SAW_AXIS(((const attention_attr *)attr)->axis);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in;
    int64_t n_k = in[1].d[((const attention_attr *)attr)->axis];
    return 2 * (double)n_k * ((double)saw_dims_count(&in[0]) + (double)saw_dims_count(out));
}

static void list(const void *attr, saw_buffer *out)
{
    const attention_attr *a = attr;
    saw_buffer_printf(out, " axis %d scale %g", a->axis, a->scale);
}

enum { ADD_ROWS = 16 }; /* query rows that are computed aside before they are added */

static saw_dtype dtype_of(const saw_call *c)
{
    /* int8 is for weights; attention then takes the faster of the two */
    bool bf16 = c->precision == SAW_PRECISION_INT8 ? c->simd->fast_bf16
                                                   : c->precision == SAW_PRECISION_BF16;
    return bf16 ? SAW_BF16 : SAW_F32;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t scratch(const saw_call *c)
{
    const attention_attr *a = c->attr;
    int64_t n_k = c->in[1].dims[a->axis], d = saw_last(&c->in[0]), d_v = saw_last(&c->in[2]);
    size_t fast = aligned(c->simd->attention_pack_bytes(dtype_of(c), n_k, d, d_v)) +
                  aligned(c->simd->attention_scratch_bytes(d)) +
                  ADD_ROWS * (size_t)d_v * sizeof(float);
    size_t reference = 2 * (size_t)n_k * sizeof(double);
    return fast > reference ? fast : reference;
}

static void cpu_attention(const saw_call *c)
{
    const attention_attr *a = c->attr;
    saw_tensor q = saw_without(c->in[0], a->axis), k = saw_without(c->in[1], a->axis);
    saw_tensor v = saw_without(c->in[2], a->axis), o = saw_without(c->out[0], a->axis);
    int64_t n_q = c->in[0].dims[a->axis];
    saw_attend p = {.dtype = dtype_of(c),
                    .n_k = c->in[1].dims[a->axis],
                    .d = saw_last(&q),
                    .d_v = saw_last(&v),
                    .q_stride = q.strides[a->axis],
                    .k_stride = k.strides[a->axis],
                    .v_stride = v.strides[a->axis],
                    .scale = (float)a->scale,
                    .packed = c->scratch};
    p.scratch =
        (char *)c->scratch + aligned(c->simd->attention_pack_bytes(p.dtype, p.n_k, p.d, p.d_v));
    float *aside = (float *)((char *)p.scratch + aligned(c->simd->attention_scratch_bytes(p.d)));
    const saw_tensor *t[] = {&q, &k, &v, &o};
    saw_walk w = saw_walk_start(q.ndim - 1, 4, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            p.k = SAW_ROW(const float, w, 1, r);
            p.v = SAW_ROW(const float, w, 2, r);
            c->simd->attention_pack(&p);
            if (!saw_adds(c, 0)) {
                p.q = SAW_ROW(const float, w, 0, r);
                p.n_q = n_q;
                p.o = SAW_ROW(float, w, 3, r);
                p.o_stride = o.strides[a->axis];
                c->simd->attention(&p);
                continue;
            }
            p.o = aside;
            p.o_stride = p.d_v;
            for (int64_t i = 0; i < n_q; i += ADD_ROWS) {
                p.q = SAW_ROW(const float, w, 0, r) + i * p.q_stride;
                p.n_q = n_q - i < ADD_ROWS ? n_q - i : ADD_ROWS;
                c->simd->attention(&p);
                for (int64_t j = 0; j < p.n_q; j++) {
                    float *out = SAW_ROW(float, w, 3, r) + (i + j) * o.strides[a->axis];
                    c->simd->add(out, aside + j * p.d_v, out, p.d_v);
                }
            }
        }
}

static size_t backward_scratch(const saw_call *c)
{
    const attention_attr *a = c->attr;
    return c->simd->attention_gradient_bytes(c->in[1].dims[a->axis], saw_last(&c->in[0]),
                                             saw_last(&c->in[2]));
}

static void cpu_attention_backward(const saw_call *c)
{
    const attention_attr *a = c->attr;
    const saw_tensor *from[] = {&c->in[0],  &c->in[1],  &c->in[2], &c->in[4],
                                &c->out[0], &c->out[1], &c->out[2]};
    saw_tensor views[7];
    const saw_tensor *t[7];
    for (int i = 0; i < 7; i++) {
        views[i] = saw_without(*from[i], a->axis);
        t[i] = &views[i];
    }
    saw_attend_gradient p = {.n_q = c->in[0].dims[a->axis],
                             .n_k = c->in[1].dims[a->axis],
                             .d = saw_last(&c->in[0]),
                             .d_v = saw_last(&c->in[2]),
                             .q_stride = views[0].strides[a->axis],
                             .k_stride = views[1].strides[a->axis],
                             .v_stride = views[2].strides[a->axis],
                             .grad_stride = views[3].strides[a->axis],
                             .dq_stride = views[4].strides[a->axis],
                             .dk_stride = views[5].strides[a->axis],
                             .dv_stride = views[6].strides[a->axis],
                             .add_dq = saw_adds(c, 0),
                             .add_dk = saw_adds(c, 1),
                             .add_dv = saw_adds(c, 2),
                             .scale = (float)a->scale,
                             .scratch = c->scratch};
    saw_walk w = saw_walk_start(views[0].ndim - 1, 7, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            p.q = SAW_ROW(const float, w, 0, r);
            p.k = SAW_ROW(const float, w, 1, r);
            p.v = SAW_ROW(const float, w, 2, r);
            p.grad = SAW_ROW(const float, w, 3, r);
            p.dq = w.data[4] ? SAW_ROW(float, w, 4, r) : NULL;
            p.dk = w.data[5] ? SAW_ROW(float, w, 5, r) : NULL;
            p.dv = w.data[6] ? SAW_ROW(float, w, 6, r) : NULL;
            c->simd->attention_gradient(&p);
        }
}

const saw_op saw_op_attention = {
    .name = "attention",
    .attr_bytes = sizeof(attention_attr),
    .shape = shape,
    .axes = axes,
    .scratch = scratch,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_attention,
    .cpu_backward = cpu_attention_backward,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_attention(saw_graph *g, saw_val q, saw_val k, saw_val v, int axis, double scale)
{
    attention_attr a = {axis, scale};
    return SAW_RECORD(g, &saw_op_attention, &a, q, k, v);
}

#endif
