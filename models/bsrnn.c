/*
 * bsrnn.c - Band-Split RNN (Luo and Yu, arXiv 2209.15174) in the layout of
 * github.com/magronp/bsrnn, with the attention and the mixing of channels of its optimised variant.
 *
 * B batch, C audio channels (a batch of their own: BC = B C), N samples, T frames, K bins, F bands,
 * R features of all bands of a frame, D width, H hidden units, E features of an attention head.
 *
 * Every band of the spectrum is normalised over all frames and becomes a vector of D numbers.
 * Blocks of two residual recurrent layers follow, along time and along bands; then, if asked for,
 * the channels exchange their mean (TAC) and all bands together attend along time. A small network
 * a band gives a complex mask.
 */
#include "models/bsrnn.h"
#include "nn/adapter.h"
#include "nn/recurrent.h"

#include <math.h>

enum { AXIS_T = 1, AXIS_F = 2, AXIS_D = 3 };
static const double ATTENTION_EPS = 1e-7;

/* A layer of every band's network, "%d" in its name: x ragged with the widths in `in`, or uniform
 * (NULL); out likewise. */
static saw_val band_convolution(saw_graph *g, const char *module, saw_val x, int bands,
                                const int64_t *in, const int64_t *out, int64_t uniform_out)
{
    saw_val w[SAW_MAX_BANDS], bias[SAW_MAX_BANDS];
    saw_site site = {.module = module, .bands = bands, .ragged = out != NULL};
    char name[256];
    for (int b = 0; b < bands; b++) {
        int64_t rows = out ? out[b] : uniform_out, inner = in ? in[b] : saw_dim(g, x, -1);
        nn_site_module(&site, b, name);
        saw_scope(g, 0, "%s", name);
        w[b] = saw_param(g, "weight", SAW_DIMS(rows, inner, 1));
        bias[b] = saw_param(g, "bias", SAW_DIMS(rows));
        saw_scope_end(g);
    }
    return nn_site(g, &site, x, w, bias);
}

/* x + proj(rnn(norm(x))) along one axis. */
static saw_val residual_layer(saw_graph *g, const char *name, saw_val x, const bsrnn_options *o,
                              saw_rnn_kind kind, int axis)
{
    int64_t width = saw_dim(g, x, -1), groups = o->groups        ? o->groups
                                                : width / 16 > 1 ? width / 16
                                                                 : 1;
    saw_scope(g, 0, "%s", name);
    saw_val weight = saw_param(g, "norm.weight", SAW_DIMS(width)),
            bias = saw_param(g, "norm.bias", SAW_DIMS(width));
    saw_norm_form form = {
        .over = SAW_AXIS(axis) | SAW_AXIS(AXIS_D), .affine = {AXIS_D}, .eps = o->eps};
    saw_val h = x;
    if (groups > 1) { /* [B,T,F,groups,D / groups] */
        form =
            (saw_norm_form){.over = SAW_AXIS(axis) | SAW_AXIS(4), .affine = {3, 4}, .eps = o->eps};
        h = saw_merge_last(g, saw_norm(g, saw_split_last(g, x, groups), weight, bias, &form));
    } else {
        h = saw_norm(g, x, weight, bias, &form);
    }
    h = nn_rnn(g, "main_layer", h, kind, axis, o->fac_sep * width, o->bidirectional, false);
    h = nn_insert(g, "proj", nn_linear(g, "proj", h, width, true));
    saw_scope_end(g);
    return saw_add(g, x, h);
}

static saw_val tac_activation(saw_graph *g, saw_val x, saw_val slope)
{
    return slope ? saw_prelu(g, x, slope) : saw_tanh(g, x);
}

/* Channels exchange their mean (Luo et al., arXiv 1910.14104): x [BC,T,F,D]. The slope is one
 * tensor under three names. */
static saw_val tac(saw_graph *g, saw_val x, const bsrnn_options *o)
{
    int64_t inner = (int64_t)o->fac_tac * o->dim;
    saw_scope(g, 0, "tac_module");
    saw_val slope = o->tac_prelu ? saw_param(g, "transform.1.weight", SAW_DIMS(1)) : 0;
    saw_val v = tac_activation(g, nn_linear(g, "transform.0", x, inner, true), slope);
    saw_val r = saw_mean(g, v, 0, o->common.channels); /* [B,T,F,inner] */
    r = tac_activation(g, nn_linear(g, "average.0", r, inner, true), slope);
    saw_val both = saw_concat(g, 2, (saw_val[]){v, r});
    saw_val y = tac_activation(g, nn_linear(g, "concat.0", both, o->dim, true), slope);
    saw_scope_end(g);
    return saw_add(g, x, y);
}

/* Convolution 1x1, PReLU and a norm over all bands and features of a frame: x [BC,T,F,D] ->
 * [BC,T,F,out]. */
static saw_val attention_layer(saw_graph *g, const char *name, saw_val x, int64_t out)
{
    int64_t bands = saw_dim(g, x, AXIS_F);
    saw_norm_form form = {.over = SAW_AXIS(AXIS_F) | SAW_AXIS(AXIS_D),
                          .affine = {AXIS_D, AXIS_F},
                          .eps = ATTENTION_EPS};
    saw_scope(g, 0, "%s", name);
    saw_val w = saw_param(g, "0.weight", SAW_DIMS(out, saw_dim(g, x, -1), 1, 1));
    saw_val bias = saw_param(g, "0.bias", SAW_DIMS(out));
    saw_val h = nn_site(g, &(saw_site){.module = "0"}, x, &w, &bias);
    h = saw_prelu(g, h, saw_param(g, "1.weight", SAW_DIMS(1)));
    saw_val gamma = saw_param(g, "2.gamma", SAW_DIMS(1, out, 1, bands));
    h = saw_norm(g, h, gamma, saw_param(g, "2.beta", SAW_DIMS(1, out, 1, bands)), &form);
    saw_scope_end(g);
    return h;
}

/* Query, key or value of one head: all bands of a frame are one vector, [BC,T,1,F features]. */
static saw_val attention_part(saw_graph *g, char kind, int head, saw_val x, int64_t features)
{
    char name[32];
    snprintf(name, sizeof name, "attn_conv_%c_%d", kind, head);
    return saw_split_last(g, saw_merge_last(g, attention_layer(g, name, x, features)), 1);
}

/* Full-band attention along time (Wang et al., arXiv 2211.12433): x [BC,T,F,D]. */
static saw_val attention(saw_graph *g, saw_val x, const bsrnn_options *o)
{
    int64_t bands = o->bands, part = o->dim / o->attention_heads;
    saw_val heads[BSRNN_MAX_PARTS];
    saw_scope(g, 0, "attn_block");
    for (int i = 0; i < o->attention_heads; i++) {
        saw_val q = attention_part(g, 'Q', i, x, o->attention_dim);
        saw_val k = attention_part(g, 'K', i, x, o->attention_dim);
        saw_val v = attention_part(g, 'V', i, x, part);
        double scale = 1 / sqrt((double)(bands * o->attention_dim));
        saw_val h = saw_attention(g, q, k, v, AXIS_T, scale);      /* [BC,T,1,F part] */
        heads[i] = saw_split_last(g, saw_merge_last(g, h), bands); /* [BC,T,F,part] */
    }
    saw_val h =
        attention_layer(g, "attn_concat_proj", saw_concat(g, o->attention_heads, heads), o->dim);
    saw_scope_end(g);
    return saw_add(g, x, h);
}

/* One block of the trunk: x [BC,T,F,D]. The parts ("heads") of D run apart through the same
 * recurrent layers. */
static saw_val block(saw_graph *g, saw_val x, const bsrnn_options *o)
{
    saw_val parts[BSRNN_MAX_PARTS];
    int64_t width = o->dim / o->heads;
    saw_scope(g, o->heads > 1 ? SAW_SCOPE_SHARED : 0, "%s", "");
    for (int i = 0; i < o->heads; i++) {
        saw_val h = o->heads > 1 ? saw_slice_last(g, x, i * width, width) : x;
        h = residual_layer(g, "time_net", h, o, o->time_layer, AXIS_T);
        parts[i] = residual_layer(g, "band_net", h, o, o->band_layer, AXIS_F);
    }
    saw_scope_end(g);
    x = o->heads > 1 ? saw_concat(g, o->heads, parts) : parts[0];
    if (o->tac)
        x = tac(g, x, o);
    return o->attention_heads ? attention(g, x, o) : x;
}

/* Mask of one stem, x [BC,T,F,D] -> ragged [BC,T,R]. With both channels in one, a band's rows are
 * those of the first channel, values before gates, then those of the second. */
static saw_val mask(saw_graph *g, saw_val x, const bsrnn_options *o, int stem,
                    const int64_t *widths)
{
    int64_t rows[SAW_MAX_BANDS], halves[SAW_MAX_CHANNELS * SAW_MAX_BANDS],
        inner = (int64_t)o->fac_mask * o->dim;
    int channels = o->naive ? o->common.channels : 1;
    for (int b = 0; b < o->bands; b++) {
        rows[b] = 2 * widths[b];
        for (int c = 0; c < channels; c++)
            halves[b * channels + c] = widths[b] / channels;
    }
    saw_norm_form form = {
        .over = SAW_AXIS(AXIS_T) | SAW_AXIS(AXIS_D), .affine = {AXIS_D}, .eps = o->eps};
    saw_scope(g, SAW_SCOPE_CHECKPOINT, "maskers.%d", stem);
    x = nn_band_norm(g, "mask.%d.0", x, o->bands, NULL, &form);
    x = saw_tanh(g, band_convolution(g, "mask.%d.1", x, o->bands, NULL, NULL, inner));
    x = saw_tanh(g, band_convolution(g, "mask.%d.3", x, o->bands, NULL, NULL, inner));
    x = band_convolution(g, "mask.%d.5", x, o->bands, NULL, rows, 0);
    saw_scope_end(g);
    return saw_glu(g, x, o->bands * channels, halves);
}

static void record_stems(saw_graph *g, const bsrnn_options *o, saw_val mix, const saw_stft *plan,
                         int channels, const int32_t *split, const int32_t *join)
{
    int64_t widths[SAW_MAX_BANDS], bins = o->n_fft / 2 + 1, features = 2 * channels * bins;
    int64_t batch = saw_dim(g, mix, 0), samples = saw_dim(g, mix, 2);
    for (int b = 0; b < o->bands; b++)
        widths[b] = 2 * (int64_t)channels * o->band[b].width;
    if (!o->naive)
        mix = saw_reshape(g, mix, SAW_DIMS(batch * o->common.channels, 1, samples)); /* [BC,1,N] */
    saw_val spectrum = saw_tap(g, "stft", saw_stft_op(g, mix, plan)); /* [BC,T,K,1,2] */
    saw_val frame = saw_merge_last(g, saw_merge_last(g, spectrum));   /* [BC,T,2 K] */
    saw_val x = saw_gather(g, frame, split, features);                /* [BC,T,R] */
    saw_norm_form form = {.over = SAW_AXIS(AXIS_T) | SAW_AXIS(2), .affine = {2}, .eps = o->eps};
    x = nn_band_norm(g, "BN.%d.0", x, o->bands, widths, &form);
    x = saw_tap(g, "bandsplit",
                band_convolution(g, "BN.%d.1", x, o->bands, widths, NULL, o->dim)); /* [BC,T,F,D] */
    for (int i = 0; i < o->repeats; i++) {
        char name[32];
        saw_scope(g, SAW_SCOPE_CHECKPOINT, "separator.%d", i);
        x = block(g, x, o);
        saw_scope_end(g);
        snprintf(name, sizeof name, "layer%d", i);
        x = saw_tap(g, name, x);
    }
    saw_val sum = 0; /* of the stems so far */
    for (int s = 0; s < o->common.stems; s++) {
        char name[32];
        saw_val y;
        if (s > 0 && s == o->common.stems - 1 && o->subtract_last) {
            y = saw_add(g, frame, saw_scale(g, sum, -1));
        } else {
            y = saw_cmul(g, frame, saw_gather(g, mask(g, x, o, s, widths), join, features));
            if (o->subtract_last)
                sum = sum ? saw_add(g, sum, y) : y;
        }
        snprintf(name, sizeof name, "est_spec%d", s);
        y = saw_tap(g, name,
                    saw_split_last(g, saw_split_last(g, y, bins), channels)); /* [BC,T,K,1,2] */
        y = saw_istft_op(g, y, plan, samples);
        snprintf(name, sizeof name, "stem%d", s);
        saw_output(g, name, saw_reshape(g, y, SAW_DIMS(batch, o->common.channels, samples)));
    }
}

void bsrnn_record(saw_graph *g, const void *options, saw_val mix)
{
    const bsrnn_options *o = options;
    const saw_stft *plan =
        nn_stft_plan(g, &(saw_stft_options){.n_fft = o->n_fft, .hop = o->hop, .center = true});
    int channels = o->naive ? o->common.channels : 1;
    size_t features = 2 * (size_t)channels * (size_t)(o->n_fft / 2 + 1);
    int32_t *tables = saw_calloc(saw_graph_context(g), 2 * features, sizeof *tables);
    if (!tables)
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for the band tables");
    if (tables && plan) {
        bsrnn_fill_tables(o->band, o->bands, channels, tables, tables + features);
        record_stems(g, o, mix, plan, channels, tables, tables + features);
    }
    saw_free(saw_graph_context(g), tables);
}
