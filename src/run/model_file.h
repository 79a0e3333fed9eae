/*
 * model_file.h - where the configuration of a checkpoint is found.
 */
#ifndef SAW_MODEL_FILE_H
#define SAW_MODEL_FILE_H

#include "io/checkpoint.h"
#include "io/config.h"

/** Key of our single-file format in the metadata of a safetensors file: the configuration as JSON. */
#define SAW_MODEL_FILE_KEY "bandsaw"

/**
 * The configuration for a checkpoint: the named file; else the one inside the file; else one that lies beside it
 * (x.yaml, x.yml, x.json, config_x.yaml, x_config.yaml, x.ckpt.yaml, config.yaml); else none (*out NULL).
 * *config_path is the file it came from (owned by the caller), NULL when inside or none.
 */
saw_status saw_model_file_config(saw_context *ctx, const saw_checkpoint *ck, const char *path, const char *named,
                                 saw_config **out, char **config_path);

/** A tree with "key.path=value" settings put into a copy of base (NULL: empty); values are read as YAML scalars. */
saw_status saw_model_file_merge(saw_context *ctx, const saw_config *base, const char *const *settings, int n,
                                saw_config **out);

/** Whether a tensor of our single-file format only serves another one. */
bool saw_model_file_is_extra(const char *name);

#endif
