/*
 * pool.h - two small tools of the file readers: memory that is freed in one go and never grows past
 * a limit, and a map from names to numbers.
 */
#ifndef SAW_POOL_H
#define SAW_POOL_H

#include "base/base.h"

/** Blocks that live until saw_pool_free. Make one with saw_pool_init; a zeroed one may be freed. */
typedef struct saw_pool {
    saw_context *ctx;
    struct saw_pool_block *blocks;
    char *at;
    size_t left, used_bytes, limit_bytes;
} saw_pool;

void saw_pool_init(saw_pool *p, saw_context *ctx, size_t limit_bytes);
/** Zeroed, 16-byte aligned. NULL with SAW_ERR_MEMORY's sentence when the limit or the memory ends.
 */
void *saw_pool_alloc(saw_pool *p, size_t bytes);
char *saw_pool_strndup(saw_pool *p, const char *s, size_t n);
void saw_pool_free(saw_pool *p);

/** Names to numbers. Zero-initialise and set ctx. Borrows the names. */
typedef struct saw_name_map {
    saw_context *ctx;
    struct saw_name_slot *slots;
    size_t used, room;
} saw_name_map;

/** Add or replace. SAW_ERR_MEMORY is the only failure. */
saw_status saw_name_map_put(saw_name_map *m, const char *name, size_t n, size_t value);
/** The value, to be changed in place, or NULL. */
size_t *saw_name_map_get(const saw_name_map *m, const char *name, size_t n);
void saw_name_map_free(saw_name_map *m);

/** Append s as a JSON string. false when it is not UTF-8 (or memory failed, see b->failed). */
bool saw_json_add_string(saw_buffer *b, const char *s);

#endif
