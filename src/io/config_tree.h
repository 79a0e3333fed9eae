/*
 * config_tree.h - inside of config.h: the nodes, for the parser and the tree's own functions.
 */
#ifndef SAW_CONFIG_TREE_H
#define SAW_CONFIG_TREE_H

#include "io/config.h"
#include "io/pool.h"

typedef enum saw_config_shape { SHAPE_SCALAR, SHAPE_LIST, SHAPE_MAP } saw_config_shape;

typedef struct saw_config_tree {
    saw_pool pool; /* nodes, texts and keys */
    const char *name;
} saw_config_tree;

typedef struct saw_config_entry {
    const char *key; /* NULL in a list */
    saw_config *value;
} saw_config_entry;

struct saw_config {
    saw_config_tree *tree;
    saw_config_shape shape;
    bool quoted; /* a scalar that is text whatever it looks like */
    bool open;   /* the parser is still inside it */
    int line;
    int count, room;
    int64_t weight; /* nodes of this subtree, what aliases repeat counted each time */
    saw_config_entry *entries;
    const char *text;
};

saw_config_tree *saw_config_tree_new(saw_context *ctx, const char *name);
void saw_config_tree_free(saw_config_tree *tree);
saw_config *saw_config_node(saw_config_tree *tree, saw_config_shape shape, int line);
saw_config *saw_config_scalar(saw_config_tree *tree, const char *text, size_t n, bool quoted,
                              int line);
/** Append; the key is borrowed from the tree's pool. SAW_ERR_MEMORY also when value is NULL. */
saw_status saw_config_add(saw_config *node, const char *key, saw_config *value);

#endif
