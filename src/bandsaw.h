/*
 * bandsaw.h - the public interface of the Bandsaw library.
 *
 * Units are in the names: _hz, _ms, _samples, _frames, _db, _bytes. Audio is planar float32: one
 * pointer per channel, [channels][samples]. Every function that can fail returns a saw_status; the
 * sentence that says what was wrong and what to do is in the context (saw_context_error).
 */
#ifndef BANDSAW_H
#define BANDSAW_H

#include <stdbool.h>
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

/* ---- context: threads, memory, log, cancel --------------------------------------------------- */

typedef struct saw_context saw_context;

enum { SAW_LOG_ERROR = 0, SAW_LOG_WARN = 1, SAW_LOG_INFO = 2, SAW_LOG_DEBUG = 3 };

typedef struct saw_options {
    int threads;                                          /* worker threads; 0: one per processor */
    void *(*alloc)(void *user, size_t bytes);             /* NULL: the C library's */
    void (*release)(void *user, void *block);             /* NULL: the C library's */
    void (*log)(void *user, int level, const char *line); /* NULL: silence */
    void *user;                                           /* passed to the three above */
} saw_options;

/** Open a context. options may be NULL. On failure *out is NULL. One context serves one thread at a
 * time. */
saw_status saw_context_open(saw_context **out, const saw_options *options);
/** Close it. NULL is fine. Everything opened with it must be closed before. */
void saw_context_close(saw_context *ctx);
/** The sentence of the last failure, "" if there was none. Borrows; valid until the next failing
 * call. */
const char *saw_context_error(const saw_context *ctx);
/** Ask every running call of this context to stop with SAW_ERR_CANCELLED. Safe in a signal handler.
 */
void saw_context_cancel(saw_context *ctx);

/* ---- models: a checkpoint that is ready to separate ------------------------------------------ */

/** A model bound to a checkpoint: immutable, shared by streams. Weights are loaded by the first
 * stream. */
typedef struct saw_separator saw_separator;

/** What products are made in; sums, norms, softmax and the STFT are float32 always. */
typedef enum saw_precision {
    SAW_PRECISION_DEFAULT = -1,
    SAW_PRECISION_F32 = 0,
    SAW_PRECISION_BF16 = 1,
    SAW_PRECISION_INT8 = 2
} saw_precision;

typedef struct saw_separator_options {
    const char *config;          /* path of a YAML or JSON configuration; NULL: the one beside the
                                    checkpoint, else inferred */
    const char *const *settings; /* "key.path=value" that go before the configuration; NULL: none */
    int n_settings;
    saw_precision precision;
    const char *device;  /* "cpu", NULL: the best there is */
    const char *adapter; /* folder (or safetensors file) of an adapter for this model, in the format
                            of `peft`; merged when weights are loaded. NULL: none */
    double adapter_strength; /* share of its change; 0: all of it */
} saw_separator_options;

/** What a model says about itself. Strings borrow from the separator. */
typedef struct saw_separator_info {
    const char *path, *config_path; /* config_path NULL when there was none */
    const char *architecture;       /* "bs_roformer" */
    const char *precision, *device;
    int rate_hz, channels, stems;
    const char *const *stem_names;
    int64_t chunk_samples; /* recommended */
    int64_t hop_samples;
    int overlap; /* recommended */
    int64_t parameters;
    int assumed_count; /* what neither tensors nor a config told: "hop 441 (...)" */
    const char *const *assumed;
    bool normalize; /* wants whole-file normalisation */
} saw_separator_info;

/** Open a checkpoint (torch zip or legacy pickle, safetensors) and its configuration. options may
 * be NULL. */
saw_status saw_separator_open(saw_context *ctx, const char *path,
                              const saw_separator_options *options, saw_separator **out);
void saw_separator_close(saw_separator *s);
const saw_separator_info *saw_separator_get_info(const saw_separator *s);

/* ---- streams: audio in, stems out ------------------------------------------------------------ */

typedef struct saw_stream saw_stream;

typedef struct saw_stream_options {
    int64_t
        chunk_samples; /* 0: the model's; more than 0: this many, rounded up to the model's hop */
    int64_t whole_samples; /* more than 0: one forward over exactly this many samples, no windows */
    int overlap;           /* 0: the model's */
    const char *
        stitch; /* how chunks are joined: "msst", "demucs", "fade", "spleeter"; NULL: the model's */
    int batch;  /* chunks a forward; 0: 1 */
    const char *const *stems; /* names of the stems that are wanted; NULL: all */
    int n_stems;
    size_t memory_bytes; /* refuse (SAW_ERR_MEMORY, with what to do) a plan that needs more; 0: no
                            limit */
} saw_stream_options;

/** What a stream is and takes. */
typedef struct saw_stream_info {
    int channels, stems; /* of push and pull; the outputs are [stems][channels] */
    int64_t chunk_samples, step_samples;
    int64_t latency_samples; /* most samples that are held back before the first comes out */
    size_t memory_bytes;     /* planned: weights, activations, windows */
    double flops_per_chunk;
} saw_stream_info;

/** Plan, load the weights and take all memory; nothing is allocated later. One stream serves one
 * signal: open another for the next file (weights are shared). options may be NULL. */
saw_status saw_stream_open(saw_separator *s, const saw_stream_options *options, saw_stream **out);
void saw_stream_close(saw_stream *t);
const saw_stream_info *saw_stream_get_info(const saw_stream *t);
/** Most samples that push takes now. Pull what is ready to make room. */
int64_t saw_stream_room(const saw_stream *t);
/** Give n <= room samples, [channels][n] at the model's rate. Runs the model whenever a chunk is
 * full. */
saw_status saw_stream_push(saw_stream *t, const float *const *in, int64_t n);
/** No more input: what was held back is separated. Then as many samples are ready, or were pulled,
 * as were pushed. */
saw_status saw_stream_finish(saw_stream *t);
/** Samples that pull can give now. */
int64_t saw_stream_ready(const saw_stream *t);
/** Take n <= ready samples: out is [stems * channels][n]. */
saw_status saw_stream_pull(saw_stream *t, float *const *out, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
