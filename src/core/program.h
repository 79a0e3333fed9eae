/*
 * program.h - what the passes make of a tape, and how it is run.
 *
 * saw_program is const: groups of entries, tile sizes, offsets; no data. saw_weights turns names
 * into numbers, dense or packed, and is shared by all runs. saw_run is mutable and belongs to one
 * thread at a time.
 */
#ifndef SAW_PROGRAM_H
#define SAW_PROGRAM_H

#include "core/graph.h"

/* ---- weights --------------------------------------------------------------------------------- */

/** Where weights come from. */
typedef struct saw_weight_source {
    /** Dims of a name; SAW_ERR_SHAPE, with no sentence, when there is no such tensor. */
    saw_status (*dims)(void *user, const char *name, saw_dims *dims);
    /** Elements [first, first + n) in C order. Fails with a sentence. */
    saw_status (*read)(void *user, const char *name, int64_t first, int64_t n, float *out);
    void *user;
} saw_weight_source;

typedef struct saw_weights saw_weights;
/** Borrows the source until close. */
saw_status saw_weights_open(saw_context *ctx, const saw_weight_source *source, saw_weights **out);
void saw_weights_close(saw_weights *w);
/** Replace or add a tensor of own values (copied). Must come before the first run that uses it. */
saw_status saw_weights_set(saw_weights *w, const char *name, saw_dims dims, const float *data);
/** Dense float32 copy of a tensor, made on first use; borrows. Refuses non-finite numbers. */
saw_status saw_weights_dense(saw_weights *w, const char *name, const saw_dims *dims,
                             const float **out);
/** The tensor packed for the products of an entry (NULL: one matrix [rows, inner]), made on first
 * use; borrows. Refuses non-finite numbers. */
saw_status saw_weights_packed(saw_weights *w, const char *name, const saw_dims *dims, int precision,
                              const saw_entry *packer, const saw_packed **out);
/** All numbers of a tensor into out; no copy is kept. Refuses non-finite numbers. */
saw_status saw_weights_read(saw_weights *w, const char *name, const saw_dims *dims, float *out);
size_t saw_weights_bytes(const saw_weights *w);

/** The element type that products of this precision are made in. */
saw_dtype saw_precision_dtype(int precision);

/* ---- program --------------------------------------------------------------------------------- */

typedef struct saw_program saw_program;

typedef struct saw_program_options {
    saw_device device;
    saw_precision precision;
    const char *const *outputs; /* names wanted; NULL: all */
    int n_outputs;
    bool all_taps;     /* pin every tap, so that saw_run_value can read it */
    bool ungrouped;    /* every entry alone, in one piece: for tests */
    size_t tile_bytes; /* scratch that the values of a tile never go beyond; 0: what is fastest */
    int threads;       /* that the plan should feed; 0: the context's */
} saw_program_options;

/** Passes: drop what no wanted output needs, hoist what only depends on frozen parameters to bind
 * time, group into tiles, place memory. Takes the graph over (also on failure). */
saw_status saw_program_build(saw_graph *g, const saw_program_options *options, saw_program **out);
void saw_program_close(saw_program *p);
const saw_graph *saw_program_graph(const saw_program *p);
/** Bytes that a run takes beside the weights, and that the weights take once bound. */
size_t saw_program_run_bytes(const saw_program *p);
size_t saw_program_weight_bytes(const saw_program *p);
double saw_program_flops(const saw_program *p);
/** A trainable parameter's place in the flat buffers of a run. */
typedef struct saw_range {
    const char *name;
    saw_dims dims;
    int64_t first, count; /* elements */
} saw_range;
/** The trainables that the program works with, in the order of recording: how many; the elements
 * of a flat buffer, which has gaps of zeros between ranges. */
int saw_program_ranges(const saw_program *p, const saw_range **out);
int64_t saw_program_trainables(const saw_program *p);
/** A readable listing: groups, tiles, entries, sizes. */
void saw_program_list(const saw_program *p, saw_buffer *out);

/* ---- run ------------------------------------------------------------------------------------- */

typedef struct saw_run saw_run;
/** Bind the program to weights (packs and folds now) and take its memory. Borrows both. Nothing is
 * allocated later. */
saw_status saw_run_open(const saw_program *p, saw_weights *w, saw_run **out);
void saw_run_close(saw_run *r);
/** The dense tensor of an input, output or pinned value: float32 on the CPU and ref32, float64 on
 * ref64. */
saw_tensor saw_run_value(saw_run *r, saw_val v);
/** By the name of an input or output; data NULL when there is none. */
saw_tensor saw_run_named(saw_run *r, const char *name);
saw_status saw_run_execute(saw_run *r);
/** Flat buffers [saw_program_trainables] of a program with trainables: their numbers, taken from
 * the weights at open, which the caller may change between executions; and their gradients, which
 * an execution sets. */
saw_tensor saw_run_params(saw_run *r);
saw_tensor saw_run_gradients(saw_run *r);
/** Whether executions from now on add to the gradients. */
void saw_run_accumulate(saw_run *r, bool add);
/** What stochastic ops draw from, with the number of their entry. 0 at first. */
void saw_run_seed(saw_run *r, uint64_t seed);
/** Set the state of all ops to zero. */
void saw_run_reset(saw_run *r);

#endif
