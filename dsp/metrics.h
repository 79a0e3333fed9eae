/*
 * metrics.h - signal-to-distortion ratios in dB, from sums that can be gathered piece by piece.
 *
 *     SDR    = 10 log10( sum r^2 / sum (r - e)^2 )                          of reference r and
 * estimate e SI-SDR = 10 log10( sum (a r)^2 / sum (a r - e)^2 ),  a = <r,e> / <r,r>
 *
 * Sums run over all samples and channels that were added; with one channel the first is the SNR. No
 * mean is removed.
 */
#ifndef SAW_METRICS_H
#define SAW_METRICS_H

#include <stdint.h>

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

#endif
