/*
 * dora.c - weight-decomposed low-rank adaptation (Liu et al., arXiv 2402.09353): V = W + s B A,
 * W_eff = diag(m / |row of V|) V. The norms are constants to the gradient. A and B as in lora.c; m
 * [out] is lora_magnitude_vector, of a convolution [1, out, 1, 1], and starts as the norms of W's
 * rows.
 */
#include "models/adapters/lora.h"

#include "kernels/ops.h"

#include <math.h>

enum { A = SAW_LORA_A, B = SAW_LORA_B, MAGNITUDE, TENSORS };

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    saw_dims d = SAW_DIMS(m->out);
    if (m->kernel.n) {
        d = SAW_DIMS(1, m->out);
        for (int i = 0; i < m->kernel.n; i++)
            d.d[d.n++] = 1;
    }
    saw_lora_declare(g, options, m, tensors);
    tensors[MAGNITUDE] = nn_adapter_tensor(g, m, "lora_magnitude_vector", d, false);
    return TENSORS;
}

/* m / |row of V|, [out, 1]. */
static saw_val gains(saw_graph *g, const saw_val *tensors, saw_val v)
{
    saw_val m = saw_reshape(g, tensors[MAGNITUDE], SAW_DIMS(saw_dim(g, v, 0), 1));
    return saw_mul(g, saw_row_norm(g, v), m);
}

static saw_val directions(saw_graph *g, const saw_lora_options *o, const saw_matrix *m,
                          const saw_val *tensors, saw_val w)
{
    saw_val change = saw_lora_product(g, m, o->rank, tensors[A], tensors[B]);
    return saw_add(g, w, saw_scale(g, change, saw_lora_scale(o)));
}

static saw_val weight(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias)
{
    (void)bias;
    saw_val v = directions(g, options, m, tensors, w);
    return saw_mul(g, v, gains(g, tensors, v));
}

static saw_val apply(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, const saw_val *w, const saw_val *bias)
{
    int n = site->bands ? site->bands : 1;
    saw_val y = nn_site_product(g, site, x, w, NULL);
    y = saw_add(g, y,
                saw_scale(g, saw_lora_apply(g, site, tensors, A, x), saw_lora_scale(options)));
    saw_val *gain = saw_calloc(saw_graph_context(g), (size_t)n, sizeof *gain);
    if (!gain)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
    for (int i = 0; i < n; i++) {
        const saw_val *own = tensors + i * SAW_ADAPTER_TENSORS;
        saw_matrix m = {.out = saw_dim(g, w[i], 0), .in = saw_dim(g, w[i], 1)};
        saw_val flat = saw_dims_val(g, w[i]).n == 2
                           ? w[i]
                           : saw_reshape(g, w[i], SAW_DIMS(m.out, m.in)); /* of a 1x1 convolution */
        gain[i] = gains(g, own, directions(g, options, &m, own, flat));
        gain[i] = saw_reshape(g, gain[i], SAW_DIMS(m.out));
    }
    y = saw_mul(g, y, nn_site_features(g, site, gain, y));
    saw_free(saw_graph_context(g), gain);
    return bias ? saw_add(g, y, nn_site_features(g, site, bias, y)) : y;
}

static bool start_reads(const void *options)
{
    (void)options;
    return true;
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    (void)ctx;
    saw_lora_start_values(options, m, random, out[A]);
    for (int64_t r = 0; r < m->out; r++) {
        double sum = 0;
        for (int64_t i = 0; i < m->in; i++)
            sum += (double)w[r * m->in + i] * w[r * m->in + i];
        out[MAGNITUDE][r] = (float)sqrt(sum);
    }
    return SAW_OK;
}

static const saw_lora_options defaults = {.rank = 16, .alpha = 32};

static const saw_adapter_option keys[] = {
    {"rank", SAW_ADAPTER_INT, offsetof(saw_lora_options, rank), 1, 4096},
    {"alpha", SAW_ADAPTER_DOUBLE, offsetof(saw_lora_options, alpha), 0, 1e6},
    {"rslora", SAW_ADAPTER_BOOL, offsetof(saw_lora_options, rslora), 0, 0},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_dora = {.name = "dora",
                                      .title = "DoRA",
                                      .options_bytes = sizeof(saw_lora_options),
                                      .defaults = &defaults,
                                      .keys = keys,
                                      .declare = declare,
                                      .weight = weight,
                                      .apply = apply,
                                      .start_reads = start_reads,
                                      .start = start};
