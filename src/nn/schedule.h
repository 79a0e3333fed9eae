/*
 * schedule.h - the learning rate of a step: a pure function of the step and of what validation
 * said.
 *
 * Every schedule begins with the same warm-up, lr (t + 1) / warmup_steps in steps t <
 * warmup_steps. After it, with x = the share of the rest of total_steps that is done (1 beyond the
 * end):
 *
 *     constant   lr
 *     linear     lr (1 - (1 - floor) x)
 *     cosine     lr (floor + (1 - floor) (1 + cos(pi x)) / 2)
 *     plateau    lr s; s starts at 1 and is multiplied by `factor`, not below floor, whenever the
 *                validation figure was no better than its best for more than `patience` times
 */
#ifndef SAW_NN_SCHEDULE_H
#define SAW_NN_SCHEDULE_H

#include "base/base.h"

typedef struct nn_schedule {
    const char *name; /* a row of the table above; NULL: "constant" */
    double lr;
    int64_t warmup_steps; /* 0: none */
    int64_t total_steps;  /* linear, cosine: with the warm-up */
    double floor;         /* share of lr that is left at the end */
    double factor;        /* plateau */
    int patience;         /* plateau: validations */
} nn_schedule;

/** What validation said so far; zeroed by nn_plateau_start. */
typedef struct nn_plateau {
    double best, scale;
    int64_t bad; /* validations in a row that were no better */
} nn_plateau;

/** SAW_ERR_ARGUMENT, with a sentence, for an unknown name or numbers that make no sense. */
saw_status nn_schedule_check(saw_context *ctx, const nn_schedule *s);
nn_plateau nn_plateau_start(void);
/** Learning rate of step t = 0, 1, ... of a schedule that passed the check. */
double nn_schedule_lr(const nn_schedule *s, const nn_plateau *p, int64_t t);
/** Tell a validation figure, larger is better (SDR in dB); one that is not a number is no better.
 */
void nn_schedule_validated(const nn_schedule *s, nn_plateau *p, double figure);

#endif
