/*
 * linear_attention.c - attention over channels (El-Nouby et al. 2021). With n running over all
 * (T,F) positions of one head, u_i = q_i / max(|q_i|, 1e-12), w_j = k_j / max(|k_j|, 1e-12), norms
 * over n:
 *
 *     s_ij = scale exp(temperature) sum_n u_in w_jn,  a = softmax_j(s),  o_in = sum_j a_ij v_jn
 *
 * Backward, with da_ij = sum_n do_in v_jn and ds = a (da - sum_j a da):
 *
 *     dv_jn = sum_i a_ij do_in,  dtemperature = sum_ij ds_ij s_ij
 *     dq_in = (scale exp(temperature) sum_j ds_ij w_jn - u_in sum_j ds_ij s_ij) / |q_i|,  likewise
 * dk
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct linear_attention_attr {
    double scale;
} linear_attention_attr;

/* Scratch, in doubles: norms of q and k, scores, weights, and for backward the gradient of the
 * scores and its sums. */
typedef struct workspace {
    double *q_norm, *k_norm, *score, *weight, *slope, *row, *column;
} workspace;

static inline workspace workspace_of(const saw_call *c, int64_t d)
{
    double *p = c->scratch;
    return (workspace){p,
                       p + d,
                       p + 2 * d,
                       p + (2 + d) * d,
                       p + (2 + 2 * d) * d,
                       p + (2 + 3 * d) * d,
                       p + (3 + 3 * d) * d};
}

static inline double factor_of(const saw_call *c, double temperature)
{
    return ((const linear_attention_attr *)c->attr)->scale * exp(temperature);
}

/* From sums of squares in q_norm, k_norm and of products in score to norms, scores and weights. */
static inline void finish_scores(const workspace *s, int64_t d, double factor)
{
    for (int64_t i = 0; i < d; i++) {
        s->q_norm[i] = fmax(sqrt(s->q_norm[i]), 1e-12);
        s->k_norm[i] = fmax(sqrt(s->k_norm[i]), 1e-12);
    }
    for (int64_t i = 0; i < d; i++) {
        double *score = s->score + i * d, *weight = s->weight + i * d, top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < d; j++) {
            score[j] *= factor / (s->q_norm[i] * s->k_norm[j]);
            top = fmax(top, score[j]);
        }
        for (int64_t j = 0; j < d; j++)
            sum += weight[j] = exp(score[j] - top);
        for (int64_t j = 0; j < d; j++)
            weight[j] /= sum;
    }
}

/* From da in slope to ds, and its products with the scores summed by rows and by columns; returns
 * the sum of all. */
static inline double finish_slopes(const workspace *s, int64_t d)
{
    double all = 0;
    for (int64_t i = 0; i < d; i++)
        s->row[i] = s->column[i] = 0;
    for (int64_t i = 0; i < d; i++) {
        double mean = 0;
        for (int64_t j = 0; j < d; j++)
            mean += s->weight[i * d + j] * s->slope[i * d + j];
        for (int64_t j = 0; j < d; j++) {
            double *slope = &s->slope[i * d + j];
            *slope = s->weight[i * d + j] * (*slope - mean);
            s->row[i] += *slope * s->score[i * d + j];
            s->column[j] += *slope * s->score[i * d + j];
        }
        all += s->row[i];
    }
    return all;
}

#ifdef SAW_REF

/* Position (t, f) of batch b and head h. */
static real *at(const saw_tensor *x, int64_t b, int64_t t, int64_t f, int64_t h)
{
    if (!x->data)
        return NULL;
    return (real *)x->data + b * x->strides[0] + t * x->strides[1] + f * x->strides[2] +
           h * x->strides[3];
}

static double temperature_at(const saw_call *c, int64_t h)
{
    return ((const real *)c->in[3].data)[(c->origin[3] + h) * c->in[3].strides[0]];
}

static void make_weights(const saw_call *c, int64_t b, int64_t h, const workspace *s)
{
    const saw_tensor *q = &c->in[0], *k = &c->in[1];
    int64_t d = saw_last(q);
    for (int64_t i = 0; i < (2 + d) * d; i++)
        s->q_norm[i] = 0; /* and k_norm and score, which follow */
    for (int64_t t = 0; t < q->dims[1]; t++)
        for (int64_t f = 0; f < q->dims[2]; f++)
            for (int64_t i = 0; i < d; i++) {
                double qi = at(q, b, t, f, h)[i * q->strides[4]],
                       ki = at(k, b, t, f, h)[i * k->strides[4]];
                s->q_norm[i] += qi * qi;
                s->k_norm[i] += ki * ki;
                for (int64_t j = 0; j < d; j++)
                    s->score[i * d + j] += qi * at(k, b, t, f, h)[j * k->strides[4]];
            }
    finish_scores(s, d, factor_of(c, temperature_at(c, h)));
}

SAW_REF_KERNEL(linear_attention_forward)
{
    const saw_tensor *v = &c->in[2], *o = &c->out[0];
    int64_t d = saw_last(v);
    workspace s = workspace_of(c, d);
    for (int64_t b = 0; b < o->dims[0]; b++)
        for (int64_t h = 0; h < o->dims[3]; h++) {
            make_weights(c, b, h, &s);
            for (int64_t t = 0; t < o->dims[1]; t++)
                for (int64_t f = 0; f < o->dims[2]; f++)
                    for (int64_t i = 0; i < d; i++) {
                        double sum = 0;
                        for (int64_t j = 0; j < d; j++)
                            sum += s.weight[i * d + j] * at(v, b, t, f, h)[j * v->strides[4]];
                        put(at(o, b, t, f, h) + i * o->strides[4], saw_adds(c, 0), sum);
                    }
        }
}

SAW_REF_KERNEL(linear_attention_backward)
{
    const saw_tensor *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *grad = &c->in[5];
    int64_t d = saw_last(q);
    workspace s = workspace_of(c, d);
    for (int64_t j = 0; j < 4; j++)
        start_sum(c, (int)j);
    for (int64_t b = 0; b < q->dims[0]; b++)
        for (int64_t h = 0; h < q->dims[3]; h++) {
            make_weights(c, b, h, &s);
            double factor = factor_of(c, temperature_at(c, h));
            for (int64_t i = 0; i < d * d; i++)
                s.slope[i] = 0;
            for (int64_t t = 0; t < q->dims[1]; t++)
                for (int64_t f = 0; f < q->dims[2]; f++)
                    for (int64_t i = 0; i < d; i++)
                        for (int64_t j = 0; j < d; j++)
                            s.slope[i * d + j] +=
                                (double)at(grad, b, t, f, h)[i * grad->strides[4]] *
                                at(v, b, t, f, h)[j * v->strides[4]];
            double all = finish_slopes(&s, d);
            if (c->out[3].data)
                ((real *)c->out[3].data)[h * c->out[3].strides[0]] += (real)all;
            for (int64_t t = 0; t < q->dims[1]; t++)
                for (int64_t f = 0; f < q->dims[2]; f++)
                    for (int64_t i = 0; i < d; i++) {
                        double to_q = 0, to_k = 0, to_v = 0;
                        for (int64_t j = 0; j < d; j++) {
                            to_q += s.slope[i * d + j] * at(k, b, t, f, h)[j * k->strides[4]] /
                                    s.k_norm[j];
                            to_k += s.slope[j * d + i] * at(q, b, t, f, h)[j * q->strides[4]] /
                                    s.q_norm[j];
                            to_v +=
                                s.weight[j * d + i] * at(grad, b, t, f, h)[j * grad->strides[4]];
                        }
                        double u = at(q, b, t, f, h)[i * q->strides[4]] / s.q_norm[i];
                        double w = at(k, b, t, f, h)[i * k->strides[4]] / s.k_norm[i];
                        double put_in[] = {(factor * to_q - u * s.row[i]) / s.q_norm[i],
                                           (factor * to_k - w * s.column[i]) / s.k_norm[i], to_v};
                        for (int j = 0; j < 3; j++)
                            if (c->out[j].data)
                                at(&c->out[j], b, t, f, h)[i * c->out[j].strides[4]] +=
                                    (real)put_in[j];
                    }
        }
}

#else

#include "kernels/simd/simd.h"

#include <string.h>

static bool shape(saw_shape *s)
{
    const saw_dims *q = &s->in[0], *temperature = &s->in[3];
    if (q->n != 5 || !saw_dims_equal(q, &s->in[1]) || !saw_dims_equal(q, &s->in[2]))
        return saw_refuse(s, "needs q, k, v [B,T,F,H,d]");
    if (temperature->n != 3 || temperature->d[0] != q->d[3] || temperature->d[1] != 1 ||
        temperature->d[2] != 1)
        return saw_refuse(s, "the temperature is not [%lld,1,1]", (long long)q->d[3]);
    s->out[0] = *q;
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in;
    return operand == 3 ? 0 : SAW_AXIS(0) | SAW_AXIS(3);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in;
    return 4 * (double)saw_dims_count(out) * (double)in[0].d[4];
}

/* Behind the workspace: a matrix and a vector of float, a packed matrix, what primitives need. */
typedef struct fast_memory {
    float *matrix, *vector;
    void *packed, *scratch;
    size_t bytes;
} fast_memory;

static size_t aligned(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static fast_memory fast_memory_of(const saw_call *c, int64_t d)
{
    size_t doubles = aligned((size_t)(4 * d + 3 * d * d) * sizeof(double));
    size_t matrix = aligned((size_t)(d * d) * sizeof(float));
    size_t vector = aligned((size_t)d * sizeof(float));
    size_t packed = c->simd->pack_bytes(SAW_F32, d, d), outer = c->simd->outer_bytes(d, d);
    fast_memory m = {.bytes = doubles + matrix + vector + packed +
                              (outer > SAW_GEMM_SCRATCH_BYTES ? outer : SAW_GEMM_SCRATCH_BYTES)};
    if (c->scratch) {
        char *at = (char *)c->scratch + doubles;
        m.matrix = (float *)(void *)at;
        m.vector = (float *)(void *)(at + matrix);
        m.packed = at + matrix + vector;
        m.scratch = at + matrix + vector + packed;
    }
    return m;
}

static size_t scratch(const saw_call *c)
{
    return fast_memory_of(c, saw_last(&c->in[0])).bytes;
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " scale %g", ((const linear_attention_attr *)attr)->scale);
}

/* The view of one head of one batch: [T,F,d]. */
static saw_tensor head_of(const saw_tensor *x, int64_t b, int64_t h)
{
    saw_tensor t = {.dtype = x->dtype, .ndim = 3, .dims = {x->dims[1], x->dims[2], x->dims[4]}};
    if (x->data)
        t.data = (float *)x->data + b * x->strides[0] + h * x->strides[3];
    t.strides[0] = x->strides[1];
    t.strides[1] = x->strides[2];
    t.strides[2] = x->strides[4];
    return t;
}

/* sum = sum_n a_in b_jn over the positions, [d,d]. */
static void outer_sums(const saw_call *c, const saw_tensor *a, const saw_tensor *b,
                       const fast_memory *m, double *sum)
{
    const float *a_rows[SAW_OUTER_ROWS], *b_rows[SAW_OUTER_ROWS];
    int64_t d = saw_last(a), positions = a->dims[0] * a->dims[1], rows = 0;
    memset(sum, 0, (size_t)(d * d) * sizeof *sum);
    for (int64_t n = 0; n < positions; n++) {
        int64_t t = n / a->dims[1], f = n % a->dims[1];
        a_rows[rows] = (const float *)a->data + t * a->strides[0] + f * a->strides[1];
        b_rows[rows++] = (const float *)b->data + t * b->strides[0] + f * b->strides[1];
        if (rows < SAW_OUTER_ROWS && n + 1 < positions)
            continue;
        c->simd->outer(&(saw_outer){.rows = rows,
                                    .m = d,
                                    .n = d,
                                    .a = a_rows,
                                    .b = b_rows,
                                    .c = m->matrix,
                                    .c_stride = d,
                                    .scratch = m->scratch});
        for (int64_t i = 0; i < d * d; i++)
            sum[i] += (double)m->matrix[i];
        rows = 0;
    }
}

static void square_sums(const saw_call *c, const saw_tensor *x, const fast_memory *m, double *sum)
{
    int64_t d = saw_last(x), positions = x->dims[0] * x->dims[1];
    memset(sum, 0, (size_t)d * sizeof *sum);
    memset(m->vector, 0, (size_t)d * sizeof *m->vector);
    for (int64_t n = 0; n < positions; n++) {
        int64_t t = n / x->dims[1], f = n % x->dims[1];
        const float *row = (const float *)x->data + t * x->strides[0] + f * x->strides[1];
        c->simd->mul_add(row, row, m->vector, d);
        if ((n + 1) % SAW_OUTER_ROWS && n + 1 < positions)
            continue;
        for (int64_t i = 0; i < d; i++) {
            sum[i] += (double)m->vector[i];
            m->vector[i] = 0;
        }
    }
}

/* y_i [+]= sum_j matrix_ij x_j at every position, or, transposed, sum_j matrix_ji x_j. */
static void transform(const saw_call *c, const saw_tensor *x, const fast_memory *m, bool transposed,
                      const saw_tensor *y, bool add)
{
    int64_t d = saw_last(x);
    c->simd->pack(SAW_F32, m->matrix, transposed ? 1 : d, transposed ? d : 1, 0, d, d, m->packed);
    const saw_tensor *t[] = {x, y};
    saw_walk w = saw_walk_start(2, 2, t);
    while (saw_walk_next(&w))
        c->simd->gemm(&(saw_gemm){.m = w.rows,
                                  .n = d,
                                  .k = d,
                                  .a = SAW_ROW(const float, w, 0, 0),
                                  .a_stride = w.stride[0],
                                  .b = m->packed,
                                  .c = SAW_ROW(float, w, 1, 0),
                                  .c_stride = w.stride[1],
                                  .accumulate = add,
                                  .scratch = m->scratch});
}

/* Scores and weights of one head; returns the factor of the scores. */
static double cpu_weights(const saw_call *c, const saw_tensor *q, const saw_tensor *k, int64_t h,
                          const workspace *s, const fast_memory *m)
{
    double factor =
        factor_of(c, ((const float *)c->in[3].data)[(c->origin[3] + h) * c->in[3].strides[0]]);
    square_sums(c, q, m, s->q_norm);
    square_sums(c, k, m, s->k_norm);
    outer_sums(c, q, k, m, s->score);
    finish_scores(s, saw_last(q), factor);
    return factor;
}

static void cpu_linear_attention(const saw_call *c)
{
    int64_t d = saw_last(&c->in[0]);
    workspace s = workspace_of(c, d);
    fast_memory m = fast_memory_of(c, d);
    for (int64_t b = 0; b < c->in[0].dims[0]; b++)
        for (int64_t h = 0; h < c->in[0].dims[3]; h++) {
            saw_tensor q = head_of(&c->in[0], b, h), k = head_of(&c->in[1], b, h);
            saw_tensor v = head_of(&c->in[2], b, h), o = head_of(&c->out[0], b, h);
            cpu_weights(c, &q, &k, h, &s, &m);
            for (int64_t i = 0; i < d * d; i++)
                m.matrix[i] = (float)s.weight[i];
            transform(c, &v, &m, false, &o, saw_adds(c, 0));
        }
}

/* dx -= x sums / norm^2, feature by feature */
static void subtract_norms(const saw_call *c, const saw_tensor *x, const double *sums,
                           const double *norm, const fast_memory *m, const saw_tensor *dx)
{
    int64_t d = saw_last(x);
    for (int64_t i = 0; i < d; i++)
        m->vector[i] = (float)(-sums[i] / (norm[i] * norm[i]));
    const saw_tensor *t[] = {x, dx};
    saw_walk w = saw_walk_start(2, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++)
            c->simd->mul_add(SAW_ROW(const float, w, 0, r), m->vector, SAW_ROW(float, w, 1, r), d);
}

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)out;
    return in[0].d[3];
}

static void cpu_linear_attention_backward(const saw_call *c)
{
    int64_t d = saw_last(&c->in[0]), heads = c->in[0].dims[3];
    workspace s = workspace_of(c, d);
    fast_memory m = fast_memory_of(c, d);
    float *dtemperature = c->out[3].data;
    for (int64_t h = heads * c->part / c->parts; h < heads * (c->part + 1) / c->parts; h++) {
        double all = 0;
        for (int64_t b = 0; b < c->in[0].dims[0]; b++) {
            saw_tensor q = head_of(&c->in[0], b, h), k = head_of(&c->in[1], b, h);
            saw_tensor v = head_of(&c->in[2], b, h), grad = head_of(&c->in[5], b, h);
            saw_tensor dq = head_of(&c->out[0], b, h), dk = head_of(&c->out[1], b, h);
            saw_tensor dv = head_of(&c->out[2], b, h);
            double factor = cpu_weights(c, &q, &k, h, &s, &m);
            if (dq.data || dk.data || dtemperature) {
                outer_sums(c, &grad, &v, &m, s.slope);
                all += finish_slopes(&s, d);
            }
            for (int64_t i = 0; (dq.data || dk.data) && i < d * d; i++)
                m.matrix[i] = (float)(factor * s.slope[i] / (s.q_norm[i / d] * s.k_norm[i % d]));
            if (dq.data) {
                transform(c, &k, &m, false, &dq, saw_adds(c, 0));
                subtract_norms(c, &q, s.row, s.q_norm, &m, &dq);
            }
            if (dk.data) {
                transform(c, &q, &m, true, &dk, saw_adds(c, 1));
                subtract_norms(c, &k, s.column, s.k_norm, &m, &dk);
            }
            for (int64_t i = 0; dv.data && i < d * d; i++)
                m.matrix[i] = (float)s.weight[i];
            if (dv.data)
                transform(c, &grad, &m, true, &dv, saw_adds(c, 2));
        }
        if (dtemperature)
            dtemperature[h * c->out[3].strides[0]] =
                (float)all + (saw_adds(c, 3) ? dtemperature[h * c->out[3].strides[0]] : 0);
    }
}

const saw_op saw_op_linear_attention = {
    .name = "linear_attention",
    .attr_bytes = sizeof(linear_attention_attr),
    .shape = shape,
    .axes = axes,
    .scratch = scratch,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_linear_attention,
    .cpu_backward = cpu_linear_attention_backward,
    .backward_parts = backward_parts,
    .backward_scratch = scratch,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_linear_attention(saw_graph *g, saw_val q, saw_val k, saw_val v, saw_val temperature,
                             double scale)
{
    return SAW_RECORD(g, &saw_op_linear_attention, &(linear_attention_attr){scale}, q, k, v,
                      temperature);
}

#endif
