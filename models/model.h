/*
 * model.h - the table of model families: how one is recognised, configured and recorded.
 *
 * A family is one file and one line in models.def. Its options are one struct that begins with
 * saw_model_common; a table of saw_option says which config key fills which member, so that ranges,
 * defaults and unknown keys are dealt with in one place (model.c).
 */
#ifndef SAW_MODEL_H
#define SAW_MODEL_H

#include "core/graph.h"
#include "io/checkpoint.h"
#include "io/config.h"

enum { SAW_MAX_STEMS = 32, SAW_STEM_NAME_ROOM = 64, SAW_MAX_BANDS = 1024, SAW_MAX_CHANNELS = 2 };

/** What every model says about itself; the first member of every options struct. */
typedef struct saw_model_common {
    int rate_hz, channels, stems;
    char stem_names[SAW_MAX_STEMS][SAW_STEM_NAME_ROOM];
    int64_t chunk_samples; /* what it was trained on or recommends */
    bool chunk_fixed;      /* it works with no other length */
    int64_t min_samples;   /* shortest input that can be processed in one piece */
    int overlap;           /* recommended num_overlap */
    bool normalize;        /* whole-file normalisation before, and its inverse after */
    int64_t hop_samples;   /* chunks are best a multiple of it */
    const char *stitch;    /* row of the stitcher when no overlap is asked for; NULL: "msst" */
    int64_t output_trim; /* output length is input length rounded down to a multiple of this (1: the
                            same) */
    /* The stitcher "spleeter" works with this model: its chunks, and the length of their frames. 0:
     * it does not. */
    int64_t spleeter_chunk_samples, spleeter_frame_samples;
    /* Record for such chunks: only frames that lie within the input, times the input "present"
     * [B,T,1]. */
    bool inner_frames;
} saw_model_common;

/** Something that no tensor and no config told: "hop 441 (as in ...)". */
typedef struct saw_assumed {
    char text[16][160];
    int count;
} saw_assumed;
void saw_assume(saw_assumed *a, const char *fmt, ...) SAW_PRINTF(2, 3);

typedef enum saw_option_kind {
    SAW_OPTION_INT,
    SAW_OPTION_BOOL,
    SAW_OPTION_DOUBLE,
    SAW_OPTION_CHOICE, /* a word, as its number, into an int; the key holds the words:
                          "key:first,second" */
    SAW_OPTION_INTS, /* list into int64_t[SAW_MAX_BANDS]; the length goes to the int at count_offset
                      */
    SAW_OPTION_IGNORED /* known, without meaning for the result (dropout, execution) */
} saw_option_kind;

typedef struct saw_option {
    const char *key;
    saw_option_kind kind;
    size_t offset;
    double least, most; /* of numbers */
    size_t count_offset;
} saw_option;

typedef struct saw_model {
    const char *name;  /* "bs_roformer" */
    const char *title; /* "BS-RoFormer" */
    size_t options_bytes;
    const char *section;       /* of the config that holds the options; "" the top */
    const saw_option *options; /* ends with key NULL */
    /** Give the tensors of a variant layout the names and shapes that the model has. NULL: there is
     * none. */
    saw_status (*import)(saw_checkpoint *ck);
    const char *
        alike; /* NULL, or what is assumed because only model_type tells this family from another */
    /** Whether the names in the checkpoint are this family's. */
    bool (*recognise)(const saw_checkpoint *ck);
    /** Whether the config describes this family (by its keys or model_type). */
    bool (*claims)(const saw_config *config);
    /** Constructor defaults, before a config is read. */
    void (*defaults)(void *options);
    /** Fill the options from the checkpoint's names and shapes; what they cannot tell is assumed
     * and said. */
    saw_status (*infer)(saw_context *ctx, const saw_checkpoint *ck, void *options,
                        saw_assumed *assumed);
    /** Fill what is not a plain key (section layout, stem names); then check everything and derive
     * what follows. config is NULL after infer. */
    saw_status (*finish)(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                         void *options);
    /** Record the model for mix [B,C,N]; outputs are named "stem0", "stem1", ..., each [B,C,N']. */
    void (*record)(saw_graph *g, const void *options, saw_val mix);
    /** Tensors that the checkpoints of this family may hold although the model does not read them.
     * NULL: none. */
    bool (*surplus)(const char *name);
    /** Print the options for `inspect`, " key value" each. */
    void (*describe)(const void *options, saw_buffer *out);
} saw_model;

/** Row i of the table, NULL at the end; and by name. */
const saw_model *saw_model_at(int i);
const saw_model *saw_model_named(const char *name);

/** A family with its options for one checkpoint. */
typedef struct saw_model_spec {
    const saw_model *model;
    void *options; /* owned */
    saw_assumed assumed;
    bool from_config;
} saw_model_spec;

/** Bring variant layouts of any family to the family's own names, before the checkpoint is used. */
saw_status saw_model_import(saw_checkpoint *ck);
/** From a config and, for what it leaves open, a checkpoint; either may be NULL. */
saw_status saw_model_configure(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                               saw_model_spec *out);
/** The same without a config, where `settings` (a tree of a few entries, laid out like a config;
 * NULL: none) goes before what was inferred. */
saw_status saw_model_infer(saw_context *ctx, const saw_config *settings, const saw_checkpoint *ck,
                           saw_model_spec *out);
void saw_model_spec_close(saw_context *ctx, saw_model_spec *spec);
static inline const saw_model_common *saw_model_common_of(const saw_model_spec *spec)
{
    return (const saw_model_common *)spec->options;
}

/** First values of a model that is trained from nothing (saw_checkpoint_formula). */
void saw_model_start(const saw_checkpoint *ck, uint64_t seed, const saw_ckpt_tensor *t,
                     int64_t first, int64_t n, float *out);

/** For `infer`: whether there is a tensor of that name; dim `axis` of the tensor of a name
 * (printf), 0 when there is none; how many of before0after, before1after, ... there are. */
bool saw_shape_has(const saw_checkpoint *ck, const char *name);
int64_t saw_shape_dim(const saw_checkpoint *ck, int axis, const char *fmt, ...) SAW_PRINTF(3, 4);
int saw_shape_count(const saw_checkpoint *ck, int limit, const char *before, const char *after);

/** Read what MSST configurations say outside `model`: audio, training (instruments), inference.
 * stems must be set. */
saw_status saw_model_read_msst(saw_context *ctx, const saw_config *config, saw_model_common *c);
/** Set the names: the only stem "vocals" or "stem1", "stem2", ... unless already there. */
void saw_model_name_stems(saw_model_common *c, int count, const char *const *names);

#endif
