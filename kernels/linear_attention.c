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
            double factor = factor_of(c, temperature_at(c, h)), all = 0;
            for (int64_t i = 0; i < d * d; i++)
                s.slope[i] = 0;
            for (int64_t t = 0; t < q->dims[1]; t++)
                for (int64_t f = 0; f < q->dims[2]; f++)
                    for (int64_t i = 0; i < d; i++)
                        for (int64_t j = 0; j < d; j++)
                            s.slope[i * d + j] +=
                                (double)at(grad, b, t, f, h)[i * grad->strides[4]] *
                                at(v, b, t, f, h)[j * v->strides[4]];
            for (int64_t i = 0; i < d; i++)
                s.row[i] = s.column[i] = 0;
            for (int64_t i = 0; i < d; i++) {
                double mean = 0;
                for (int64_t j = 0; j < d; j++)
                    mean += s.weight[i * d + j] * s.slope[i * d + j];
                for (int64_t j = 0; j < d; j++) {
                    double *slope = &s.slope[i * d + j];
                    *slope = s.weight[i * d + j] * (*slope - mean);
                    s.row[i] += *slope * s.score[i * d + j];
                    s.column[j] += *slope * s.score[i * d + j];
                }
                all += s.row[i];
            }
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

enum { BLOCK = 64 }; /* positions whose products are summed in float before they go into doubles */

static size_t scratch(const saw_call *c)
{
    size_t d = (size_t)saw_last(&c->in[0]);
    return (4 * d + 3 * d * d) * sizeof(double) + (d * d + d) * sizeof(float);
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " scale %g", ((const linear_attention_attr *)attr)->scale);
}

/* The sums over all positions of one head that the scores are made of. */
static void sums(const saw_call *c, const float *q, const float *k, const workspace *s,
                 float *block)
{
    const saw_tensor *tq = &c->in[0], *tk = &c->in[1];
    int64_t d = saw_last(tq), positions = tq->dims[1] * tq->dims[2];
    memset(s->q_norm, 0, (size_t)(2 * d + d * d) * sizeof *s->q_norm);
    memset(block, 0, (size_t)(d * d) * sizeof *block);
    for (int64_t n = 0; n < positions; n++) {
        int64_t t = n / tq->dims[2], f = n % tq->dims[2];
        const float *qn = q + t * tq->strides[1] + f * tq->strides[2];
        const float *kn = k + t * tk->strides[1] + f * tk->strides[2];
        for (int64_t i = 0; i < d; i++) {
            s->q_norm[i] += (double)qn[i] * qn[i];
            s->k_norm[i] += (double)kn[i] * kn[i];
            c->simd->axpy(qn[i], kn, block + i * d, d);
        }
        if ((n + 1) % BLOCK == 0 || n + 1 == positions)
            for (int64_t i = 0; i < d * d; i++) {
                s->score[i] += block[i];
                block[i] = 0;
            }
    }
}

static void cpu_linear_attention(const saw_call *c)
{
    const saw_tensor *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *o = &c->out[0];
    int64_t d = saw_last(q);
    workspace s = workspace_of(c, d);
    float *block = (float *)((double *)c->scratch + 4 * d + 3 * d * d), *row = block + d * d;
    for (int64_t b = 0; b < o->dims[0]; b++)
        for (int64_t h = 0; h < o->dims[3]; h++) {
            const float *qh = (const float *)q->data + b * q->strides[0] + h * q->strides[3];
            const float *kh = (const float *)k->data + b * k->strides[0] + h * k->strides[3];
            const float *vh = (const float *)v->data + b * v->strides[0] + h * v->strides[3];
            float *oh = (float *)o->data + b * o->strides[0] + h * o->strides[3];
            sums(c, qh, kh, &s, block);
            double temperature =
                ((const float *)c->in[3].data)[(c->origin[3] + h) * c->in[3].strides[0]];
            finish_scores(&s, d, factor_of(c, temperature));
            for (int64_t i = 0; i < d;
                 i++) /* transposed: row j is what v_j gives to every channel */
                for (int64_t j = 0; j < d; j++)
                    block[j * d + i] = (float)s.weight[i * d + j];
            for (int64_t t = 0; t < o->dims[1]; t++)
                for (int64_t f = 0; f < o->dims[2]; f++) {
                    const float *vn = vh + t * v->strides[1] + f * v->strides[2];
                    float *on = oh + t * o->strides[1] + f * o->strides[2];
                    c->simd->scale(block, vn[0], row, d);
                    for (int64_t j = 1; j < d; j++)
                        c->simd->axpy(vn[j], block + j * d, row, d);
                    if (saw_adds(c, 0))
                        c->simd->add(on, row, on, d);
                    else
                        memcpy(on, row, (size_t)d * sizeof *on);
                }
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
