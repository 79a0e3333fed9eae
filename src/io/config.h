/*
 * config.h - a small tree of settings, from YAML or JSON text: maps, lists and scalars.
 *
 * YAML is read the way PyYAML reads it (anchors, aliases, merge keys `<<`), but tags such as
 * `!!python/tuple` are passed over: nothing is ever constructed from them. A file has at most 4 MB,
 * 64 levels and 200,000 nodes, where what an alias repeats counts each time.
 */
#ifndef SAW_CONFIG_H
#define SAW_CONFIG_H

#include "base/base.h"

/** A node; the root owns the whole tree. Parsed nodes never change. */
typedef struct saw_config saw_config;

typedef enum saw_config_kind {
    SAW_CONFIG_NULL,
    SAW_CONFIG_BOOL,
    SAW_CONFIG_INT,
    SAW_CONFIG_DOUBLE,
    SAW_CONFIG_STRING,
    SAW_CONFIG_LIST,
    SAW_CONFIG_MAP
} saw_config_kind;

/** Read a file: JSON when its name ends in .json, else YAML. On failure *out is NULL. */
saw_status saw_config_load(saw_context *ctx, const char *path, saw_config **out);
/** The same from text; `name` stands for the file in errors. */
saw_status saw_config_parse_yaml(saw_context *ctx, const char *name, const char *text, size_t n,
                                 saw_config **out);
saw_status saw_config_parse_json(saw_context *ctx, const char *name, const char *text, size_t n,
                                 saw_config **out);
/** Free the tree of a root. NULL is fine. */
void saw_config_free(saw_config *root);

/* ---- looking ----------------------------------------------------------------------------------- ---- */

/** What a node is; a plain scalar by its looks (as YAML 1.1 has it, and 1e-5 is a number). NULL:
 * NULL kind. */
saw_config_kind saw_config_kind_of(const saw_config *node);
/** Line of the node in its file, from 1; 0 when unknown (JSON, built). */
int saw_config_line(const saw_config *node);
/** Items of a list or entries of a map; 0 for anything else. */
int saw_config_size(const saw_config *node);
/** Item of a list or value of an entry of a map; NULL when i is out of range. */
const saw_config *saw_config_at(const saw_config *node, int i);
/** Key of entry i of a map, NULL when there is none. */
const char *saw_config_key(const saw_config *node, int i);
/** Value of a key of a map; NULL when node is no map (or NULL) or has no such key. */
const saw_config *saw_config_get(const saw_config *node, const char *key);
/** By path, keys and list positions joined with dots: "model.dim", "training.instruments.0". */
const saw_config *saw_config_find(const saw_config *node, const char *path);

/** Values; false when the node is NULL or not such a value. Text in quotes counts by what it says.
 */
bool saw_config_as_int(const saw_config *node, int64_t *out); /* also 2.0 and 0x10 */
bool saw_config_as_double(const saw_config *node, double *out);
bool saw_config_as_bool(const saw_config *node,
                        bool *out); /* true yes on, false no off, any case */
/** The text of any scalar but null; NULL for everything else. Borrows. */
const char *saw_config_as_string(const saw_config *node);

/**
 * Value at a path, or `fallback` when it is missing or null. SAW_ERR_ARGUMENT with a sentence of
 * file, line, path and what is there when it is of another kind.
 */
saw_status saw_config_int(saw_context *ctx, const saw_config *root, const char *path,
                          int64_t fallback, int64_t *out);
saw_status saw_config_double(saw_context *ctx, const saw_config *root, const char *path,
                             double fallback, double *out);
saw_status saw_config_bool(saw_context *ctx, const saw_config *root, const char *path,
                           bool fallback, bool *out);
saw_status saw_config_string(saw_context *ctx, const saw_config *root, const char *path,
                             const char *fallback, const char **out);

/* ---- making ------------------------------------------------------------------------------------ ---- */

/** An empty map to be filled; NULL when memory fails. */
saw_config *saw_config_new(saw_context *ctx);
/**
 * Put an entry into a map, or, with key NULL, append an item to a list, of a tree from
 * saw_config_new. A key that is there is replaced. SAW_ERR_MEMORY is the only failure; the last two
 * give NULL then.
 */
saw_status saw_config_put_int(saw_config *node, const char *key, int64_t value);
saw_status saw_config_put_double(saw_config *node, const char *key, double value);
saw_status saw_config_put_bool(saw_config *node, const char *key, bool value);
saw_status saw_config_put_string(saw_config *node, const char *key, const char *value);
/** A deep copy of a node of any tree. */
saw_status saw_config_put_copy(saw_config *node, const char *key, const saw_config *value);
saw_config *saw_config_put_map(saw_config *node, const char *key);
saw_config *saw_config_put_list(saw_config *node, const char *key);

/** Append the tree as JSON on one line, at most 16 MB. Read back it gives the same keys, kinds,
 * values. */
saw_status saw_config_write_json(const saw_config *node, saw_buffer *out);

/** The shortest text that reads back as the same value, with a point or an exponent. */
void saw_config_format_double(double v, char out[40]);

#endif
