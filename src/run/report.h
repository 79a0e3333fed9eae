/*
 * report.h - report.html of a run folder: one file with everything in it, that needs no network.
 *
 * Curves of SDR, loss and learning rate; scores of every song before and after; spectrograms and
 * players of the songs that gained most and least; the split and the recipe. It is made from what
 * lies in the folder (log.jsonl, recipe.yaml, split.json, audio/), at any time of the run.
 */
#ifndef SAW_REPORT_H
#define SAW_REPORT_H

#include "datasets/dataset.h"

/** Write folder/report.html. SAW_ERR_IO when there is no run in the folder. */
saw_status saw_report_write(saw_context *ctx, const char *folder);

typedef struct saw_excerpt_options {
    const char *const *outputs;    /* stems of the models; wanted stem i of the data set is the */
    int n_outputs;                 /* reference of output i */
    saw_separator *before, *after; /* the base, NULL: none; and what was trained */
} saw_excerpt_options;

/**
 * Write what the report lets people hear: of the validation songs that gained most and least by the
 * log, the loudest eight seconds of the stems, as they are and as both models give them, and of the
 * mixture, as Ogg in folder/audio. Nothing when the log has no figures yet.
 */
saw_status saw_report_excerpts(saw_context *ctx, const char *folder, const saw_dataset *d,
                               const saw_excerpt_options *options);

#endif
