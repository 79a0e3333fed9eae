/*
 * bsrnn_amanteur.c - Band-Split RNN (Luo and Yu, arXiv 2209.15174) in the layout of
 * github.com/amanteur/BandSplitRNN-PyTorch and its fork by crlandsc.
 *
 * B batch, C audio channels, N samples, T frames, K bins, F bands, R features of all bands of a
 * frame (those of a band: channel, re/im, bin), D width, H hidden units.
 *
 * The whole spectrum is first brought to mean 0 and deviation 1. Every band is normalised over all
 * its features and frames with a weight for each of them, so that the number of frames is fixed,
 * and becomes a vector of D numbers. Blocks of two residual recurrent layers follow, along time and
 * along bands. A small network a band gives a complex mask, and the masked spectrum gets the mean
 * and the deviation back.
 */
#include "models/bsrnn.h"
#include "nn/recurrent.h"

enum { AXIS_T = 1, AXIS_F = 2, AXIS_D = 3 };
static const double NORM_EPS = 1e-5;

/* x + fc(rnn(norm(x))) along one axis; every feature is normalised by itself over the sequence. */
static saw_val residual_layer(saw_graph *g, saw_val x, const bsrnn_amanteur_options *o, int axis)
{
    saw_norm_form form = {.over = SAW_AXIS(axis), .affine = {AXIS_D}, .eps = NORM_EPS};
    saw_val h = nn_norm(g, "groupnorm", x, &form);
    h = nn_rnn(g, "rnn", h, o->rnn, axis, o->hidden, o->bidirectional, false);
    return saw_add(g, x, nn_insert(g, "fc", nn_linear(g, "fc", h, o->dim, true)));
}

/* x [B,T,F,D] -> the same. */
static saw_val trunk(saw_graph *g, saw_val x, const bsrnn_amanteur_options *o)
{
    static const char *const names[] = {"time", "band"};
    for (int i = 0; i < 2 * o->layers; i++) {
        char name[32];
        saw_scope(g, SAW_SCOPE_CHECKPOINT, "bandsequence.bsrnn.%d.%d", i / 2, i % 2);
        x = residual_layer(g, x, o, i % 2 ? AXIS_F : AXIS_T);
        saw_scope_end(g);
        snprintf(name, sizeof name, "layer%d.%s", i / 2, names[i % 2]);
        x = saw_tap(g, name, x);
    }
    return x;
}

/* x [B,T,F,D] -> the ragged mask [B,T,R]. */
static saw_val mask(saw_graph *g, saw_val x, const bsrnn_amanteur_options *o, const int64_t *widths)
{
    int64_t twice[SAW_MAX_BANDS];
    for (int b = 0; b < o->bands; b++)
        twice[b] = 2 * widths[b];
    saw_norm_form form = {
        .over = SAW_AXIS(AXIS_T) | SAW_AXIS(AXIS_D), .affine = {AXIS_T, AXIS_D}, .eps = NORM_EPS};
    saw_scope(g, SAW_SCOPE_CHECKPOINT, "maskest");
    x = nn_band_norm(g, "layernorms.%d", x, o->bands, NULL, &form);
    x = saw_tanh(g, nn_band_linear(g, "mlp.%d.mlp.0", x, o->bands, NULL, NULL, o->mask_dim));
    x = nn_band_linear(g, "mlp.%d.mlp.2", x, o->bands, NULL, widths, 0);
    x = saw_glu(g, nn_band_linear(g, "mlp.%d.mlp.3.linear", x, o->bands, widths, twice, 0),
                o->bands, widths);
    saw_scope_end(g);
    return o->raw_mask ? saw_band_reinterpret(g, x, o->bands, widths) : x;
}

static void record_tables(saw_graph *g, const bsrnn_amanteur_options *o, saw_val mix,
                          const saw_stft *plan, const int32_t *split, const int32_t *join)
{
    int64_t widths[SAW_MAX_BANDS], bins = o->n_fft / 2 + 1, channels = o->common.channels,
                                   features = 2 * channels * bins;
    for (int b = 0; b < o->bands; b++)
        widths[b] = 2 * channels * o->band[b].width;
    saw_val statistics, spectrum = saw_tap(g, "stft", saw_stft_op(g, mix, plan)); /* [B,T,K,C,2] */
    spectrum = saw_standardize(g, spectrum, 2, NORM_EPS, &statistics);
    saw_val frame = saw_merge_last(g, saw_merge_last(g, spectrum)); /* [B,T,2 K C] */
    saw_val x = saw_gather(g, frame, split, features);              /* [B,T,R] */
    saw_norm_form form = {
        .over = SAW_AXIS(AXIS_T) | SAW_AXIS(2), .affine = {2, AXIS_T}, .eps = NORM_EPS};
    x = nn_band_norm(g, "bandsplit.layernorms.%d", x, o->bands, widths, &form);
    x = nn_band_linear(g, "bandsplit.fcs.%d", x, o->bands, widths, NULL, o->dim); /* [B,T,F,D] */
    x = trunk(g, saw_tap(g, "bandsplit", x), o);
    x = saw_gather(g, mask(g, x, o, widths), join, features);
    x = saw_tap(g, "mask",
                saw_split_last(g, saw_split_last(g, x, bins), channels)); /* [B,T,K,C,2] */
    saw_val y = saw_cmul(g, frame, saw_merge_last(g, saw_merge_last(g, x)));
    y = saw_restore(g, y, statistics);
    y = saw_tap(g, "est_spec", saw_split_last(g, saw_split_last(g, y, bins), channels));
    saw_output(g, "stem0",
               saw_istft_op(g, y, plan, o->hop * (saw_dim(g, y, AXIS_T) - 1))); /* [B,C,N] */
}

void bsrnn_amanteur_record(saw_graph *g, const void *options, saw_val mix)
{
    const bsrnn_amanteur_options *o = options;
    const saw_stft *plan = nn_stft_plan(
        g, &(saw_stft_options){
               .n_fft = o->n_fft, .hop = o->hop, .win_length = o->win, .center = true});
    size_t features = 2 * (size_t)o->common.channels * (size_t)(o->n_fft / 2 + 1);
    int32_t *tables = saw_calloc(saw_graph_context(g), 2 * features, sizeof *tables);
    if (!tables)
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for the band tables");
    if (tables && plan) {
        bsrnn_fill_tables(o->band, o->bands, o->common.channels, tables, tables + features);
        record_tables(g, o, mix, plan, tables, tables + features);
    }
    saw_free(saw_graph_context(g), tables);
}
