/*
 * run_log.h - log.jsonl of a run folder, read for people: curves and scores.
 */
#ifndef SAW_RUN_LOG_H
#define SAW_RUN_LOG_H

#include "base/base.h"

/** A row of numbers against steps. */
typedef struct saw_run_curve {
    double *step, *value; /* value NaN: not there */
    int count, room;
} saw_run_curve;

/** A stem of a song; NaN: not scored. */
typedef struct saw_run_score {
    char *song, *stem;
    double before_db, after_db; /* at step 0, and at the best validation since */
} saw_run_score;

typedef struct saw_run_log {
    saw_context *ctx;
    saw_run_curve loss, lr, grad_norm, sdr, general; /* general: SDR on the general songs */
    saw_run_score *scores;
    int n_scores, scores_room;
    int64_t step, best_step; /* the last one; -1: none is better than the base */
    double seconds;
    double before_db, best_db, general_before_db, general_best_db; /* NaN: not there */
} saw_run_log;

/** Read folder/log.jsonl; lines that are no records are passed over, and a log that is not there
 * is empty. Freed by saw_run_log_free in any case. */
saw_status saw_run_log_read(saw_context *ctx, const char *folder, saw_run_log *out);
void saw_run_log_free(saw_run_log *log);

#endif
