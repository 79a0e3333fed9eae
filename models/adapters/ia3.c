/*
 * ia3.c - a factor for everything that comes out of a layer, its bias with it, or that goes in (Liu
 * et al., arXiv 2205.05638): W_eff = diag(l) W, b_eff = l b; or W diag(l). ia3_l is [out, 1] or
 * [1, in], of a convolution [1, channels, 1, 1]; ones at the start.
 */
#include "models/adapters/ia3.h"

#include "kernels/ops.h"

static int64_t count(const saw_ia3_options *o, const saw_matrix *m)
{
    return o->input ? m->in / saw_dims_count(&m->kernel) : m->out;
}

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    const saw_ia3_options *o = options;
    saw_dims d = o->input || m->kernel.n ? SAW_DIMS(1, count(o, m)) : SAW_DIMS(count(o, m), 1);
    for (int i = 0; i < m->kernel.n; i++)
        d.d[d.n++] = 1;
    tensors[0] = nn_adapter_tensor(g, m, "ia3_l", d, false);
    return 1;
}

static saw_val weight(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias)
{
    const saw_ia3_options *o = options;
    int64_t n = count(o, m);
    if (!o->input) {
        if (bias && *bias)
            *bias = saw_mul(g, *bias, saw_reshape(g, tensors[0], SAW_DIMS(n)));
        return saw_mul(g, w, saw_reshape(g, tensors[0], SAW_DIMS(n, 1)));
    }
    saw_val y = saw_mul(g, saw_reshape(g, w, SAW_DIMS(m->out, n, m->in / n)),
                        saw_reshape(g, tensors[0], SAW_DIMS(1, n, 1)));
    return saw_reshape(g, y, SAW_DIMS(m->out, m->in));
}

static saw_val apply(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, const saw_val *w, const saw_val *bias)
{
    const saw_ia3_options *o = options;
    int n = site->bands ? site->bands : 1;
    saw_val y = o->input ? x : nn_site_product(g, site, x, w, bias);
    saw_val *l = saw_calloc(saw_graph_context(g), (size_t)n, sizeof *l);
    if (!l)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
    for (int m = 0; m < n; m++)
        l[m] = saw_reshape(g, tensors[m * SAW_ADAPTER_TENSORS],
                           SAW_DIMS(saw_dim(g, w[m], o->input ? 1 : 0)));
    y = saw_mul(g, y, nn_site_features(g, site, l, y));
    saw_free(saw_graph_context(g), l);
    return o->input ? nn_site_product(g, site, y, w, bias) : y;
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    (void)ctx, (void)w, (void)random;
    for (int64_t i = 0; i < count(options, m); i++)
        out[0][i] = 1;
    return SAW_OK;
}

static const saw_ia3_options defaults = {.input = false};

static const saw_adapter_option keys[] = {
    {"input", SAW_ADAPTER_BOOL, offsetof(saw_ia3_options, input), 0, 0},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_ia3 = {.name = "ia3",
                                     .title = "IA3",
                                     .options_bytes = sizeof(saw_ia3_options),
                                     .defaults = &defaults,
                                     .keys = keys,
                                     .declare = declare,
                                     .weight = weight,
                                     .apply = apply,
                                     .start = start};
