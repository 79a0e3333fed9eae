/*
 * merge.h - adapters folded into plain checkpoints, and checkpoints averaged; tensor by tensor, so
 * that memory does not grow with the model.
 */
#ifndef SAW_MERGE_H
#define SAW_MERGE_H

#include "base/base.h"

typedef struct saw_merge_options {
    const char *model;         /* the base; NULL: the first of the others */
    const char *config;        /* of the base; NULL: found beside it */
    const char *adapter;       /* folded into the base; or NULL */
    const char *const *others; /* checkpoints of the same tensors, whose mean is taken */
    int n_others;
    /* Share of the way from the base to what would come out else (Wortsman et al., arXiv
     * 2109.01903): 1 all of it, 0 the base. With several values and a folder of songs, the one
     * whose separations have the highest SDR is written. */
    const double *alphas;
    int n_alphas;
    const char *data; /* songs to choose by; NULL with one alpha */
    const char *output;
    /** Called when a share has been scored. NULL: not. */
    void (*scored)(void *user, double alpha, double sdr_db);
    void *user;
} saw_merge_options;

typedef struct saw_merge_report {
    int tensors, changed; /* in the file; of them not those of the base */
    double alpha, sdr_db; /* what was chosen; NaN: nothing was scored */
} saw_merge_report;

/** The file appears only when it is whole. SAW_ERR_SHAPE: an adapter or a checkpoint of another
 * model; SAW_ERR_UNSUPPORTED: an adapter that cannot be merged. */
saw_status saw_merge(saw_context *ctx, const saw_merge_options *options, saw_merge_report *report);

#endif
