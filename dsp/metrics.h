/*
 * metrics.h - how near an estimate e is to a reference r: ratios in dB from sums that can be
 * gathered piece by piece, and scores of magnitude spectra.
 *
 *     SDR    = 10 log10( sum r^2 / sum (r - e)^2 )
 *     SI-SDR = 10 log10( sum (a r)^2 / sum (a r - e)^2 ),  a = <r,e> / <r,r>
 *
 * Sums run over all samples and channels that were added; with one channel the first is the SNR. No
 * mean is removed. The scores lie between 0 and 100, 100 for equal signals; they are those of the
 * tool Music-Source-Separation-Training (MSST, utils/metrics.py).
 */
#ifndef SAW_METRICS_H
#define SAW_METRICS_H

#include "base/base.h"

/** Zero-initialise. */
typedef struct saw_sdr_sums {
    double reference, estimate, product, error; /* r^2, e^2, r e, (r - e)^2 */
} saw_sdr_sums;

void saw_sdr_add(saw_sdr_sums *s, const float *reference, const float *estimate, int64_t n);
/** epsilon is added to both sums: 0 for the plain SDR, 1e-8 for that of MSST. A silent reference
 * with epsilon 0 gives -infinity; equal signals give infinity. */
double saw_sdr_db(const saw_sdr_sums *s, double epsilon);
/** NaN when reference or estimate is silent. Sums are good to about 1e-13, hence 60 dB to 1e-6 dB
 * and 100 dB to 0.01 dB. */
double saw_si_sdr_db(const saw_sdr_sums *s);

/** The signals that a score compares: planar, [channels][samples]. */
typedef struct saw_signals {
    const float *const *reference, *const *estimate;
    int channels;
    int64_t samples;
} saw_signals;

/**
 * 100 / (1 + 10 mean | |E| - |R| |) over channels, bins and frames of an STFT with n_fft 2048, hop
 * 1024, centred with reflection, without window and normalisation. SAW_ERR_SHAPE: not more than
 * 1024 samples.
 */
saw_status saw_l1_freq(saw_context *ctx, const saw_signals *s, double *score);
/**
 * With d the difference, estimate less reference, of mel spectrograms in dB: bleedless
 * 100 / (1 + mean of d > 0) is lowered by what was added, fullness 100 / (1 - mean of d < 0) by
 * what is missing. A mean over nothing is 0.
 *
 * STFT with n_fft 4096, hop 1024, Hann, centred with zeros; magnitudes in 512 mel bands (Slaney's
 * scale and area norm, bins as at 44.1 kHz whatever the rate: so does the tool); 20 log10, not
 * below -200, and not below the largest value of the signal, over all its channels and frames,
 * less 80.
 */
saw_status saw_bleed_full(saw_context *ctx, const saw_signals *s, double *bleedless,
                          double *fullness);
/* The bits of both do not depend on the number of threads. */

#endif
