/*
 * lora.c - low-rank adaptation (Hu et al., arXiv 2106.09685): W_eff = W + s B A, y = x W^T + s (x
 * A^T) B^T.
 *
 * A [rank, in], B [out, rank]; of a convolution A [rank, C, k, k], B [out, rank, 1, 1]. B = 0 at
 * the start; or, with start=pissa, B A = B0 A0 = the best approximation of W / s, and W_eff = W +
 * s (B A - B0 A0), so that the base stays what it is. The names are those of PEFT.
 */
#include "models/adapters/lora.h"

#include "dsp/low_rank.h"
#include "kernels/ops.h"

#include <math.h>
#include <string.h>

enum { A = SAW_LORA_A, B = SAW_LORA_B, BIAS, START_SWEEPS = 8 };

/* Where A0 and B0 are. */
static int first_at(const saw_lora_options *o)
{
    return o->bias ? BIAS + 1 : BIAS;
}

double saw_lora_scale(const saw_lora_options *o)
{
    return o->alpha / (o->rslora ? sqrt((double)o->rank) : o->rank);
}

static saw_dims with_kernel(int64_t rows, int64_t inner, const saw_matrix *m, bool ones)
{
    saw_dims d = SAW_DIMS(rows, inner);
    for (int i = 0; i < m->kernel.n; i++)
        d.d[d.n++] = ones ? 1 : m->kernel.d[i];
    return d;
}

static int64_t channels(const saw_matrix *m)
{
    return m->in / saw_dims_count(&m->kernel);
}

void saw_lora_declare(saw_graph *g, const saw_lora_options *o, const saw_matrix *m,
                      saw_val *tensors)
{
    tensors[A] = nn_adapter_tensor(g, m, "lora_A.weight",
                                   with_kernel(o->rank, channels(m), m, false), false);
    tensors[B] =
        nn_adapter_tensor(g, m, "lora_B.weight", with_kernel(m->out, o->rank, m, true), false);
}

static saw_val flat(saw_graph *g, saw_val v, int64_t rows, int64_t inner)
{
    return saw_dims_val(g, v).n == 2 ? v : saw_reshape(g, v, SAW_DIMS(rows, inner));
}

saw_val saw_lora_product(saw_graph *g, const saw_matrix *m, int rank, saw_val a, saw_val b)
{
    return saw_rank_product(g, flat(g, b, m->out, rank), flat(g, a, rank, m->in));
}

saw_val saw_lora_apply(saw_graph *g, const saw_site *site, const saw_val *tensors, int first,
                       saw_val x)
{
    int n = site->bands ? site->bands : 1;
    saw_val *a = saw_calloc(saw_graph_context(g), 2 * (size_t)n, sizeof *a), *b = a ? a + n : NULL;
    if (!a)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
    for (int m = 0; m < n; m++) {
        a[m] = tensors[m * SAW_ADAPTER_TENSORS + first];
        b[m] = tensors[m * SAW_ADAPTER_TENSORS + first + 1];
    }
    saw_site down = *site;
    down.ragged = false; /* every band gives `rank` features */
    saw_val y = nn_site_product(g, site, nn_site_product(g, &down, x, a, NULL), b, NULL);
    saw_free(saw_graph_context(g), a);
    return y;
}

void saw_lora_start_values(const saw_lora_options *o, const saw_matrix *m,
                           const saw_adapter_random *random, float *a)
{
    double bound = 1 / sqrt((double)m->in);
    for (int64_t i = 0; i < o->rank * m->in; i++)
        a[i] = (float)(bound * saw_adapter_uniform(random, i));
}

/* ---- the adapter ----------------------------------------------------------------------------- */

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    const saw_lora_options *o = options;
    int n = first_at(o);
    saw_lora_declare(g, o, m, tensors);
    if (o->bias)
        tensors[BIAS] = nn_adapter_tensor(g, m, "lora_B.bias", SAW_DIMS(m->out), false);
    if (o->start != SAW_LORA_PISSA)
        return n;
    tensors[n] = nn_adapter_tensor(g, m, "lora_A0.weight", saw_dims_val(g, tensors[A]), true);
    tensors[n + 1] = nn_adapter_tensor(g, m, "lora_B0.weight", saw_dims_val(g, tensors[B]), true);
    return n + 2;
}

static saw_val weight(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias)
{
    const saw_lora_options *o = options;
    double s = saw_lora_scale(o);
    saw_val change = saw_lora_product(g, m, o->rank, tensors[A], tensors[B]);
    if (o->start == SAW_LORA_PISSA) {
        const saw_val *first = tensors + first_at(o);
        saw_val start = saw_lora_product(g, m, o->rank, first[A], first[B]);
        change = saw_add(g, change, saw_scale(g, start, -1));
    }
    if (o->bias && bias) {
        saw_val c = saw_scale(g, tensors[BIAS], s);
        *bias = *bias ? saw_add(g, *bias, c) : c;
    }
    return saw_add(g, w, saw_scale(g, change, s));
}

static saw_val apply(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, const saw_val *w, const saw_val *bias)
{
    const saw_lora_options *o = options;
    double s = saw_lora_scale(o);
    int n = site->bands ? site->bands : 1;
    saw_val y = nn_site_product(g, site, x, w, bias);
    saw_val change = saw_lora_apply(g, site, tensors, A, x);
    if (o->start == SAW_LORA_PISSA) {
        saw_val start = saw_lora_apply(g, site, tensors, first_at(o), x);
        change = saw_add(g, change, saw_scale(g, start, -1));
    }
    if (o->bias) {
        saw_val *c = saw_calloc(saw_graph_context(g), (size_t)n, sizeof *c);
        if (!c)
            return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
        for (int m = 0; m < n; m++)
            c[m] = tensors[m * SAW_ADAPTER_TENSORS + BIAS];
        change = saw_add(g, change, nn_site_features(g, site, c, y));
        saw_free(saw_graph_context(g), c);
    }
    return saw_add(g, y, saw_scale(g, change, s));
}

saw_status saw_lora_pissa(saw_context *ctx, const saw_lora_options *o, const saw_matrix *m,
                          const float *w, int sweeps, float *a, float *b)
{
    size_t r = (size_t)o->rank;
    double *s = saw_calloc(ctx, r, sizeof *s), *u = saw_calloc(ctx, r, (size_t)m->out * sizeof *u),
           *v = saw_calloc(ctx, r, (size_t)m->in * sizeof *v);
    saw_status status = s && u && v ? saw_low_rank(ctx, w, m->out, m->in, o->rank, sweeps, s, u, v)
                                    : SAW_ERR_MEMORY;
    for (int k = 0; k < o->rank && !status; k++) {
        double root = sqrt(s[k] / saw_lora_scale(o));
        for (int64_t i = 0; i < m->in; i++)
            a[k * m->in + i] = (float)(root * v[k * m->in + i]);
        for (int64_t i = 0; i < m->out; i++)
            b[i * o->rank + k] = (float)(root * u[k * m->out + i]);
    }
    saw_free(ctx, s);
    saw_free(ctx, u);
    saw_free(ctx, v);
    return status;
}

static bool start_reads(const void *options)
{
    return ((const saw_lora_options *)options)->start == SAW_LORA_PISSA;
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    const saw_lora_options *o = options;
    if (o->start != SAW_LORA_PISSA) {
        saw_lora_start_values(o, m, random, out[A]);
        return SAW_OK;
    }
    int first = first_at(o);
    saw_status status = saw_lora_pissa(ctx, o, m, w, START_SWEEPS, out[first], out[first + 1]);
    memcpy(out[A], out[first], (size_t)(o->rank * m->in) * sizeof **out);
    memcpy(out[B], out[first + 1], (size_t)(m->out * o->rank) * sizeof **out);
    return status;
}

static const saw_lora_options defaults = {.rank = 16, .alpha = 32};

static const saw_adapter_option keys[] = {
    {"rank", SAW_ADAPTER_INT, offsetof(saw_lora_options, rank), 1, 4096},
    {"alpha", SAW_ADAPTER_DOUBLE, offsetof(saw_lora_options, alpha), 0, 1e6},
    {"rslora", SAW_ADAPTER_BOOL, offsetof(saw_lora_options, rslora), 0, 0},
    {"bias", SAW_ADAPTER_BOOL, offsetof(saw_lora_options, bias), 0, 0},
    {"start:zero,pissa", SAW_ADAPTER_WORD, offsetof(saw_lora_options, start), 0, 0},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_lora = {.name = "lora",
                                      .title = "LoRA",
                                      .options_bytes = sizeof(saw_lora_options),
                                      .defaults = &defaults,
                                      .keys = keys,
                                      .declare = declare,
                                      .weight = weight,
                                      .apply = apply,
                                      .start_reads = start_reads,
                                      .start = start};
