#include "nn/adapter.h"

#include "nn/nn.h"

#include <string.h>

void nn_adapt(saw_graph *g, const saw_adapters *set)
{
    nn_mode *mode = nn_mode_of(g);
    if (mode)
        mode->adapters = set;
}

const nn_adapted *nn_adapted_first(const saw_graph *g)
{
    const nn_mode *mode = saw_graph_user(g);
    return mode ? mode->adapted : NULL;
}

void nn_site_module(const saw_site *site, int m, char out[256])
{
    const char *at = site->bands ? strstr(site->module, "%d") : NULL;
    if (at)
        snprintf(out, 256, "%.*s%d%s", (int)(at - site->module), site->module, m, at + 2);
    else
        snprintf(out, 256, "%s", site->module);
}

saw_val nn_site_product(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                        const saw_val *bias)
{
    if (!site->bands)
        return saw_linear(g, x, w[0], bias ? bias[0] : 0);
    return saw_band_linear(g, x, site->bands, w, bias, site->ragged);
}

saw_val nn_site_features(saw_graph *g, const saw_site *site, const saw_val *vectors, saw_val v)
{
    saw_dims dims = saw_dims_val(g, v);
    for (int i = 0; i < dims.n; i++)
        dims.d[i] = 1;
    if (!site->bands) {
        dims.d[dims.n - 1] = saw_dim(g, vectors[0], -1);
        return saw_reshape(g, vectors[0], dims);
    }
    saw_val all = saw_concat(g, site->bands, vectors);
    if (dims.n == 4) /* [B,T,F,D]; else ragged */
        dims.d[2] = site->bands;
    dims.d[dims.n - 1] = saw_dim(g, all, -1) / (dims.n == 4 ? site->bands : 1);
    return saw_reshape(g, all, dims);
}

saw_val nn_adapter_tensor(saw_graph *g, const saw_matrix *m, const char *name, saw_dims dims,
                          bool frozen)
{
    char full[300];
    snprintf(full, sizeof full, "%s%s%s", m->module, *m->module ? "." : "", name);
    return frozen ? saw_param_frozen(g, full, dims) : saw_param(g, full, dims);
}

/* ---- one matrix ------------------------------------------------------------------------------ */

static const saw_adapted *row_of(saw_graph *g, const saw_adapters *set, const saw_matrix *m,
                                 bool insert)
{
    const char *full = saw_scope_name(g, m->module);
    for (int i = 0; full && i < set->count; i++) {
        const saw_adapted *row = &set->rows[i];
        bool adapter = row->what == SAW_ADAPTED_ADAPTER;
        if ((!adapter && row->what != SAW_ADAPTED_TRAIN && row->what != SAW_ADAPTED_FREEZE) ||
            !saw_glob_match(row->glob, full))
            continue;
        if (!adapter)
            return NULL;
        if (!row->adapter->insert == !insert &&
            (!row->adapter->fits || row->adapter->fits(row->options, m)))
            return row;
    }
    return NULL;
}

static saw_matrix matrix_of(const saw_graph *g, const saw_site *site, const char *module, saw_val w)
{
    saw_dims d = saw_dims_val(g, w);
    int out = site->kind == SAW_SITE_TRANSPOSED;
    saw_matrix m = {.module = module, .out = d.d[out], .kernel.n = d.n > 2 ? d.n - 2 : 0};
    m.in = m.out ? saw_dims_count(&d) / m.out : 0;
    for (int i = 0; i < m.kernel.n; i++)
        m.kernel.d[i] = d.d[2 + i];
    return m;
}

static const char *tensor_name(saw_graph *g, saw_site_kind kind, const char *module,
                               const char *part)
{
    char name[300];
    if (kind == SAW_SITE_MATRIX)
        snprintf(name, sizeof name, "%s", module);
    else
        snprintf(name, sizeof name, "%s%s%s", module, *module ? "." : "", part);
    return saw_scope_name(g, name);
}

/* Declare the tensors of a row for a matrix, and note it in the graph's list. */
static void declare(saw_graph *g, const saw_adapted *row, saw_site_kind kind, const saw_matrix *m,
                    saw_val w, saw_val *tensors)
{
    nn_mode *mode = nn_mode_of(g);
    int n = row->adapter->declare(g, row->options, m, tensors);
    const char *full = saw_scope_name(g, m->module);
    for (const nn_adapted *a = mode ? mode->adapted : NULL; a; a = a->next)
        if (full && !strcmp(a->module, full))
            return; /* the second time in a shared scope */
    nn_adapted a = {.row = row, .module = full, .kind = kind, .matrix = *m, .tensors = n};
    a.matrix.module = full;
    if (w) {
        a.weight = tensor_name(g, kind, m->module, "weight");
        a.bias = kind == SAW_SITE_MATRIX ? NULL : tensor_name(g, kind, m->module, "bias");
        a.dims = saw_dims_val(g, w);
    }
    memcpy(a.tensor, tensors, sizeof a.tensor);
    nn_adapted *kept = mode && full ? saw_graph_copy(g, &a, sizeof a) : NULL;
    if (kept) {
        *mode->behind = kept;
        mode->behind = (nn_adapted **)&kept->next;
    }
}

/* base + strength (changed - base) */
static saw_val blend(saw_graph *g, saw_val base, saw_val changed, double strength)
{
    if (strength == 0 || strength == 1 || base == changed)
        return changed;
    changed = saw_scale(g, changed, strength);
    return base ? saw_add(g, changed, saw_scale(g, base, 1 - strength)) : changed;
}

static saw_val merged_tap(saw_graph *g, const saw_matrix *m, saw_site_kind kind, const char *part,
                          saw_val v)
{
    char name[300];
    if (kind == SAW_SITE_MATRIX)
        snprintf(name, sizeof name, "%s.merged", m->module);
    else
        snprintf(name, sizeof name, "%s%s%s.merged", m->module, *m->module ? "." : "", part);
    return saw_tap(g, name, v);
}

/* W_eff in the dims of w, *bias likewise. */
static saw_val merge(saw_graph *g, const saw_adapted *row, saw_site_kind kind, const saw_matrix *m,
                     const saw_val *tensors, double strength, saw_val w, saw_val *bias)
{
    saw_dims dims = saw_dims_val(g, w);
    int order[SAW_MAX_DIMS] = {1, 0, 2, 3, 4, 5, 6, 7};
    saw_val flat = w, base_bias = bias ? *bias : 0;
    if (kind == SAW_SITE_TRANSPOSED) /* the copy is dense */
        flat = saw_scale(g, saw_permute(g, w, order), 1);
    if (dims.n != 2)
        flat = saw_reshape(g, flat, SAW_DIMS(m->out, m->in));
    saw_val y = row->adapter->weight(g, row->options, m, tensors, flat, bias);
    y = blend(g, flat, y, strength);
    if (bias && *bias != base_bias)
        *bias = merged_tap(g, m, kind, "bias", blend(g, base_bias, *bias, strength));
    if (kind == SAW_SITE_TRANSPOSED) {
        saw_dims other = dims;
        other.d[0] = dims.d[1];
        other.d[1] = dims.d[0];
        y = saw_permute(g, saw_reshape(g, y, other), order);
    } else if (dims.n != 2) {
        y = saw_reshape(g, y, dims);
    }
    if (dims.n != 2) /* a copy, for only what is no view can be packed */
        y = saw_scale(g, y, 1);
    return merged_tap(g, m, kind, "weight", y);
}

/* ---- sites ----------------------------------------------------------------------------------- */

saw_val nn_site_weight(saw_graph *g, const saw_site *site, saw_val w, saw_val *bias)
{
    const nn_mode *mode = saw_graph_user(g);
    if (!mode || !mode->adapters || saw_graph_status(g))
        return w;
    saw_val tensors[SAW_ADAPTER_TENSORS] = {0};
    saw_matrix m = matrix_of(g, site, site->module, w);
    const saw_adapted *row = row_of(g, mode->adapters, &m, false);
    if (!row)
        return w;
    declare(g, row, site->kind, &m, w, tensors);
    return merge(g, row, site->kind, &m, tensors, mode->adapters->strength, w, bias);
}

typedef struct site_work {
    const saw_adapted *row;
    saw_val w, bias;
    saw_matrix m;
    char module[256];
} site_work;

saw_val nn_site(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                const saw_val *bias)
{
    const nn_mode *mode = saw_graph_user(g);
    if (!mode || !mode->adapters || saw_graph_status(g))
        return nn_site_product(g, site, x, w, bias);
    saw_context *ctx = saw_graph_context(g);
    size_t n = (size_t)(site->bands ? site->bands : 1);
    site_work *s = saw_calloc(ctx, n, sizeof *s);
    saw_val *tensors = saw_calloc(ctx, n * SAW_ADAPTER_TENSORS, sizeof *tensors);
    saw_val *weights = saw_calloc(ctx, 2 * n, sizeof *weights), *biases = weights + n, y = 0;
    bool attached = true, any_bias = false;
    if (!s || !tensors || !weights) {
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        nn_site_module(site, (int)i, s[i].module);
        s[i].m = matrix_of(g, site, s[i].module, w[i]);
        s[i].row = row_of(g, mode->adapters, &s[i].m, false);
        attached = attached && s[i].row && s[i].row == s[0].row && s[i].row->attached &&
                   s[i].row->adapter->apply;
    }
    for (size_t i = 0; i < n; i++) {
        saw_val *own = tensors + i * SAW_ADAPTER_TENSORS;
        weights[i] = w[i];
        biases[i] = bias ? bias[i] : 0;
        if (s[i].row)
            declare(g, s[i].row, site->kind, &s[i].m, w[i], own);
        if (s[i].row && !attached)
            weights[i] = merge(g, s[i].row, site->kind, &s[i].m, own, mode->adapters->strength,
                               w[i], &biases[i]);
        any_bias = any_bias || biases[i];
    }
    if (attached)
        y = s[0].row->adapter->apply(g, s[0].row->options, site, tensors, x, w,
                                     any_bias ? bias : NULL);
    else
        y = nn_site_product(g, site, x, weights, any_bias ? biases : NULL);
done:
    saw_free(ctx, weights);
    saw_free(ctx, tensors);
    saw_free(ctx, s);
    return y;
}

saw_val nn_insert(saw_graph *g, const char *name, saw_val x)
{
    const nn_mode *mode = saw_graph_user(g);
    if (!mode || !mode->adapters || saw_graph_status(g) || !x)
        return x;
    saw_val tensors[SAW_ADAPTER_TENSORS] = {0};
    int64_t width = saw_dim(g, x, -1);
    saw_matrix m = {.module = name, .out = width, .in = width};
    const saw_adapted *row = row_of(g, mode->adapters, &m, true);
    if (!row)
        return x;
    declare(g, row, SAW_SITE_LINEAR, &m, 0, tensors);
    saw_val y = row->adapter->insert(g, row->options, &m, tensors, x);
    return blend(g, x, y, mode->adapters->strength);
}

/* ---- start values ---------------------------------------------------------------------------- */

double saw_adapter_uniform(const saw_adapter_random *r, int64_t i)
{
    uint32_t words[4];
    saw_philox(r->seed, r->name, (uint64_t)i / 4, words);
    return (double)words[i % 4] * 0x1p-31 - 1;
}

/* W as [out, in], read through the weights. */
static saw_status read_matrix(saw_context *ctx, const nn_adapted *a, saw_weights *w, float **out)
{
    size_t n = (size_t)saw_dims_count(&a->dims);
    float *x = *out = saw_calloc(ctx, n + 1, sizeof *x);
    saw_status status = x ? saw_weights_read(w, a->weight, &a->dims, x) : SAW_ERR_MEMORY;
    if (status || a->kind != SAW_SITE_TRANSPOSED)
        return status;
    float *turned = saw_calloc(ctx, n + 1, sizeof *turned);
    if (!turned)
        return SAW_ERR_MEMORY;
    int64_t rows = a->dims.d[0], columns = a->dims.d[1], inner = a->matrix.in / rows;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            memcpy(turned + (j * rows + i) * inner, x + (i * columns + j) * inner,
                   (size_t)inner * sizeof *x);
    saw_free(ctx, x);
    *out = turned;
    return SAW_OK;
}

static saw_status start_one(const saw_graph *g, const nn_adapted *a, saw_weights *w, uint64_t seed)
{
    saw_context *ctx = saw_graph_context((saw_graph *)g);
    const saw_adapter *adapter = a->row->adapter;
    float *base = NULL, *out[SAW_ADAPTER_TENSORS] = {0};
    saw_status status = SAW_OK;
    for (int i = 0; i < a->tensors && !status; i++) {
        saw_dims dims = saw_dims_val(g, a->tensor[i]);
        out[i] = saw_calloc(ctx, (size_t)saw_dims_count(&dims) + 1, sizeof(float));
        status = out[i] ? SAW_OK : SAW_ERR_MEMORY;
    }
    if (!status && adapter->start_reads && adapter->start_reads(a->row->options))
        status = read_matrix(ctx, a, w, &base);
    if (!status)
        status = adapter->start(
            ctx, a->row->options, &a->matrix, base,
            &(saw_adapter_random){.seed = seed, .name = saw_fnv1a(a->module, strlen(a->module))},
            out);
    for (int i = 0; i < a->tensors && !status; i++)
        status = saw_weights_set(w, saw_graph_value(g, a->tensor[i])->name,
                                 saw_dims_val(g, a->tensor[i]), out[i]);
    for (int i = 0; i < a->tensors; i++)
        saw_free(ctx, out[i]);
    saw_free(ctx, base);
    return status;
}

saw_status nn_adapters_start(const saw_graph *g, saw_weights *w, uint64_t seed)
{
    saw_status status = saw_graph_status(g);
    for (const nn_adapted *a = nn_adapted_first(g); a && !status; a = a->next)
        status = start_one(g, a, w, seed);
    return status;
}
