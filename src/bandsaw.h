/*
 * bandsaw.h - the public interface of the Bandsaw library.
 *
 * Units are in the names: _hz, _ms, _samples, _frames, _db, _bytes. Audio is planar float32: one pointer per
 * channel, [channels][samples]. Every function that can fail returns a saw_status; the sentence that says what was
 * wrong and what to do is in the context (saw_context_error).
 */
#ifndef BANDSAW_H
#define BANDSAW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BANDSAW_VERSION_MAJOR 0
#define BANDSAW_VERSION_MINOR 1
#define BANDSAW_VERSION_PATCH 0
#define BANDSAW_VERSION       "0.1.0"

/** Result of every call that can fail. The numbers are frozen. */
typedef enum saw_status {
    SAW_OK = 0,
    SAW_ERR_ARGUMENT = -1,    /* a value that the caller gave makes no sense */
    SAW_ERR_MEMORY = -2,      /* no memory, or more than the stated limit is needed */
    SAW_ERR_IO = -3,          /* a file or device could not be opened, read or written */
    SAW_ERR_FORMAT = -4,      /* a file is damaged or not of the kind it claims to be */
    SAW_ERR_SHAPE = -5,       /* tensors, names or sizes do not fit together */
    SAW_ERR_UNSUPPORTED = -6, /* understood, but this program cannot do it */
    SAW_ERR_DEVICE = -7,      /* a device failed */
    SAW_ERR_CANCELLED = -8    /* saw_context_cancel was called */
} saw_status;

/** A short constant name, "ok", "memory", ... Never NULL. */
const char *saw_status_name(saw_status status);

/** The version of the library that is linked, as "major.minor.patch". */
const char *saw_version(void);

/* ---- context: threads, memory, log, cancel ------------------------------------------------------------------- */

typedef struct saw_context saw_context;

enum { SAW_LOG_ERROR = 0, SAW_LOG_WARN = 1, SAW_LOG_INFO = 2, SAW_LOG_DEBUG = 3 };

typedef struct saw_options {
    int threads;                                         /* worker threads; 0: one per processor */
    void *(*alloc)(void *user, size_t bytes);            /* NULL: the C library's */
    void (*release)(void *user, void *block);            /* NULL: the C library's */
    void (*log)(void *user, int level, const char *line); /* NULL: silence */
    void *user;                                          /* passed to the three above */
} saw_options;

/** Open a context. options may be NULL. On failure *out is NULL. One context serves one thread at a time. */
saw_status saw_context_open(saw_context **out, const saw_options *options);
/** Close it. NULL is fine. Everything opened with it must be closed before. */
void saw_context_close(saw_context *ctx);
/** The sentence of the last failure, "" if there was none. Borrows; valid until the next failing call. */
const char *saw_context_error(const saw_context *ctx);
/** Ask every running call of this context to stop with SAW_ERR_CANCELLED. Safe in a signal handler. */
void saw_context_cancel(saw_context *ctx);

#ifdef __cplusplus
}
#endif

#endif
