/*
 * bsrnn.h - options of the BSRNN implementations.
 */
#ifndef SAW_BSRNN_H
#define SAW_BSRNN_H

#include "dsp/bands.h"
#include "kernels/ops.h"
#include "models/model.h"

enum { BSRNN_MAX_PARTS = 64 }; /* heads of the trunk, heads of the attention */

/** magronp/bsrnn. */
typedef struct bsrnn_options {
    saw_model_common common;
    int n_fft, hop;
    int dim, repeats, fac_sep,
        fac_mask;      /* width; hidden units and mask network as multiples of it */
    int heads, groups; /* parts that the trunk runs apart; groups of its norms, 0: by width */
    int attention_heads, attention_dim;
    int fac_tac;
    saw_rnn_kind time_layer, band_layer;
    bool bidirectional, joint_bands, subtract_last;
    bool naive, tac,
        tac_prelu;    /* both channels in one; transform-average-concatenate, with PReLU or tanh */
    int mask_context; /* frames on each side that a mask is summed over: only 0 */
    double eps;
    int bands;
    saw_band band[SAW_MAX_BANDS]; /* derived, in bins */
} bsrnn_options;

/** amanteur/BandSplitRNN-PyTorch and its fork by crlandsc. */
typedef struct bsrnn_amanteur_options {
    saw_model_common common;
    int n_fft, hop, win;
    int frames; /* that the weights are made for */
    int dim, hidden, layers, mask_dim;
    saw_rnn_kind rnn;
    bool bidirectional, mono, return_mask, complex_as_channel;
    bool raw_mask; /* crlandsc: the mask network's [T, rows] are read as [rows, T] */
    int bands;
    saw_band band[SAW_MAX_BANDS]; /* derived, in bins */
} bsrnn_amanteur_options;

/** For every feature of the ragged bands, whose rows are (channel, re/im, bin): its number in a
 * frame [K,C,2] (split), and the inverse (join). 2 * channels * bins numbers each. */
static inline void bsrnn_fill_tables(const saw_band *band, int bands, int channels, int32_t *split,
                                     int32_t *join)
{
    int32_t r = 0;
    for (int b = 0; b < bands; b++)
        for (int c = 0; c < channels; c++)
            for (int ri = 0; ri < 2; ri++)
                for (int k = band[b].first; k < band[b].first + band[b].width; k++) {
                    split[r] = (k * channels + c) * 2 + ri;
                    join[split[r]] = r;
                    r++;
                }
}

void bsrnn_record(saw_graph *g, const void *options, saw_val mix);
void bsrnn_amanteur_record(saw_graph *g, const void *options, saw_val mix);

#endif
