/*
 * checkpoint_file.h - inside of checkpoint.h: what the readers of the single containers share.
 */
#ifndef SAW_CHECKPOINT_FILE_H
#define SAW_CHECKPOINT_FILE_H

#include "io/checkpoint.h"
#include "io/pool.h"

struct saw_checkpoint {
    saw_context *ctx;
    saw_file *file;
    saw_pool pool; /* names, notes, metadata */
    const char *container;
    const char *prefix;
    saw_ckpt_tensor *tensors;
    int count, room;
    saw_name_map index;
    const char **notes;
    int note_count;
    const char **meta; /* key, value, key, value, ... */
    int meta_count;
    saw_checkpoint **parts; /* of a folder: the files; then `file` is NULL */
    int part_count;
    saw_checkpoint_formula *formula; /* of tensors that lie in no file; else NULL */
    uint64_t seed;
};

/** A run of raw bytes in the file. */
typedef struct saw_byte_range {
    uint64_t offset, bytes;
} saw_byte_range;

/** Readers: fill in the tensors. The file is at least 8 bytes long and begins as the kind should.
 */
saw_status saw_read_torch_zip(saw_checkpoint *ck);
saw_status saw_read_torch_legacy(saw_checkpoint *ck);
saw_status saw_read_safetensors(saw_checkpoint *ck);
/** The file is the index. */
saw_status saw_read_tf_bundle(saw_checkpoint *ck);
bool saw_is_tf_bundle(saw_file *file);

/**
 * Add a tensor whose elements lie in `where`, from element `first` of it on. Checks the sizes, the
 * overflow and that every element is inside. A name that is there already is replaced.
 */
saw_status saw_ckpt_add(saw_checkpoint *ck, const char *name, size_t name_bytes,
                        const saw_ckpt_tensor *t, saw_byte_range where, uint64_t first);
/** Add a note; what cannot be printed becomes '?'. Past a limit notes are dropped. */
void saw_ckpt_note(saw_checkpoint *ck, const char *fmt, ...) SAW_PRINTF(2, 3);

#endif
