/*
 * trainer.h - training as a recipe says it: a model with its loss as one program, batches from a
 * data set, an optimizer, validation by separating songs, and a run folder from which it goes on.
 *
 * Everything a step depends on is the recipe, the run's state and the step's number, so a run that
 * was interrupted and resumed is, to the bit, the run that was not.
 */
#ifndef SAW_TRAINER_H
#define SAW_TRAINER_H

#include "run/recipe.h"
#include "run/score.h"

/** What is known before the first step. Strings borrow from the trainer. */
typedef struct saw_train_plan {
    int64_t parameters, trainable; /* numbers in the model and its adapter; of them trained */
    int tensors;                   /* that train */
    size_t memory_bytes;           /* planned: the program, weights, optimizer, data */
    size_t memory_limit;           /* 0: none */
    const char *checkpointing;     /* "none", "plain", "nested" */
    double flops_per_step, seconds_per_step; /* the latter from the machine's peak: a lower bound */
    int64_t chunk_samples, steps;
    int batch, accumulate, rate_hz;
    int train_songs, valid_songs;
} saw_train_plan;

typedef struct saw_train_progress {
    int64_t step, steps; /* done, of */
    double loss;         /* of the last step */
    double grad_norm, lr, seconds_left, steps_per_s;
    bool validated;                           /* the figures below are new */
    double sdr_db, best_sdr_db, base_sdr_db;  /* NaN: not measured */
    double forgetting_db, base_forgetting_db; /* SDR on the general songs */
    const char *doing; /* NULL, or what takes time beside steps: "validating song 2 of 3" */
    double share;      /* of that, done */
} saw_train_progress;

typedef struct saw_trainer saw_trainer;

/** Open everything, plan the memory and choose the checkpointing that fits it; no step is done and
 * nothing is written yet. Borrows the recipe. */
saw_status saw_trainer_open(saw_context *ctx, saw_recipe *recipe, saw_trainer **out);
const saw_train_plan *saw_trainer_plan(const saw_trainer *t);
/**
 * Train to the last step, early stop or cancel. The run folder is written as the recipe says; on
 * SAW_ERR_CANCELLED the present state has been saved. progress may be NULL.
 */
saw_status saw_trainer_run(saw_trainer *t,
                           void (*progress)(void *user, const saw_train_progress *p), void *user);
void saw_trainer_close(saw_trainer *t);

#endif
