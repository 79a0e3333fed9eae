#include "nn/adapter.h"

#include "kernels/ops.h"

#include <string.h>

void nn_adapt(saw_graph *g, const saw_adapters *set)
{
    saw_graph_set_user(g, set);
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

static const saw_adapted *row_of(saw_graph *g, const saw_adapters *set, const saw_site *site, int m)
{
    char module[256];
    nn_site_module(site, m, module);
    const char *full = saw_scope_name(g, module);
    for (int i = 0; full && i < set->count; i++)
        if (saw_glob_match(set->rows[i].glob, full))
            return &set->rows[i];
    return NULL;
}

saw_val nn_site(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                const saw_val *bias)
{
    const saw_adapters *set = saw_graph_user(g);
    if (!set || saw_graph_status(g))
        return nn_site_product(g, site, x, w, bias);
    saw_context *ctx = saw_graph_context(g);
    int n = site->bands ? site->bands : 1;
    const saw_adapted **rows = saw_calloc(ctx, (size_t)n, sizeof *rows);
    saw_val *weights = saw_calloc(ctx, (size_t)n, sizeof *weights), *tensors = NULL, y = 0;
    if (!rows || !weights) {
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
        goto done;
    }
    int most = 0; /* tensors of a matrix */
    bool attached = true;
    for (int m = 0; m < n; m++) {
        rows[m] = row_of(g, set, site, m);
        if (rows[m] && rows[m]->adapter->tensors > most)
            most = rows[m]->adapter->tensors;
        attached = attached && rows[m] && rows[m] == rows[0] && rows[m]->attached &&
                   rows[m]->adapter->apply;
    }
    tensors = saw_calloc(ctx, (size_t)(n * most) + 1, sizeof *tensors);
    if (!tensors) {
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
        goto done;
    }
    for (int m = 0; m < n; m++) {
        char module[256];
        saw_val *own = tensors + m * most;
        weights[m] = w[m];
        if (!rows[m])
            continue;
        nn_site_module(site, m, module);
        rows[m]->adapter->declare(g, rows[m]->options, module, saw_dim(g, w[m], 0),
                                  saw_dim(g, w[m], 1), own);
        if (attached)
            continue;
        char merged[300];
        snprintf(merged, sizeof merged, "%s%sweight.merged", module, *module ? "." : "");
        weights[m] = saw_tap(g, merged, rows[m]->adapter->weight(g, rows[m]->options, own, w[m]));
    }
    y = nn_site_product(g, site, x, weights, bias);
    if (attached)
        y = rows[0]->adapter->apply(g, rows[0]->options, site, tensors, x, y);
done:
    saw_free(ctx, tensors);
    saw_free(ctx, weights);
    saw_free(ctx, rows);
    return y;
}
