/*
 * bss_eval.h - BSSEval version 4: an estimate of a source image is what the true image is, plus
 * three errors.
 *
 * E. Vincent, R. Gribonval, C. Fevotte, Performance measurement in blind audio source separation,
 * IEEE TASLP 14(4), 2006; E. Vincent et al., First stereo audio source separation evaluation
 * campaign, ICA 2007; F.-R. Stoter, A. Liutkus, N. Ito, The 2018 signal separation evaluation
 * campaign, LVA/ICA 2018 (version 4: one filter for the whole signal).
 *
 * With s the reference of a source (all channels), e its estimate, P the projection of e on all
 * delays 0 .. taps-1 of the channels of s, and Q that on the delays of the channels of all
 * references, both fitted on the whole signals and applied to each window alone:
 *
 *     SDR = |s|^2 / |e - s|^2     all errors          ISR = |s|^2 / |P - s|^2     wrong filter
 *     SIR = |P|^2 / |Q - P|^2     other sources       SAR = |Q|^2 / |e - Q|^2     artefacts
 *
 * each as 10 log10, energies over a window and all channels, the filters' tails included. A window
 * where a reference or an estimate of any source is silent (the sum of its channels is 0 in every
 * sample) has no ratios: NaN for every source.
 */
#ifndef SAW_BSS_EVAL_H
#define SAW_BSS_EVAL_H

#include "base/base.h"

enum { SAW_BSS_TAPS = 512 };

typedef struct saw_bss_input {
    int sources, channels; /* of every source */
    int64_t samples;
    int window_samples; /* also the hop; one second is usual */
    int taps; /* SAW_BSS_TAPS; 0: SDR only, which needs no filters, and the others are NaN */
    const float *const *reference, *const *estimate; /* [sources * channels] of [samples] */
} saw_bss_input;

typedef struct saw_bss_ratios {
    double sdr_db, isr_db, sir_db, sar_db; /* infinity where the error is exactly 0 */
} saw_bss_ratios;

/** Windows of so many samples: whole ones only, but one when there are fewer samples. */
int64_t saw_bss_windows(int64_t samples, int window_samples);
/** Is the sum of the channels 0 in every sample? */
bool saw_bss_silent(const float *const *channel, int channels, int64_t samples);
/**
 * Write out[source * windows + window]. The bits do not depend on the number of threads.
 * Memory: with m = sources * channels about 4 (m taps)^2 + 8 m^2 (window + taps) bytes. A source
 * that is silent all through is SAW_ERR_ARGUMENT with its number. Where references are copies or
 * filterings of each other (mono in two channels) the filters are the shortest ones, as far as
 * double precision tells.
 */
saw_status saw_bss_eval(saw_context *ctx, const saw_bss_input *in, saw_bss_ratios *out);

/** Median of the values that are not NaN; NaN when there are none. Sorts the values. */
double saw_median(double *values, int64_t n);

#endif
