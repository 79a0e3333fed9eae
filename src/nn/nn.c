#include "nn/nn.h"

#include "nn/adapter.h"

#include <string.h>

enum { MAX_BANDS = 1024 };

nn_mode *nn_mode_of(saw_graph *g)
{
    if (!saw_graph_user(g)) {
        nn_mode none = {0}, *mode = saw_graph_copy(g, &none, sizeof none);
        if (!mode)
            return NULL;
        mode->behind = &mode->adapted;
        saw_graph_set_user(g, mode);
    }
    return (nn_mode *)saw_graph_user(g);
}

void nn_training(saw_graph *g, const nn_training_options *options)
{
    nn_mode *mode = nn_mode_of(g);
    if (mode)
        mode->training = *options;
}

static saw_val named(saw_graph *g, const char *name, const char *part, saw_dims dims, bool frozen)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", name, *name ? "." : "", part);
    return frozen ? saw_param_frozen(g, full, dims) : saw_param(g, full, dims);
}

saw_val nn_linear(saw_graph *g, const char *name, saw_val x, int64_t out, bool bias)
{
    saw_val w = named(g, name, "weight", SAW_DIMS(out, saw_dim(g, x, -1)), false);
    saw_val b = bias ? named(g, name, "bias", SAW_DIMS(out), false) : 0;
    return nn_site(g, &(saw_site){.module = name}, x, &w, &b);
}

saw_val nn_conv(saw_graph *g, const char *name, saw_val x, int64_t out, int64_t size,
                const saw_conv_form *form, bool transposed)
{
    int64_t in = saw_dim(g, x, -1);
    saw_dims dims = transposed ? SAW_DIMS(in, out, size, size) : SAW_DIMS(out, in, size, size);
    saw_val w = named(g, name, "weight", dims, false),
            b = named(g, name, "bias", SAW_DIMS(out), false);
    saw_site site = {.module = name, .kind = transposed ? SAW_SITE_TRANSPOSED : SAW_SITE_CONV};
    w = nn_site_weight(g, &site, w, &b);
    return transposed ? saw_conv_transpose(g, x, w, b, form) : saw_conv(g, x, w, b, form);
}

/* Name a value as an output under the present scope. */
static void output(saw_graph *g, const char *name, const char *part, saw_val v)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", name, *name ? "." : "", part);
    const char *scoped = saw_scope_name(g, full);
    if (scoped && v)
        saw_output(g, scoped, v);
}

saw_val nn_batch_norm(saw_graph *g, const char *name, saw_val x, double eps)
{
    saw_dims d = SAW_DIMS(saw_dim(g, x, -1));
    saw_val weight = named(g, name, "weight", d, false), bias = named(g, name, "bias", d, false);
    const nn_mode *mode = saw_graph_user(g);
    saw_val mean, var;
    if (mode && mode->training.batch_norm == NN_BN_BATCH) {
        x = saw_batch_norm_train(g, x, weight, bias, eps, &mean, &var);
        output(g, name, "running_mean.batch", mean);
        output(g, name, "running_var.batch", var);
        return x;
    }
    mean = named(g, name, "running_mean", d, true);
    var = named(g, name, "running_var", d, true);
    return saw_batch_norm(g, x, weight, bias, mean, var, eps);
}

saw_val nn_dropout(saw_graph *g, saw_val x, double rate)
{
    const nn_mode *mode = saw_graph_user(g);
    return mode && mode->training.dropout && rate > 0 ? saw_dropout(g, x, rate) : x;
}

saw_val nn_rmsnorm(saw_graph *g, const char *name, saw_val x)
{
    return saw_rmsnorm(g, x, named(g, name, "gamma", SAW_DIMS(saw_dim(g, x, -1)), false));
}

saw_val nn_rotations(saw_graph *g, const char *name, const char *tensor, int64_t count, saw_val x,
                     int axis)
{
    return saw_rope_table(g, named(g, name, tensor, SAW_DIMS(count), true), saw_dim(g, x, axis));
}

saw_val nn_heads(saw_graph *g, saw_val x, int i, int parts, int heads)
{
    int64_t part = saw_dim(g, x, -1) / parts;
    return saw_split_last(g, saw_slice_last(g, x, i * part, part), heads);
}

static bool band_params(saw_graph *g, const char *scope_format, const char *part, int bands,
                        const int64_t *rows, int64_t uniform_rows, const int64_t *columns,
                        int64_t uniform_columns, saw_val *out)
{
    if (bands > MAX_BANDS) {
        saw_graph_fail(g, SAW_ERR_UNSUPPORTED, "%d bands are more than the %d accepted", bands,
                       MAX_BANDS);
        return false;
    }
    for (int b = 0; b < bands; b++) {
        char scope[128];
        /* one number in the format: the caller's constant, checked by its own tests */
        const char *at = strstr(scope_format, "%d");
        snprintf(scope, sizeof scope, "%.*s%d%s", (int)(at - scope_format), scope_format, b,
                 at + 2);
        int64_t n = rows ? rows[b] : uniform_rows, k = columns ? columns[b] : uniform_columns;
        out[b] = named(g, scope, part, k ? SAW_DIMS(n, k) : SAW_DIMS(n), false);
    }
    return true;
}

saw_val nn_band_rmsnorm(saw_graph *g, const char *scope_format, saw_val x, int bands,
                        const int64_t *widths)
{
    saw_val gamma[MAX_BANDS];
    if (!band_params(g, scope_format, "gamma", bands, widths, 0, NULL, 0, gamma))
        return 0;
    return saw_band_rmsnorm(g, x, bands, gamma);
}

saw_val nn_band_linear(saw_graph *g, const char *scope_format, saw_val x, int bands,
                       const int64_t *in, const int64_t *out, int64_t uniform_out)
{
    saw_val w[MAX_BANDS], b[MAX_BANDS];
    if (!band_params(g, scope_format, "weight", bands, out, uniform_out, in,
                     in ? 0 : saw_dim(g, x, -1), w) ||
        !band_params(g, scope_format, "bias", bands, out, uniform_out, NULL, 0, b))
        return 0;
    return nn_site(g, &(saw_site){.module = scope_format, .bands = bands, .ragged = out != NULL}, x,
                   w, b);
}

static void close_plan(void *plan)
{
    saw_stft_close(plan);
}

const saw_stft *nn_stft_plan(saw_graph *g, const saw_stft_options *options)
{
    saw_stft *plan;
    if (saw_graph_status(g))
        return NULL;
    saw_status status = saw_stft_open(saw_graph_context(g), options, &plan);
    if (status) {
        saw_graph_fail(g, status, "%s", saw_context_error(saw_graph_context(g)));
        return NULL;
    }
    saw_graph_own(g, plan, close_plan);
    return plan;
}
