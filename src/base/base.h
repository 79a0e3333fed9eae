/*
 * base.h - floor 0: context, errors, memory, checked sizes, random numbers, files, threads.
 */
#ifndef SAW_BASE_H
#define SAW_BASE_H

#include "bandsaw.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#if defined(__GNUC__)
#define SAW_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define SAW_PRINTF(fmt, args)
#endif

/* ---- element types --------------------------------------------------------------------------- */

typedef enum saw_dtype {
    SAW_F32,
    SAW_F64,
    SAW_F16,
    SAW_BF16,
    SAW_I8,
    SAW_U8,
    SAW_I16,
    SAW_I32,
    SAW_I64,
    SAW_BOOL,
    SAW_DTYPE_COUNT
} saw_dtype;
size_t saw_dtype_bytes(saw_dtype dtype);
/** The name as safetensors writes it in lower case: "f32", "bf16", "i64", "bool", ... */
const char *saw_dtype_name(saw_dtype dtype);
enum { SAW_MAX_DIMS = 8 };

/* ---- errors ---------------------------------------------------------------------------------- */

/** Store the sentence in ctx and return code, so that callers write `return saw_fail(ctx, ...)`.
 * ctx may be NULL. */
saw_status saw_fail(saw_context *ctx, saw_status code, const char *fmt, ...) SAW_PRINTF(3, 4);
/** Put `prefix: ` before the sentence that is there (to name a file or scope); returns code
 * unchanged. */
saw_status saw_fail_in(saw_context *ctx, saw_status code, const char *prefix);
void saw_log(saw_context *ctx, int level, const char *fmt, ...) SAW_PRINTF(3, 4);

/* ---- memory ---------------------------------------------------------------------------------- */

/** 64-byte aligned, uninitialised. NULL with the error set when memory fails. bytes 0 gives a valid
 * pointer. */
void *saw_alloc(saw_context *ctx, size_t bytes);
/** The same for count * size bytes, overflow checked, zeroed. */
void *saw_calloc(saw_context *ctx, size_t count, size_t size);
/** Grow or shrink; old content kept up to the smaller size. On failure the old block stays valid.
 */
void *saw_realloc(saw_context *ctx, void *block, size_t bytes);
/** Free a block of saw_alloc, saw_calloc or saw_realloc. NULL is fine. */
void saw_free(saw_context *ctx, void *block);
char *saw_strdup(saw_context *ctx, const char *s);
char *saw_strndup(saw_context *ctx, const char *s, size_t n);
/** printf into a new string, NULL when memory fails. */
char *saw_format(saw_context *ctx, const char *fmt, ...) SAW_PRINTF(2, 3);

/** Calls of saw_alloc and its siblings so far, and bytes held now and at most: for tests and
 * `--json`. */
typedef struct saw_memory_stats {
    uint64_t calls;
    size_t now_bytes, peak_bytes;
} saw_memory_stats;
saw_memory_stats saw_context_memory(const saw_context *ctx);

/** One big zero-filled mapping with huge pages where the system has them, for arenas. */
void *saw_map_alloc(saw_context *ctx, size_t bytes);
void saw_map_free(saw_context *ctx, void *block, size_t bytes);

/** a * b and a + b; false on overflow (then *out is untouched). */
bool saw_mul_size(size_t a, size_t b, size_t *out);
bool saw_add_size(size_t a, size_t b, size_t *out);

/* ---- cancel, threads ------------------------------------------------------------------------- */

bool saw_cancelled(const saw_context *ctx);
/** Forget an earlier cancel. */
void saw_context_resume(saw_context *ctx);
int saw_threads(const saw_context *ctx);

/**
 * Run fn(arg, item, thread) for every item in [0, items), on the context's team; thread is in [0,
 * saw_threads). Items are handed out one by one in rising order. Returns when all are done. Not
 * reentrant: never call it from fn. A cancel stops handing out items.
 */
typedef void saw_task(void *arg, int64_t item, int thread);
void saw_parallel(saw_context *ctx, int64_t items, saw_task *fn, void *arg);

/** Physical memory in bytes, whole and available now (0 when unknown). */
void saw_machine_memory(size_t *total_bytes, size_t *available_bytes);
/** Seconds on a clock that never goes back. */
double saw_seconds(void);

/* ---- random numbers -------------------------------------------------------------------------- */

/** Philox 4x32-10 (Salmon et al. 2011): four random words of (key, counter). Stateless. */
void saw_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]);
/** FNV-1a, 64 bit. */
uint64_t saw_fnv1a(const void *bytes, size_t n);

/* ---- numbers and strings --------------------------------------------------------------------- */

/** Parse the whole string as a number, whatever the locale. false when anything is left over or out
 * of range. */
bool saw_parse_double(const char *s, double *out);
bool saw_parse_int64(const char *s, int64_t *out);
/** A size as people write it: 2G, 800M, 512K, 1.5GiB (powers of 1024); a plain number is bytes. */
bool saw_parse_bytes(const char *s, size_t *out);

/** The word that is most like `word` (letters inserted, dropped, changed, swapped; or its
 * beginning), for "did you mean"; NULL when none is near. */
const char *saw_nearest_word(const char *word, const char *const *words, int count);

float saw_f16_to_f32(uint16_t h);
uint16_t saw_f32_to_f16(float f);
float saw_bf16_to_f32(uint16_t h);
/** Round to nearest even; NaN stays NaN. */
uint16_t saw_f32_to_bf16(float f);

/** A growing string. Zero-initialise; after a failure of memory `failed` is set and appends do
 * nothing. */
typedef struct saw_buffer {
    saw_context *ctx;
    char *data; /* always NUL-terminated once anything was appended */
    size_t size, room;
    bool failed;
} saw_buffer;
void saw_buffer_add(saw_buffer *b, const void *bytes, size_t n);
void saw_buffer_printf(saw_buffer *b, const char *fmt, ...) SAW_PRINTF(2, 3);
void saw_buffer_free(saw_buffer *b);

/* ---- files ----------------------------------------------------------------------------------- */

/** A file opened for random reads; its size was taken at open. Reads beyond it fail, also when the
 * file shrank. */
typedef struct saw_file saw_file;
saw_status saw_file_open(saw_context *ctx, const char *path, saw_file **out);
void saw_file_close(saw_file *f);
uint64_t saw_file_size(const saw_file *f);
const char *saw_file_path(const saw_file *f);
/** Read exactly n bytes at offset. SAW_ERR_FORMAT with a sentence that names the file when they are
 * not there. */
saw_status saw_file_read(saw_file *f, uint64_t offset, void *out, size_t n);

/** Read a whole small file (at most limit bytes) into a NUL-terminated block of saw_alloc. */
saw_status saw_read_all(saw_context *ctx, const char *path, size_t limit, char **out, size_t *size);

/** A file that appears under its name only when whole: written beside it, renamed by commit. */
typedef struct saw_atomic_file {
    FILE *file;
    char *path, *temp; /* owned */
    saw_context *ctx;
} saw_atomic_file;
saw_status saw_atomic_open(saw_context *ctx, const char *path, saw_atomic_file *out);
/** Flush, fsync, rename. On failure the temporary file is removed and nothing appears. */
saw_status saw_atomic_commit(saw_atomic_file *f);
/** Remove the temporary file. Fine after commit or on a zeroed struct. */
void saw_atomic_abort(saw_atomic_file *f);
/** Create a folder and its parents; fine when it is there. */
saw_status saw_make_folders(saw_context *ctx, const char *path);

#endif
