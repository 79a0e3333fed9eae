/*
 * score.h - how well a model separates the songs of a data set: what training is validated with.
 *
 * The model runs as it does in `bandsaw separate`: chunk by chunk, joined by its stitcher. Songs
 * are read, separated and scored in passing, so memory does not grow with their length.
 */
#ifndef SAW_SCORE_H
#define SAW_SCORE_H

#include "datasets/dataset.h"
#include "models/model.h"

typedef struct saw_score_options {
    saw_song_part part;         /* score the songs of this part */
    const char *const *outputs; /* stems of the model; wanted stem i of the data set is the */
    int n_outputs;              /* reference of output i */
    double song_seconds;        /* more than 0: only so much from the middle of a song */
    size_t memory_bytes;        /* limit of a stream's plan; 0: none */
    /** Called after every chunk; a song is done when samples == of. NULL: not. */
    void (*progress)(void *user, int song, int songs, int64_t samples, int64_t of);
    void *user;
} saw_score_options;

typedef struct saw_song_score {
    int song;                     /* number in the data set */
    double sdr_db[SAW_MAX_STEMS]; /* of each output; NaN where the reference is silent */
    double mean_db;               /* of those that are numbers */
} saw_song_score;

/**
 * Score every song of the part: SDR = 10 lg (sum ref^2 / sum (ref - estimate)^2) over all samples
 * and channels of a song, 1e-8 added to both sums as in `evaluate`. The data set must have the
 * model's rate and channels. out[saw_dataset_songs]; *count rows are filled, *mean_db is the mean
 * of their means (NaN: nothing could be scored).
 */
saw_status saw_score_songs(saw_context *ctx, saw_separator *s, const saw_dataset *d,
                           const saw_score_options *options, saw_song_score *out, int *count,
                           double *mean_db);

#endif
