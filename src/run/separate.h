/*
 * separate.h - one audio file in, its stems out: read, resample to the model's rate, separate,
 * resample back, write.
 *
 * A job is prepared once (models opened) and run for any number of files. Memory does not depend on
 * a file's length, but for `whole`. Outputs have the file's rate, channels and length. Every model
 * of an ensemble, every group of channels (audio.h) and every pass of test-time augmentation is a
 * stream of its own; all are fed in lockstep.
 *
 * The residual is taken at the file's own rate: mix - sum of the chosen stems, as they are written
 * as float.
 */
#ifndef SAW_SEPARATE_H
#define SAW_SEPARATE_H

#include "io/audio.h"
#include "run/ensemble.h"

typedef struct saw_job_options {
    const char *const *models, *const
                                   *configs; /* configs: NULL, or one a model, each may be NULL */
    int n_models;
    const char *const *settings; /* "key=value" that go before every model's configuration */
    int n_settings;
    const char *adapter;     /* of the only model; NULL: none */
    double adapter_strength; /* 0: 1 */
    saw_precision precision;
    const char *device;
    saw_ensemble_kind ensemble; /* of two models or more */
    const double *weights;      /* one a model; NULL: equal */
    const char *const *stems;   /* NULL: all that every model has */
    int n_stems;
    const char *residual; /* name of the output mix - stems; NULL: none */
    bool whole;           /* one forward over the whole input */
    double chunk_s;       /* 0: the model's */
    int overlap, batch;   /* 0: the model's, 1 */
    const char *stitch;   /* how chunks are joined; NULL: the model's */
    bool tta; /* mean of the mix as it is, with channels swapped (stereo models), and with its sign
                 turned */
    double start_s, duration_s; /* duration 0: to the end */
    saw_audio_format format;
    size_t memory_bytes; /* limit of all streams together; 0: none */
    /** Called after every block: input samples done, of total (-1: unknown). */
    void (*progress)(void *user, int64_t done, int64_t total, int rate_hz);
    void *user;
} saw_job_options;

enum { SAW_JOB_OUTPUTS = 33 };

typedef struct saw_job_report {
    int rate_hz, channels; /* of the input */
    int64_t frames;
    double seconds;                            /* that it took */
    size_t memory_bytes;                       /* planned for streams */
    saw_audio_report outputs[SAW_JOB_OUTPUTS]; /* in the order of the outputs */
} saw_job_report;

typedef struct saw_job saw_job;

/** Open the models. The options are copied; what they point to must live as long as the job. */
saw_status saw_job_open(saw_context *ctx, const saw_job_options *options, saw_job **out);
void saw_job_close(saw_job *job);

/** Names of what is written: the stems in the order asked for, then the residual. */
int saw_job_outputs(const saw_job *job);
const char *saw_job_output(const saw_job *job, int i);
const saw_separator_info *saw_job_model(const saw_job *job, int i);

/**
 * Separate `input` ("-": standard input) into paths[output] ("-": standard output). After a failure
 * none of the paths holds anything new. report may be NULL.
 */
saw_status saw_job_run(saw_job *job, const char *input, const char *const *paths,
                       saw_job_report *report);

#endif
