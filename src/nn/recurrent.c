#include "nn/recurrent.h"

#include "nn/adapter.h"

#include <string.h>

enum { MAX_BANDS = 1024 };

static saw_val named(saw_graph *g, const char *name, const char *part, saw_dims dims)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", name, *name ? "." : "", part);
    return saw_param(g, full, dims);
}

/* Dims of the weight of a norm; width, if above 0, stands for the last axis of x. */
static saw_dims affine_dims(const saw_graph *g, saw_val x, const saw_norm_form *form, int64_t width)
{
    saw_dims d = {0};
    int last = saw_dims_val(g, x).n - 1;
    for (int k = 0; k < SAW_NORM_AXES; k++)
        if (form->affine[k])
            d.d[d.n++] = width && form->affine[k] == last ? width : saw_dim(g, x, form->affine[k]);
    return d;
}

saw_val nn_norm(saw_graph *g, const char *name, saw_val x, const saw_norm_form *form)
{
    saw_dims dims = affine_dims(g, x, form, 0);
    return saw_norm(g, x, named(g, name, "weight", dims), named(g, name, "bias", dims), form);
}

saw_val nn_band_norm(saw_graph *g, const char *scope_format, saw_val x, int bands,
                     const int64_t *widths, const saw_norm_form *form)
{
    saw_val weight[MAX_BANDS], bias[MAX_BANDS];
    if (bands > MAX_BANDS)
        return saw_graph_fail(g, SAW_ERR_UNSUPPORTED, "%d bands are more than the %d accepted",
                              bands, MAX_BANDS);
    const char *at = strstr(scope_format, "%d");
    for (int b = 0; b < bands; b++) {
        char scope[128];
        snprintf(scope, sizeof scope, "%.*s%d%s", (int)(at - scope_format), scope_format, b,
                 at + 2);
        saw_dims dims = affine_dims(g, x, form, widths ? widths[b] : 0);
        weight[b] = named(g, scope, "weight", dims);
        bias[b] = named(g, scope, "bias", dims);
    }
    return saw_band_norm(g, x, bands, widths, weight, bias, form);
}

static saw_val matrix(saw_graph *g, const char *name, const char *part, int64_t rows, int64_t inner)
{
    char module[256];
    snprintf(module, sizeof module, "%s%s%s", name, *name ? "." : "", part);
    return nn_site_weight(g, &(saw_site){.module = module, .kind = SAW_SITE_MATRIX},
                          named(g, name, part, SAW_DIMS(rows, inner)), NULL);
}

saw_val nn_rnn(saw_graph *g, const char *name, saw_val x, saw_rnn_kind kind, int axis,
               int64_t hidden, bool bidirectional, bool stateful)
{
    static const char *const parts[2][4] = {
        {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"},
        {"weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse",
         "bias_hh_l0_reverse"}};
    int64_t gates = (kind == SAW_RNN_LSTM ? 4 : 3) * hidden;
    saw_rnn_weights w[2];
    for (int dir = 0; dir < 1 + bidirectional; dir++)
        w[dir] = (saw_rnn_weights){.w_ih = matrix(g, name, parts[dir][0], gates, saw_dim(g, x, -1)),
                                   .w_hh = matrix(g, name, parts[dir][1], gates, hidden),
                                   .b_ih = named(g, name, parts[dir][2], SAW_DIMS(gates)),
                                   .b_hh = named(g, name, parts[dir][3], SAW_DIMS(gates))};
    return saw_rnn(g, x, kind, axis, 1 + bidirectional, w, stateful);
}
