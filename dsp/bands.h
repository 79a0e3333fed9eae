/*
 * bands.h - how band-split models cut the n_fft / 2 + 1 bins of a frame into bands.
 *
 * Bands are written in rising order. SAW_ERR_SHAPE when a band would be empty, when there is no
 * room for them all, or when numbers make no sense.
 */
#ifndef SAW_BANDS_H
#define SAW_BANDS_H

#include "base/base.h"

typedef struct saw_band {
    int first, width; /* bins [first, first + width) */
} saw_band;

/**
 * Mel bands as Mel-Band RoFormer takes them: the bins where librosa's triangular filter (Slaney
 * scale, 0 to rate / 2) is above zero, bin 0 in the first band and the last bin in the last.
 * Neighbours overlap; a bin is in one or two bands. Writes `bands` bands.
 */
saw_status saw_bands_mel(saw_context *ctx, double rate_hz, int n_fft, int bands, saw_band *out);

/**
 * Bandit's "musical" bands: with df = rate / n_fft and r = (n_fft / 2)^(1 / bands), centres at
 * equal steps of pitch from df to rate / 2, each from centre / r to centre * r, rounded outwards.
 * They overlap.
 */
saw_status saw_bands_musical(saw_context *ctx, double rate_hz, int n_fft, int bands, saw_band *out);

/** From the end of the zone before it (0 for the first) up to end_hz, a band every step_hz. */
typedef struct saw_band_zone {
    double end_hz, step_hz;
} saw_band_zone;

/** The implementations of BSRNN read the same zones in three ways. In all of them one last band
 * takes the rest. */
typedef enum saw_zone_rule {
    SAW_ZONES_BELOW,  /* amanteur: a band ends before the first bin whose frequency is not below its
                         edge */
    SAW_ZONES_WIDTHS, /* magronp: every band of a zone has floor(step / rate * 2 * (n_fft / 2 + 1))
                         bins */
    SAW_ZONES_ROUNDED /* Bandit: ends and steps rounded to bins; what is left of a zone is a band */
} saw_zone_rule;
/** Writes at most `room` bands, and their number to *count. */
saw_status saw_bands_zones(saw_context *ctx, saw_zone_rule rule, double rate_hz, int n_fft,
                           const saw_band_zone *zones, int zone_count, saw_band *out, int room,
                           int *count);

#endif
