/*
 * peft_file.h - adapters in the format of the `peft` package: a folder with adapter_config.json and
 * adapter_model.safetensors.
 *
 * Tensors are named "base_model.model." + module + "." + what the method calls them; a tensor of
 * the model itself that is named so replaces the model's. Our own files are the same, with the
 * base model's name and fingerprint among the metadata, under "bandsaw.base" and
 * "bandsaw.fingerprint". What peft has no method for has a peft_type that peft refuses by name:
 * HOULSBY (bottlenecks), TENSORS (none, tensors of the model alone).
 *
 * LoRA whose start changed the base (PiSSA, OLoRA) needs what A and B were at first: they are read
 * from init/adapter_model.safetensors or start_adapter_model.safetensors in the folder; PiSSA's are
 * else computed, which agrees with peft as far as its own decomposition, in float, is exact.
 */
#ifndef SAW_PEFT_FILE_H
#define SAW_PEFT_FILE_H

#include "io/checkpoint.h"
#include "nn/adapter.h"

typedef struct saw_peft saw_peft;

/** Open a folder, or the safetensors file in it. Methods that are not here, and settings that would
 * change what the numbers mean, are SAW_ERR_UNSUPPORTED, by name. */
saw_status saw_peft_open(saw_context *ctx, const char *path, saw_peft **out);
/** NULL is fine. */
void saw_peft_close(saw_peft *p);
/** The rows that adapt a model in this way (nn_adapt); live as long as p. */
const saw_adapters *saw_peft_adapters(const saw_peft *p);
/** By `apply` where it can be (for training) instead of by `weight`; and how much of it. At first
 * false, 1. */
void saw_peft_set(saw_peft *p, bool attached, double strength);
/** Tensor i of the file: its key there and its name in the graph; false behind the last. */
bool saw_peft_tensor(const saw_peft *p, int i, const char **key, const char **name);
/** The method: "LORA". */
const char *saw_peft_type(const saw_peft *p);
/** Name and fingerprint of the base model; NULL when the file does not tell. */
const char *saw_peft_base(const saw_peft *p);
const char *saw_peft_fingerprint(const saw_peft *p);

/** After a graph was recorded with the rows: put the file's numbers among the weights, which hold
 * the base. SAW_ERR_SHAPE with names and shapes when the adapter is for another model, whose name
 * `model` is given for the sentence. */
saw_status saw_peft_bind(saw_peft *p, const saw_graph *g, saw_weights *w, const char *model);

/** Whether the file replaces a tensor of the model, and with what: `out` becomes base + strength
 * (new - base), where it holds the base. */
bool saw_peft_replaces(const saw_peft *p, const char *name);
saw_status saw_peft_replace(saw_peft *p, const char *name, int64_t first, int64_t n, float *out);

/** Tells models apart that have the same shapes: 16 hexadecimal digits of all names, dims and the
 * first numbers of each tensor. */
saw_status saw_model_fingerprint(saw_checkpoint *ck, char out[17]);

typedef struct saw_peft_save {
    const saw_graph *graph; /* recorded with the adapters, its trainables marked */
    const char *base;       /* the base model's name, and fingerprint; either may be NULL */
    const char *fingerprint;
    /** The numbers of a tensor of the graph. */
    saw_status (*read)(void *user, const char *name, const saw_dims *dims, float *out);
    void *user;
} saw_peft_save;
/** Write everything that trains, and what adapters need beside it, into a folder, which is made.
 * Each of the two files appears only when it is whole. Matrices that start from PiSSA are written
 * as LoRA of twice the rank, which is right on the base as it was. */
saw_status saw_peft_write(saw_context *ctx, const char *folder, const saw_peft_save *save);

#endif
