/*
 * optim.h - optimizers: what a step does to a flat float32 buffer of trainables, given their
 * gradients.
 *
 * A step is: the L2 norm of scale * gradients (double, sums in a fixed order) -> learning rate of
 * the schedule -> clip -> the optimizer's own rule -> EMA. The buffers are worked on in slices that
 * do not depend on the number of threads, and so neither does a bit of the result. Gradients that
 * are not finite change nothing but the step's number. All memory is taken at open.
 *
 * The optimizers are rows of a table (optim.def), one file each.
 */
#ifndef SAW_NN_OPTIM_H
#define SAW_NN_OPTIM_H

#include "core/program.h"
#include "io/checkpoint.h"
#include "nn/schedule.h"

typedef struct nn_optim nn_optim;

/* ---- options --------------------------------------------------------------------------------- */

typedef enum nn_clip {
    NN_CLIP_NONE,
    NN_CLIP_GLOBAL, /* all gradients times min(1, clip_norm / (their norm + 1e-6)) */
    NN_CLIP_TENSOR  /* the same for every trainable by its own norm */
} nn_clip;

typedef struct nn_optim_options {
    const char *name;         /* row of the table: "adamw" */
    nn_schedule schedule;     /* with the learning rate */
    double weight_decay;      /* of ranges without a group of their own */
    double beta1, beta2, eps; /* all but sgd; muon: of what is no matrix */
    double momentum;          /* sgd, muon */
    bool nesterov;            /* sgd, muon */
    bool conv_matrices;       /* muon: a weight [out, ...] of three axes or more is a matrix too */
    double d0, growth;        /* prodigy: first estimate; most that it grows by in a step */
    nn_clip clip;
    double clip_norm;
    double ema_decay; /* e += (1 - ema_decay) (p - e) after every step; 0: no EMA */
    bool ema_warmup;  /* with min(ema_decay, (1 + t) / (10 + t)) in step t = 1, 2, ... */
} nn_optim_options;

/** The defaults of a row, to be changed from there: no clip, no EMA, constant learning rate.
 * SAW_ERR_ARGUMENT, with the known names, when there is no such row. */
saw_status nn_optim_defaults(saw_context *ctx, const char *name, nn_optim_options *out);
/** Name of row i; NULL after the last. */
const char *nn_optim_name(int i);

/** How one trainable is treated. */
typedef struct nn_param_group {
    float lr_factor, weight_decay;
} nn_param_group;

/** The first rule whose glob matches a trainable's name counts. */
typedef struct nn_param_rule {
    const char *glob;
    float lr_factor;    /* times the other factors */
    float weight_decay; /* negative: as without the rule */
} nn_param_rule;

typedef struct nn_param_options {
    float weight_decay;
    bool decay_matrices_only; /* biases and norms (one axis or none) do not decay */
    /* Layer-wise decay: of L layers, what belongs to layer l learns at layer_decay^(L - 1 - l); the
     * layer is the number after layer_marker in the name. What was recorded before the first layer
     * is layer -1, what comes after one without having a number is layer L - 1. */
    float layer_decay;        /* 0 or 1: none */
    const char *layer_marker; /* NULL: "layers." */
    float lora_plus_ratio;    /* LoRA+: B and vectors learn at so many times the rate of A; 0 or 1:
                                 none */
    const nn_param_rule *rules;
    int n_rules;
} nn_param_options;

/** Fill out[n], one group a range. */
void nn_param_groups(const nn_param_options *options, int n, const saw_range *ranges,
                     nn_param_group *out);

/* ---- optimizer ------------------------------------------------------------------------------- */

/** Open for n ranges of flat buffers; groups NULL: factor 1 and the options' weight decay. params
 * are the values to start from. Borrows the ranges' names and the strings of the options; copies
 * the rest. */
saw_status nn_optim_open(saw_context *ctx, const nn_optim_options *options, int n,
                         const saw_range *ranges, const nn_param_group *groups, const float *params,
                         nn_optim **out);
void nn_optim_close(nn_optim *o);
/** Bytes that nn_optim_open takes for these options and ranges; 0 for an unknown name. */
size_t nn_optim_bytes(saw_context *ctx, const nn_optim_options *options, int n,
                      const saw_range *ranges);

typedef struct nn_optim_report {
    double lr;         /* learning rate of this step (of prodigy: times its estimate) */
    double norm;       /* L2 norm of scale * gradients, before the clip */
    const char *where; /* NULL, or the first trainable whose gradient was not finite: the step was
                          skipped */
} nn_optim_report;

/** One step. gradients, of the layout of params, are multiplied by scale (1 / accumulated entries)
 * on the way. A cancel does not stop it: no step is done by half. Not while the EMA is swapped in.
 */
nn_optim_report nn_optim_step(nn_optim *o, float scale, float *params, const float *gradients);
/** Steps so far, skipped ones too. */
int64_t nn_optim_steps(const nn_optim *o);
/** Learning rate of the next step by the schedule. */
double nn_optim_lr(const nn_optim *o);
/** Tell the plateau schedule a validation figure, larger is better. */
void nn_optim_validated(nn_optim *o, double figure);

/** Exchange params with the EMA: once before a validation (or a save) with it, once after. Without
 * EMA nothing happens. */
void nn_optim_swap_ema(nn_optim *o, float *params);
/** The EMA's values, of the layout of params; NULL without EMA. Borrows. */
const float *nn_optim_ema(const nn_optim *o);

/* ---- state ----------------------------------------------------------------------------------- */

/** A row of numbers to save, [count]. */
typedef struct nn_optim_array {
    const char *name; /* "optim.state" */
    saw_dtype dtype;  /* SAW_I64, SAW_F64, SAW_F32, in this order */
    int64_t count;
    const void *data; /* borrowed; changed by the next step */
} nn_optim_array;
enum { NN_OPTIM_ARRAYS = 5 };
/** All that the next steps depend on but for the params and the options; returns how many arrays
 * there are. Not while the EMA is swapped in. */
int nn_optim_arrays(const nn_optim *o, nn_optim_array out[NN_OPTIM_ARRAYS]);
/** Read them back from a file that has them among its tensors. Refuses, with nothing changed, what
 * another optimizer or one of other trainables has saved. The next steps are then, to the bit, what
 * they would have been. */
saw_status nn_optim_load(nn_optim *o, saw_checkpoint *file);

#endif
