/*
 * optim_row.h - what an optimizer is: one const struct in one file, and its line in optim.def.
 */
#ifndef SAW_NN_OPTIM_ROW_H
#define SAW_NN_OPTIM_ROW_H

#include "kernels/simd/simd.h"
#include "nn/optim.h"

enum { NN_OPTIM_BUFFERS = 4, NN_OPTIM_SCALARS = 4 };

/** What all slices of a step share. */
typedef struct nn_update {
    const nn_optim_options *options;
    const saw_simd *simd;
    int64_t t;       /* 1, 2, ...: skipped steps do not count */
    double lr;       /* of the schedule */
    double rate;     /* what `join` found: the step's own factor on lr; else 1 */
    double *scalars; /* [NN_OPTIM_SCALARS], kept from step to step, zero at first */
} nn_update;

/** A slice of the trainables, of one range. */
typedef struct nn_slice {
    int64_t n;
    float *p;
    const float *g; /* times g_scale: accumulated entries, clip */
    float g_scale;
    float lr, decay;                /* with the range's factor; lr is not yet times rate */
    float *state[NN_OPTIM_BUFFERS]; /* n floats each, as many as the row has for the range */
    const saw_range *range;
    void *scratch; /* as many bytes as the row said, 64-byte aligned */
} nn_slice;

typedef struct nn_optim_row {
    nn_optim_options defaults; /* with the name */
    int buffers;               /* floats of state a trainable, all zero at first */
    /** Is the range one slice, not to be cut, with so many buffers and so much scratch? NULL: no.
     */
    bool (*whole)(const nn_update *u, const saw_range *range, int *buffers, size_t *scratch);
    /** Set up state other than zeros. NULL: none. */
    void (*start)(const nn_update *u, const nn_slice *s);
    /** A first pass over all slices that ends in two sums, and what is made of them. NULL: none. */
    void (*gather)(const nn_update *u, const nn_slice *s, double sums[2]);
    void (*join)(nn_update *u, const double sums[2]);
    void (*step)(const nn_update *u, const nn_slice *s);
} nn_optim_row;

/** AdamW's step, for what an optimizer does not treat itself; two buffers. */
void nn_adamw_step(const nn_update *u, const nn_slice *s);

#endif
