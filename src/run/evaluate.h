/*
 * evaluate.h - how good the estimates in one folder are, held against the references in another.
 *
 * A folder with audio files is a song, its files are stems; songs may lie at any depth below the
 * two folders. The estimate of REFERENCE/song/vocals.wav is ESTIMATE/song/vocals.wav, or .flac,
 * .ogg,
 * ... What the measures are: dsp/metrics.h, dsp/bss_eval.h and docs/evaluation.md.
 *
 * BSSEval (chunk SDR, ISR, SIR, SAR: medians over windows of one second) takes all stems of a song
 * together. A silent reference or estimate has no ratios, and is left out of the others' set. A sum
 * is scored in a set of its own, with the stems that are neither its parts nor sums.
 */
#ifndef SAW_EVALUATE_H
#define SAW_EVALUATE_H

#include "base/base.h"

typedef enum saw_metric {
    SAW_METRIC_SDR, /* with 1e-8 added to both energies */
    SAW_METRIC_CHUNK_SDR,
    SAW_METRIC_ISR,
    SAW_METRIC_SIR,
    SAW_METRIC_SAR,
    SAW_METRIC_SI_SDR,
    SAW_METRIC_SNR, /* mean of the channels; the last ratio */
    SAW_METRIC_L1_FREQ,
    SAW_METRIC_BLEEDLESS,
    SAW_METRIC_FULLNESS,
    SAW_METRIC_COUNT
} saw_metric;
/** "sdr", "chunk_sdr", ...: for flags and columns. */
const char *saw_metric_name(saw_metric metric);
enum { SAW_METRIC_ALL = (1 << SAW_METRIC_COUNT) - 1 };

typedef struct saw_evaluation_options {
    const char *reference, *estimate; /* folders */
    const char *const *sums; /* "name=a+b+c": where there is no file `name`, the sum of these */
    int n_sums;
    unsigned metrics; /* bits 1 << saw_metric */
    /** Called as steps of a song are done. */
    void (*progress)(void *user, int song, int done, int steps);
    void *user;
} saw_evaluation_options;

typedef struct saw_stem_scores {
    const char *song, *stem;
    double score[SAW_METRIC_COUNT]; /* NaN: not defined, or not wanted; may be infinite */
    bool silent_reference, silent_estimate;
    int windows, windows_scored; /* of BSSEval */
} saw_stem_scores;

typedef struct saw_evaluation saw_evaluation;

/**
 * Find the pairs; nothing is read yet. What has no partner is logged as a warning, a sentence each,
 * and counted as a problem; but files called mixture are no stems, and skipped. SAW_ERR_ARGUMENT: a
 * sum that makes no sense; SAW_ERR_IO: a folder without audio, or no pair at all.
 */
saw_status saw_evaluation_open(saw_context *ctx, const saw_evaluation_options *options,
                               saw_evaluation **out);
void saw_evaluation_close(saw_evaluation *v);
int saw_evaluation_songs(const saw_evaluation *v);
const char *saw_evaluation_song(const saw_evaluation *v, int song);
int saw_evaluation_problems(const saw_evaluation *v);

/**
 * Read and score a song, all its stems being in memory as float meanwhile: *count rows, which live
 * as long as the evaluation. A stem whose files cannot be read, or do not fit each other or the
 * song's other stems in rate, channels or length, is a problem: it is logged, and left out.
 */
saw_status saw_evaluation_run(saw_evaluation *v, int song, const saw_stem_scores **rows,
                              int *count);

/** Names of the stems that were scored so far, in order of appearance; NULL behind the last. */
const char *saw_evaluation_stem(const saw_evaluation *v, int i);

typedef struct saw_score_summary {
    double mean, median; /* of the scores that count; NaN when there are none */
    int counted, rows;
} saw_score_summary;
/** Over all songs that were run, of one stem or, with NULL, of all. What is not finite does not
 * count, nor does a ratio (sdr to snr) to a silent reference: with the epsilon of sdr it is finite,
 * but says nothing. */
saw_status saw_evaluation_summary(const saw_evaluation *v, const char *stem, saw_metric metric,
                                  saw_score_summary *out);

#endif
