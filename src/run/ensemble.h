/*
 * ensemble.h - several models' estimates of one stem become one.
 *
 * "_wave" kinds work sample by sample, "_mag" kinds on the magnitudes of a spectrogram (Hann window
 * of 2048, hop 512); their phase is that of the (weighted) mean of the waveforms. min and max take
 * the value of the smallest and largest magnitude; the median of an even number is the mean of the
 * two in the middle. Weights belong to the means only.
 *
 * Everything is local: n samples of the result need n + 2 * context samples of the estimates, so
 * that it streams.
 */
#ifndef SAW_ENSEMBLE_H
#define SAW_ENSEMBLE_H

#include "base/base.h"

typedef enum saw_ensemble_kind {
    SAW_MEAN_WAVE,
    SAW_MEDIAN_WAVE,
    SAW_MIN_WAVE,
    SAW_MAX_WAVE,
    SAW_MEAN_MAG,
    SAW_MEDIAN_MAG,
    SAW_MIN_MAG,
    SAW_MAX_MAG
} saw_ensemble_kind;

/** "mean_wave|median_wave|...", for help and parsing. */
#define SAW_ENSEMBLE_KINDS                                                                         \
    "mean_wave|median_wave|min_wave|max_wave|mean_mag|median_mag|min_mag|max_mag"
bool saw_ensemble_kind_parse(const char *name, saw_ensemble_kind *out);
static inline bool saw_ensemble_is_mean(saw_ensemble_kind kind)
{
    return kind == SAW_MEAN_WAVE || kind == SAW_MEAN_MAG;
}

enum { SAW_ENSEMBLE_BLOCK = 16384, SAW_ENSEMBLE_MODELS = 16 };

typedef struct saw_ensemble saw_ensemble;
/** weights: one a model, not negative, not all 0; NULL: equal. */
saw_status saw_ensemble_open(saw_context *ctx, saw_ensemble_kind kind, int models,
                             const double *weights, saw_ensemble **out);
void saw_ensemble_close(saw_ensemble *e);

/** Samples that are needed before and behind the block: 0 for waveforms. */
int64_t saw_ensemble_context(const saw_ensemble *e);
/**
 * One channel: out[0 .. SAW_ENSEMBLE_BLOCK) from in[model], each SAW_ENSEMBLE_BLOCK + 2 context
 * samples that begin `context` before out[0]. Blocks start at multiples of SAW_ENSEMBLE_BLOCK;
 * outside the signal there is silence. Allocates nothing.
 */
void saw_ensemble_run(saw_ensemble *e, const float *const *in, float *out);

#endif
