/*
 * checkpoint.h - tensors by name out of the files that people have: what torch.save wrote (zip, or
 * the older pickles one after another; numpy arrays in them too), safetensors, TensorFlow bundles
 * (given by their .index file); and a writer of safetensors.
 *
 * The kind of file is told by its content, never by its name. A pickle is read as data: nothing in
 * it is imported, called or run. The state dict is taken from where the usual tools put it
 * (`state`, `state_dict`, `model_state_dict`, `model`, or the whole file), and a prefix that every
 * name has
 * (`module.`, `model.`, `net.`, `_orig_mod.`) is removed. Everything else in the file is told in
 * notes.
 */
#ifndef SAW_CHECKPOINT_H
#define SAW_CHECKPOINT_H

#include "base/base.h"

typedef struct saw_checkpoint saw_checkpoint;

/** One tensor of an open checkpoint. Its elements lie inside the file, that was checked at open. */
typedef struct saw_ckpt_tensor {
    const char *name; /* borrowed from the checkpoint */
    saw_dtype dtype;
    int ndim;
    int64_t dims[SAW_MAX_DIMS];
    int64_t strides[SAW_MAX_DIMS]; /* in elements, never negative; 0 where a value is repeated */
    int64_t count;                 /* product of dims, 1 for a scalar */
    uint64_t offset_bytes;         /* of its first element in the file */
    uint64_t
        text_bytes; /* not 0: stored as so many bytes of UTF-8, each character one byte of it */
    int part;       /* which file of a folder */
} saw_ckpt_tensor;

/**
 * Open and list a checkpoint; no tensor data are read. On failure *out is NULL. A folder with one
 * checkpoint in it is that checkpoint; with several, in the order of their names, it is all of them
 * as one, the names of file i below "i.".
 */
saw_status saw_checkpoint_open(saw_context *ctx, const char *path, saw_checkpoint **out);
/** NULL is fine. */
void saw_checkpoint_close(saw_checkpoint *ck);

int saw_checkpoint_count(const saw_checkpoint *ck);
/** Tensor i in the order of the file. */
const saw_ckpt_tensor *saw_checkpoint_at(const saw_checkpoint *ck, int i);
/** Tensor by name, in constant time; NULL when there is none. */
const saw_ckpt_tensor *saw_checkpoint_find(const saw_checkpoint *ck, const char *name);

/**
 * Read elements [first, first + n) of t, counted in C order of its dims whatever the strides,
 * rounded to float32 (or float64) whatever the dtype; bool gives 0 or 1. Only the bytes needed are
 * read.
 */
saw_status saw_checkpoint_read_f32(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, float *out);
saw_status saw_checkpoint_read_f64(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, double *out);
/** The same in the tensor's own dtype, little endian: n elements; out is aligned for them. */
saw_status saw_checkpoint_read_raw(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, void *out);

/** A string of the `__metadata__` of a safetensors file; NULL when there is none of that key.
 * Borrows. */
const char *saw_checkpoint_meta(const saw_checkpoint *ck, const char *key);
/** Give tensor i another name and, unless order is NULL, its axes in another order: axis d is what
 * was axis order[d]. */
saw_status saw_checkpoint_rename(saw_checkpoint *ck, int i, const char *name, const int *order);

/** "torch zip", "torch legacy", "safetensors" or "TensorFlow bundle". */
const char *saw_checkpoint_container(const saw_checkpoint *ck);
/** The prefix that was removed from every name, "" when none was. */
const char *saw_checkpoint_prefix(const saw_checkpoint *ck);
/** What else the file holds, what was skipped or refused: printable lines, one fact each. */
int saw_checkpoint_note_count(const saw_checkpoint *ck);
const char *saw_checkpoint_note(const saw_checkpoint *ck, int i);

/* ---- safetensors writer ---------------------------------------------------------------------- */

/** What a tensor of the new file will be. The name is UTF-8. */
typedef struct saw_safetensors_entry {
    const char *name;
    saw_dtype dtype;
    int ndim;
    int64_t dims[SAW_MAX_DIMS];
} saw_safetensors_entry;

/** Elements [first, first + n) of a tensor that lies in no file, in C order. */
typedef void saw_checkpoint_formula(const saw_checkpoint *ck, uint64_t seed,
                                    const saw_ckpt_tensor *t, int64_t first, int64_t n, float *out);
/** A checkpoint without a file: n tensors of float32 whose numbers the formula gives. Names are
 * copied. */
saw_status saw_checkpoint_of_formula(saw_context *ctx, const saw_safetensors_entry *entries, int n,
                                     saw_checkpoint_formula *formula, uint64_t seed,
                                     saw_checkpoint **out);

typedef struct saw_safetensors saw_safetensors;

/**
 * Start a file that appears under path only when it is committed. meta: n_meta keys and values,
 * {key, value, key, value, ...}, for `__metadata__`. All strings are copied. The tensors lie in the
 * order given: with mixed dtypes put wide elements first, for programs that map the file want them
 * aligned.
 */
saw_status saw_safetensors_create(saw_context *ctx, const char *path,
                                  const saw_safetensors_entry *entries, int n,
                                  const char *const *meta, int n_meta, saw_safetensors **out);
/** The next bytes of the data: the entries one after another, C order, in pieces of any size. */
saw_status saw_safetensors_write(saw_safetensors *w, const void *data, size_t bytes);
/** Finish; fails when bytes are missing. Frees w in every case. */
saw_status saw_safetensors_commit(saw_safetensors *w);
/** Give up; nothing appears. NULL is fine. */
void saw_safetensors_abort(saw_safetensors *w);

#endif
