/*
 * model_file.h - a checkpoint as a model's file: where its configuration is found, int8 weights
 * with scales.
 */
#ifndef SAW_MODEL_FILE_H
#define SAW_MODEL_FILE_H

#include "io/checkpoint.h"
#include "io/config.h"

/** Key of our single-file format in the metadata of a safetensors file: the configuration as JSON.
 */
#define SAW_MODEL_FILE_KEY "bandsaw"

/**
 * The configuration for a checkpoint: the named file; else the one inside the file; else one that
 * lies beside it (x.yaml, x.yml, x.json, config_x.yaml, x_config.yaml, x.ckpt.yaml, config.yaml);
 * else none (*out NULL). *config_path is the file it came from (owned by the caller), NULL when
 * inside or none.
 */
saw_status saw_model_file_config(saw_context *ctx, const saw_checkpoint *ck, const char *path,
                                 const char *named, saw_config **out, char **config_path);

/** A tree with "key.path=value" settings put into a copy of base (NULL: empty); values are read as
 * YAML scalars. */
saw_status saw_model_file_merge(saw_context *ctx, const saw_config *base,
                                const char *const *settings, int n, saw_config **out);

/** The scales [rows] of a tensor that is stored as int8 (convert.h); NULL when it has none. */
const saw_ckpt_tensor *saw_model_file_scale(const saw_checkpoint *ck, const saw_ckpt_tensor *t);
/** Whether a tensor is such scales. */
bool saw_model_file_is_scale(const saw_checkpoint *ck, const saw_ckpt_tensor *t);
/** Whether a tensor holds a model's numbers: floats, or int8 with scales; not a counter. */
bool saw_model_file_is_number(const saw_checkpoint *ck, const saw_ckpt_tensor *t);
/** As saw_checkpoint_read_f32, but int8 values are multiplied by their scales. */
saw_status saw_model_file_read_f32(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, float *out);

/** What a model's file is made of: tensors in order, each a dense float32 array that `read` gives
 * in pieces, [first, first + n) in C order. */
typedef struct saw_model_parts {
    const saw_safetensors_entry *tensors; /* all SAW_F32 */
    int count;
    saw_status (*read)(void *user, const char *name, int64_t first, int64_t n, float *out);
    void *user;
    const saw_config *config; /* goes into the file; NULL: none */
    const char *architecture; /* the family's name */
} saw_model_parts;
/** The tensors of a checkpoint that hold a model's numbers, as float32, in its order: without
 * counters and scales. Freed with saw_free; names borrow from the checkpoint. */
saw_status saw_model_file_tensors(saw_context *ctx, const saw_checkpoint *ck,
                                  saw_safetensors_entry **out, int *count);
/** Write our single-file format. The file appears only when it is whole; numbers that are not
 * finite are refused. */
saw_status saw_model_file_write(saw_context *ctx, const char *path, const saw_model_parts *parts);

#endif
