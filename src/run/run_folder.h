/*
 * run_folder.h - the folder of a training run.
 *
 *     recipe.yaml        all keys, paths made absolute
 *     split.json         which songs train and which validate
 *     log.jsonl          a line a record: "start", "step", "valid", "end"
 *     state.safetensors  what the next step depends on
 *     last/ best/ ema/   checkpoints: adapter or model
 *     audio/             excerpts for the report
 *     report.html
 *     lock               held while a process writes here
 *
 * Every file but the log is written beside its place, synced and renamed, so the one before
 * survives a full disk and a kill. Log records go out line by line; a run that is resumed cuts them
 * back to the step it goes on from. Figures that are no numbers are left out of it.
 */
#ifndef SAW_RUN_FOLDER_H
#define SAW_RUN_FOLDER_H

#include "datasets/dataset.h"
#include "nn/optim.h"
#include "run/recipe.h"
#include "run/score.h"

typedef struct saw_run_folder saw_run_folder;

/** Give recipe->output a value where it has none: of a run that is resumed its folder, else the
 * first of run-STEM, run-STEM-2, ... that is free in the working folder. */
saw_status saw_run_folder_choose(saw_recipe *recipe);
/**
 * Make the folder recipe->output of a new run, or with recipe->resume take it up again, and write
 * recipe.yaml. Borrows the recipe. SAW_ERR_IO: there is a run in it already, or none to resume, or
 * another process is at it.
 */
saw_status saw_run_folder_open(saw_context *ctx, const saw_recipe *recipe, saw_run_folder **out);
/** Gives up the lock. NULL is fine. */
void saw_run_folder_close(saw_run_folder *f);
/** Its path. */
const char *saw_run_folder_path(const saw_run_folder *f);
/** Path of something in it, `name` with slashes ("best/model.safetensors"), the folder around which
 * is made when it is missing. Lives as long as f; NULL when that fails. */
const char *saw_run_folder_file(saw_run_folder *f, const char *name);

/** Split the songs as the recipe says; of a run that is resumed as its split.json says, so that
 * songs that were added since are unused. */
saw_status saw_run_split(saw_context *ctx, const saw_recipe *recipe, saw_dataset *d);
/** The same, and write split.json. */
saw_status saw_run_folder_split(saw_run_folder *f, saw_dataset *d);

/** Write state.safetensors from rows of numbers: wide elements first. */
saw_status saw_run_folder_save_state(saw_run_folder *f, const nn_optim_array *arrays, int n);
/** Open it; *out is NULL when nothing was saved yet: the run begins at its beginning. */
saw_status saw_run_folder_load_state(saw_run_folder *f, saw_checkpoint **out);

/* ---- log ------------------------------------------------------------------------------------- */

/** Drop every record of a later step, and a last line that is not whole. */
saw_status saw_run_log_cut(saw_run_folder *f, int64_t step);

typedef struct saw_run_step {
    int64_t step;                        /* steps done */
    double loss, grad_norm, lr, seconds; /* seconds: of the run, all its sessions together */
} saw_run_step;
saw_status saw_run_log_step(saw_run_folder *f, const saw_run_step *s);

typedef struct saw_run_valid {
    int64_t step;
    double sdr_db, forgetting_db; /* NaN: not measured; the latter on the general songs */
    double seconds;               /* as above */
    bool best;                    /* the best figure so far */
    const saw_song_score *songs;
    int n_songs;
    const char *const *outputs; /* names of songs[].sdr_db */
    int n_outputs;
} saw_run_valid;
/** d names the songs. */
saw_status saw_run_log_valid(saw_run_folder *f, const saw_dataset *d, const saw_run_valid *v);

/** "start" or "end" (`type`) with a sentence for people and n named numbers. */
saw_status saw_run_log_event(saw_run_folder *f, const char *type, int64_t step, const char *what,
                             int n, const char *const *names, const double *numbers);

#endif
