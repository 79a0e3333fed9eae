/*
 * road.c - rotations of pairs of what comes out of a layer, its bias with it (Liao and Monz, arXiv
 * 2409.00119): in groups of G outputs, with h = G / 2,
 *
 *     z_i = c_i y_i - s_i y_(i+h),   z_(i+h) = s_(i+h) y_i + c_(i+h) y_(i+h),
 *
 * c = alpha cos theta, s = alpha sin theta. road_1 has one (alpha, theta) for a pair, road_2 one
 * for an output, road_4 one for each c and each s: of a group first the c, then the s. theta is 0
 * and alpha 1 at the start.
 */
#include "models/adapters/road.h"

#include "kernels/ops.h"

enum { THETA, ALPHA, TENSORS };

static int64_t numbers(const saw_road_options *o, int64_t out)
{
    return o->variant == 0 ? out / 2 : o->variant == 1 ? out : 2 * out;
}

static bool fits(const void *options, const saw_matrix *m)
{
    const saw_road_options *o = options;
    return o->group % 2 == 0 && m->out % o->group == 0;
}

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    saw_dims d = SAW_DIMS(numbers(options, m->out));
    tensors[THETA] = nn_adapter_tensor(g, m, "road_theta", d, false);
    tensors[ALPHA] = nn_adapter_tensor(g, m, "road_alpha", d, false);
    return TENSORS;
}

/* Which number is c (s: false) or s of output o; which output is the other of its pair. */
static int32_t number_of(const saw_road_options *o, int64_t output, bool s)
{
    int64_t group = o->group, q = output / group, r = output % group;
    if (o->variant == 0)
        return (int32_t)(q * group / 2 + r % (group / 2));
    return (int32_t)(o->variant == 1 ? output : 2 * group * q + (s ? group : 0) + r);
}

static bool first_of_pair(const saw_road_options *o, int64_t output)
{
    return output % o->group < o->group / 2;
}

/* [out]: c, or s with the sign that it has. */
static saw_val factors(saw_graph *g, const saw_road_options *o, const saw_val *tensors, int64_t out,
                       bool s)
{
    int64_t n = numbers(o, out);
    int32_t *table = saw_calloc(saw_graph_context(g), (size_t)out + 1, sizeof *table);
    if (!table)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for a table of %lld outputs",
                              (long long)out);
    for (int64_t i = 0; i < out; i++)
        table[i] = (int32_t)(number_of(o, i, s) + (!s ? 0 : first_of_pair(o, i) ? 2 * n : n));
    saw_val y = saw_gather(g, saw_rotation(g, tensors[ALPHA], tensors[THETA]), table, out);
    saw_free(saw_graph_context(g), table);
    return y;
}

/* The other of every pair on the last axis of y. */
static saw_val others(saw_graph *g, const saw_road_options *o, saw_val y)
{
    int64_t n = saw_dim(g, y, -1), half = o->group / 2;
    int32_t *table = saw_calloc(saw_graph_context(g), (size_t)n + 1, sizeof *table);
    if (!table)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for a table of %lld outputs",
                              (long long)n);
    for (int64_t i = 0; i < n; i++)
        table[i] = (int32_t)(i + (first_of_pair(o, i) ? half : -half));
    saw_val z = saw_gather(g, y, table, n);
    saw_free(saw_graph_context(g), table);
    return z;
}

static saw_val weight(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias)
{
    const saw_road_options *o = options;
    int64_t half = o->group / 2 * m->in;
    saw_val c = factors(g, o, tensors, m->out, false), s = factors(g, o, tensors, m->out, true);
    if (bias && *bias)
        *bias = saw_add(g, saw_mul(g, *bias, c), saw_mul(g, others(g, o, *bias), s));
    saw_val pairs = saw_reshape(g, w, SAW_DIMS(m->out / o->group, 2 * half));
    saw_val swapped = saw_concat(
        g, 2, (saw_val[]){saw_slice_last(g, pairs, half, half), saw_slice_last(g, pairs, 0, half)});
    swapped = saw_reshape(g, swapped, SAW_DIMS(m->out, m->in));
    return saw_add(g, saw_mul(g, w, saw_reshape(g, c, SAW_DIMS(m->out, 1))),
                   saw_mul(g, swapped, saw_reshape(g, s, SAW_DIMS(m->out, 1))));
}

static saw_val apply(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, const saw_val *w, const saw_val *bias)
{
    const saw_road_options *o = options;
    int n = site->bands ? site->bands : 1;
    saw_val y = nn_site_product(g, site, x, w, bias);
    saw_val *c = saw_calloc(saw_graph_context(g), 2 * (size_t)n, sizeof *c), *s = c ? c + n : NULL;
    if (!c)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
    for (int m = 0; m < n; m++) {
        const saw_val *own = tensors + m * SAW_ADAPTER_TENSORS;
        c[m] = factors(g, o, own, saw_dim(g, w[m], 0), false);
        s[m] = factors(g, o, own, saw_dim(g, w[m], 0), true);
    }
    saw_val direct = saw_mul(g, y, nn_site_features(g, site, c, y));
    saw_val crossed = saw_mul(g, others(g, o, y), nn_site_features(g, site, s, y));
    saw_free(saw_graph_context(g), c);
    return saw_add(g, direct, crossed);
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    (void)ctx, (void)w, (void)random;
    for (int64_t i = 0; i < numbers(options, m->out); i++)
        out[ALPHA][i] = 1;
    return SAW_OK;
}

static const saw_road_options defaults = {.variant = 0, .group = 64};

static const saw_adapter_option keys[] = {
    {"variant:road_1,road_2,road_4", SAW_ADAPTER_WORD, offsetof(saw_road_options, variant), 0, 0},
    {"group", SAW_ADAPTER_INT, offsetof(saw_road_options, group), 2, 4096},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_road = {.name = "road",
                                      .title = "RoAd",
                                      .options_bytes = sizeof(saw_road_options),
                                      .defaults = &defaults,
                                      .keys = keys,
                                      .fits = fits,
                                      .declare = declare,
                                      .weight = weight,
                                      .apply = apply,
                                      .start = start};
