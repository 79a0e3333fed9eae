/*
 * config_parse.c - YAML events (libyaml) and JSON values (jansson) into the tree of config.h.
 *
 * An alias shares the node it names, for nodes never change; its weight, the nodes it stands for,
 * counts against the limit, so that no small file can stand for a huge tree.
 */
#include "io/config_tree.h"

#include <jansson.h>
#include <string.h>
#include <yaml.h>

enum { MAX_FILE_BYTES = 4 << 20, MAX_DEPTH = 64, MAX_NODES = 200000 };

static const char MERGE[] = "<<"; /* as a key, told from a quoted "<<" by its address */

typedef struct frame {
    saw_config *node;
    const char *key; /* of the value that comes next; NULL: a key comes next, or a list */
} frame;

typedef struct parser {
    saw_context *ctx;
    saw_config_tree *tree;
    saw_name_map anchors; /* to addresses of nodes */
    frame frames[MAX_DEPTH];
    int depth;
    int64_t nodes;
    saw_config *root;
    int line;
} parser;

static saw_status fail(parser *p, const char *what)
{
    return saw_fail(p->ctx, SAW_ERR_FORMAT, "%s, line %d: %s", p->tree->name, p->line, what);
}

static saw_status count(parser *p, int64_t nodes)
{
    p->nodes += nodes;
    return p->nodes <= MAX_NODES
               ? SAW_OK
               : fail(p, "it stands for more than 200000 values; do aliases multiply them?");
}

/* ---- maps -------------------------------------------------------------------------------------- ---- */

static saw_status take_entry(saw_config *map, saw_name_map *index, saw_config_entry e, bool replace)
{
    size_t *there = saw_name_map_get(index, e.key, strlen(e.key));
    if (there) {
        if (replace)
            map->entries[*there].value = e.value;
        return SAW_OK;
    }
    saw_status status = saw_config_add(map, e.key, e.value);
    return status ? status : saw_name_map_put(index, e.key, strlen(e.key), (size_t)map->count - 1);
}

static saw_status merge(parser *p, saw_config *map, saw_name_map *index, const saw_config *from)
{
    if (from->shape != SHAPE_MAP)
        return fail(p, "a merge key '<<' needs a map or a list of maps");
    saw_status status = count(p, from->weight);
    for (int i = 0; i < from->count && !status; i++)
        status = take_entry(map, index, from->entries[i], false);
    return status;
}

/* Of equal keys the last counts; merged entries only where there is no such key. */
static saw_status finish_map(parser *p, saw_config *map)
{
    saw_config_entry *all = map->entries;
    int n = map->count;
    saw_name_map index = {.ctx = p->ctx};
    saw_status status = SAW_OK;
    map->entries = NULL;
    map->count = map->room = 0;
    map->weight = 1;
    for (int i = 0; i < n && !status; i++)
        if (all[i].key != MERGE)
            status = take_entry(map, &index, all[i], true);
    for (int i = 0; i < n && !status; i++) {
        if (all[i].key != MERGE)
            continue;
        const saw_config *from = all[i].value;
        if (from->shape != SHAPE_LIST)
            status = merge(p, map, &index, from);
        for (int k = 0; from->shape == SHAPE_LIST && k < from->count && !status; k++)
            status = merge(p, map, &index, from->entries[k].value);
    }
    saw_name_map_free(&index);
    return status;
}

/* ---- YAML -------------------------------------------------------------------------------------- ---- */

static saw_status attach(parser *p, saw_config *value)
{
    if (!value)
        return saw_fail_in(p->ctx, SAW_ERR_MEMORY, p->tree->name);
    if (!p->depth) {
        p->root = value;
        return SAW_OK;
    }
    frame *f = &p->frames[p->depth - 1];
    if (f->node->shape == SHAPE_LIST)
        return saw_config_add(f->node, NULL, value);
    if (!f->key) {
        if (value->shape != SHAPE_SCALAR)
            return fail(p, "a key must be plain text");
        f->key = !value->quoted && !strcmp(value->text, MERGE) ? MERGE : value->text;
        return SAW_OK;
    }
    saw_status status = saw_config_add(f->node, f->key, value);
    f->key = NULL;
    return status;
}

static saw_status set_anchor(parser *p, const yaml_char_t *anchor, const saw_config *node)
{
    if (!anchor || !node)
        return SAW_OK;
    size_t n = strlen((const char *)anchor);
    const char *name = saw_pool_strndup(&p->tree->pool, (const char *)anchor, n);
    return name ? saw_name_map_put(&p->anchors, name, n, (size_t)(uintptr_t)node) : SAW_ERR_MEMORY;
}

static saw_status on_alias(parser *p, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    const size_t *found = saw_name_map_get(&p->anchors, name, strlen(name));
    saw_config *node = found ? (saw_config *)(uintptr_t)*found : NULL;
    if (!node || node->open)
        return fail(p, node ? "an alias stands inside what it names" : "an alias names no anchor");
    saw_status status = count(p, node->weight);
    return status ? status : attach(p, node);
}

static saw_status on_scalar(parser *p, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value, *tag = (const char *)e->data.scalar.tag;
    size_t n = e->data.scalar.length;
    if (memchr(text, 0, n))
        return fail(p, "a text has a zero byte");
    bool quoted =
        e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE || (tag && !strcmp(tag, YAML_STR_TAG));
    saw_config *node = saw_config_scalar(p->tree, text, n, quoted, p->line);
    saw_status status = count(p, 1);
    if (!status)
        status = set_anchor(p, e->data.scalar.anchor, node);
    return status ? status : attach(p, node);
}

static saw_status on_start(parser *p, saw_config_shape shape, const yaml_char_t *anchor)
{
    if (p->depth == MAX_DEPTH)
        return fail(p, "it is nested more than 64 levels deep");
    saw_config *node = saw_config_node(p->tree, shape, p->line);
    saw_status status = node ? count(p, 1) : SAW_ERR_MEMORY;
    if (status)
        return status;
    node->open = true;
    p->frames[p->depth++] = (frame){node, NULL};
    return set_anchor(p, anchor, node);
}

static saw_status on_end(parser *p)
{
    saw_config *node = p->frames[--p->depth].node;
    saw_status status = node->shape == SHAPE_MAP ? finish_map(p, node) : SAW_OK;
    node->open = false;
    return status ? status : attach(p, node);
}

static saw_status on_event(parser *p, const yaml_event_t *e)
{
    p->line = (int)e->start_mark.line + 1;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return p->root ? fail(p, "a second document begins; one is expected") : SAW_OK;
    case YAML_ALIAS_EVENT:
        return on_alias(p, e);
    case YAML_SCALAR_EVENT:
        return on_scalar(p, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(p, SHAPE_LIST, e->data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
        return on_start(p, SHAPE_MAP, e->data.mapping_start.anchor);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(p);
    default:
        return SAW_OK;
    }
}

static saw_status read_yaml(parser *p, const char *text, size_t n)
{
    yaml_parser_t yaml;
    yaml_event_t event;
    bool ended = false;
    saw_status status = SAW_OK;
    if (!yaml_parser_initialize(&yaml))
        return saw_fail(p->ctx, SAW_ERR_MEMORY, "out of memory");
    yaml_parser_set_input_string(&yaml, (const unsigned char *)text, n);
    while (!ended && !status) {
        if (!yaml_parser_parse(&yaml, &event)) {
            p->line = (int)yaml.problem_mark.line + 1;
            status = fail(p, yaml.problem ? yaml.problem : "out of memory");
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        status = on_event(p, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&yaml);
    return status;
}

/* ---- JSON -------------------------------------------------------------------------------------- ---- */

static saw_status from_json(parser *p, const json_t *j, int depth, saw_config **out)
{
    const char *key;
    json_t *value;
    saw_config *inner, *node;
    size_t i;
    char text[40];
    saw_status status = count(p, 1);
    if (!status && depth == MAX_DEPTH && (json_is_array(j) || json_is_object(j)))
        status = fail(p, "it is nested more than 64 levels deep");
    if (status)
        return status;
    switch (json_typeof(j)) {
    case JSON_STRING:
        node = saw_config_scalar(p->tree, json_string_value(j), json_string_length(j), true, 0);
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        node = saw_config_node(p->tree, json_is_array(j) ? SHAPE_LIST : SHAPE_MAP, 0);
        break;
    case JSON_INTEGER:
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(j));
        node = saw_config_scalar(p->tree, text, strlen(text), false, 0);
        break;
    case JSON_REAL:
        saw_config_format_double(json_real_value(j), text);
        node = saw_config_scalar(p->tree, text, strlen(text), false, 0);
        break;
    default: {
        const char *word = json_is_null(j) ? "null" : json_is_true(j) ? "true" : "false";
        node = saw_config_scalar(p->tree, word, strlen(word), false, 0);
    }
    }
    if (!node)
        return saw_fail_in(p->ctx, SAW_ERR_MEMORY, p->tree->name);
    json_array_foreach(j, i, value)
    {
        status = from_json(p, value, depth + 1, &inner);
        if (!status)
            status = saw_config_add(node, NULL, inner);
        if (status)
            return status;
    }
    json_object_foreach((json_t *)j, key, value)
    {
        const char *name = saw_pool_strndup(&p->tree->pool, key, strlen(key));
        status = from_json(p, value, depth + 1, &inner);
        if (!status)
            status = name ? saw_config_add(node, name, inner) : SAW_ERR_MEMORY;
        if (status)
            return status;
    }
    *out = node;
    return SAW_OK;
}

static saw_status read_json(parser *p, const char *text, size_t n)
{
    json_error_t error;
    json_t *j = json_loadb(text, n, JSON_DECODE_ANY, &error);
    if (!j) {
        p->line = error.line;
        return fail(p, error.text);
    }
    saw_status status = from_json(p, j, 0, &p->root);
    json_decref(j);
    return status;
}

/* ---- the calls --------------------------------------------------------------------------------- ---- */

typedef saw_status read_fn(parser *p, const char *text, size_t n);

static saw_status parse(saw_context *ctx, const char *name, const char *text, size_t n,
                        read_fn *read, saw_config **out)
{
    *out = NULL;
    parser p = {.ctx = ctx, .anchors.ctx = ctx};
    if (n > MAX_FILE_BYTES)
        return saw_fail(ctx, SAW_ERR_FORMAT, "%s: has more than the 4 MB that settings may have",
                        name);
    p.tree = saw_config_tree_new(ctx, name);
    if (!p.tree)
        return SAW_ERR_MEMORY;
    saw_status status = read(&p, text, n);
    if (!status && !p.root)
        status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: is empty; settings are expected", name);
    saw_name_map_free(&p.anchors);
    if (status)
        saw_config_tree_free(p.tree);
    else
        *out = p.root;
    return status;
}

saw_status saw_config_parse_yaml(saw_context *ctx, const char *name, const char *text, size_t n,
                                 saw_config **out)
{
    return parse(ctx, name, text, n, read_yaml, out);
}

saw_status saw_config_parse_json(saw_context *ctx, const char *name, const char *text, size_t n,
                                 saw_config **out)
{
    return parse(ctx, name, text, n, read_json, out);
}

saw_status saw_config_load(saw_context *ctx, const char *path, saw_config **out)
{
    char *text;
    size_t n, length = strlen(path);
    *out = NULL;
    saw_status status = saw_read_all(ctx, path, MAX_FILE_BYTES, &text, &n);
    if (status)
        return status;
    bool json = length > 5 && !strcmp(path + length - 5, ".json");
    status = parse(ctx, path, text, n, json ? read_json : read_yaml, out);
    saw_free(ctx, text);
    return status;
}
