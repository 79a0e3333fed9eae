/*
 * program_private.h - what program.c plans and run.c executes. Not for other folders.
 */
#ifndef SAW_PROGRAM_PRIVATE_H
#define SAW_PROGRAM_PRIVATE_H

#include "core/program.h"

#include <stdlib.h>

/* From PLACE_GRADIENT on a run looks the address up by number; from PLACE_PARAM on the value is a
 * weight: of the checkpoint, made of weights in every execution, made of frozen weights once. */
enum {
    PLACE_NONE,
    PLACE_ARENA,
    PLACE_SCRATCH,
    PLACE_GRADIENT,
    PLACE_PARAM,
    PLACE_STEP,
    PLACE_BIND
};

typedef struct place {
    int where;
    size_t offset;
    bool needed;
    bool taken;         /* another value takes its memory over */
    bool dense, packed; /* how a weight is wanted */
    const saw_entry
        *packer; /* the entry that says as which matrices, or NULL: as [dims[0], rest] */
} place;

/* First and last entry that touches a root value. */
typedef struct live {
    int first, last;
    bool pinned; /* kept to the end */
} live;

typedef struct planned_entry {
    const saw_entry *e;
    const saw_kernels *kernels;
    int n_in, n_out;        /* of the forward entry */
    saw_dims *in_dims;      /* of the forward entry: inputs, then outputs. Owned */
    uint32_t axes;          /* that the entry can be cut along */
    uint32_t *operand_axes; /* per operand of e. Owned */
    double flops, weight_bytes;
    size_t state_offset, state_bytes;
    bool reference; /* the CPU kernel cannot take its operands */
} planned_entry;

typedef struct group {
    int first, count;             /* entries */
    uint32_t axes;                /* cut along these */
    int64_t size[SAW_MAX_DIMS];   /* of those axes */
    int64_t extent[SAW_MAX_DIMS]; /* of a tile along them */
    int64_t tiles, parts;
    size_t values_bytes; /* scratch for inner values; kernels' own scratch follows */
} group;

struct saw_program {
    saw_context *ctx;
    saw_graph *graph;
    saw_device device;
    saw_precision precision;
    size_t real_bytes, tile_bytes;
    int threads;
    planned_entry *entries, *bind; /* entries: first those of the step, made of weights */
    int n_entries, n_bind, n_step;
    place *place; /* per value; of views unused */
    live *live;
    group *groups;
    int n_groups, n_step_groups;
    saw_range *ranges;
    int n_ranges;
    int64_t trainables;
    int max_operands;
    size_t arena_bytes, scratch_bytes, state_bytes;
    double flops;
};

/* Where the numbers of a program are in one run. */
typedef struct saw_memory {
    char *arena, *scratch; /* scratch: of the calling thread */
    char *const *weights;  /* per value: dense weights and their gradients, else NULL */
} saw_memory;

/* The view of value v for the tile [lo, hi) of a group, cut along `axes`. memory NULL: dims and
 * strides only. */
saw_tensor saw_operand(const saw_program *p, const group *g, saw_val v, uint32_t axes,
                       const int64_t *lo, const int64_t *hi, const saw_memory *memory);

/** Bytes of a tensor packed for the products of an entry (NULL: as [dims[0], rest]); an empty
 * packed tensor (owned by the caller); the floats of `panel` that filling it takes; filling it from
 * dense numbers. */
size_t saw_pack_bytes(const saw_dims *dims, int precision, const saw_entry *packer);
saw_packed *saw_pack_new(saw_context *ctx, const saw_dims *dims, int precision,
                         const saw_entry *packer);
int64_t saw_pack_panel(const saw_dims *dims, const saw_entry *packer);
void saw_pack_fill(const struct saw_simd *simd, saw_packed *p, const float *data,
                   const saw_dims *dims, const saw_entry *packer, float *panel);

#endif
