/*
 * roformer.h - options of the two RoFormer families.
 */
#ifndef SAW_ROFORMER_H
#define SAW_ROFORMER_H

#include "dsp/bands.h"
#include "models/model.h"

typedef struct roformer_options {
    saw_model_common common;
    bool mel; /* Mel-Band RoFormer */
    int dim, depth, time_depth, freq_depth, linear_depth;
    int dim_head, heads;
    int n_fft, hop, win;
    int mask_depth, mlp_expansion;
    int mel_rate_hz; /* that the mel bands are made for */
    bool stereo, stft_normalized, zero_dc, skip, pope, match_length;
    bool qkv_bias, out_bias; /* the checkpoint has them ("shared bias") */
    int module_shift;        /* 1: the first module of a block is left out of the numbers' start */
    int bands;
    int64_t freqs_per_bands[SAW_MAX_BANDS]; /* BS: widths in bins */
    saw_band band[SAW_MAX_BANDS];           /* derived, in bins */
} roformer_options;

void roformer_record(saw_graph *g, const void *options, saw_val mix);

#endif
