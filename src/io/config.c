/*
 * config.c - the tree of config.h: looking into it, making it, writing it as JSON.
 */
#include "io/config_tree.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

enum {
    POOL_BYTES = 64 << 20,
    MAX_JSON_BYTES = 16 << 20 /* long texts that aliases repeat end here */
};

/* ---- trees ------------------------------------------------------------------------------------- ---- */

saw_config_tree *saw_config_tree_new(saw_context *ctx, const char *name)
{
    saw_config_tree *tree = saw_calloc(ctx, 1, sizeof *tree);
    if (!tree)
        return NULL;
    saw_pool_init(&tree->pool, ctx, POOL_BYTES);
    tree->name = saw_pool_strndup(&tree->pool, name, strlen(name));
    if (!tree->name) {
        saw_config_tree_free(tree);
        return NULL;
    }
    return tree;
}

void saw_config_tree_free(saw_config_tree *tree)
{
    if (!tree)
        return;
    saw_context *ctx = tree->pool.ctx;
    saw_pool_free(&tree->pool);
    saw_free(ctx, tree);
}

void saw_config_free(saw_config *root)
{
    if (root)
        saw_config_tree_free(root->tree);
}

saw_config *saw_config_node(saw_config_tree *tree, saw_config_shape shape, int line)
{
    saw_config *node = saw_pool_alloc(&tree->pool, sizeof *node);
    if (node) {
        node->tree = tree;
        node->shape = shape;
        node->line = line;
        node->weight = 1;
    }
    return node;
}

saw_config *saw_config_scalar(saw_config_tree *tree, const char *text, size_t n, bool quoted,
                              int line)
{
    saw_config *node = saw_config_node(tree, SHAPE_SCALAR, line);
    if (node) {
        node->quoted = quoted;
        node->text = saw_pool_strndup(&tree->pool, text, n);
    }
    return node && node->text ? node : NULL;
}

saw_status saw_config_add(saw_config *node, const char *key, saw_config *value)
{
    if (!value)
        return SAW_ERR_MEMORY;
    if (node->count == node->room) {
        int room = node->room ? 2 * node->room : 4;
        saw_config_entry *bigger = saw_pool_alloc(&node->tree->pool, (size_t)room * sizeof *bigger);
        if (!bigger)
            return SAW_ERR_MEMORY;
        if (node->count)
            memcpy(bigger, node->entries, (size_t)node->count * sizeof *bigger);
        node->entries = bigger;
        node->room = room;
    }
    node->entries[node->count++] = (saw_config_entry){key, value};
    node->weight += value->weight;
    return SAW_OK;
}

/* ---- what a scalar says ------------------------------------------------------------------------ ---- */

static bool is_word(const char *s, const char *const *words)
{
    while (*words && strcasecmp(s, *words) != 0)
        words++;
    return *words != NULL;
}

static bool text_is_null(const char *s)
{
    static const char *const words[] = {"", "~", "null", NULL};
    return is_word(s, words);
}

static bool text_is_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", NULL}, *const no[] = {"false", "no",
                                                                                 "off", NULL};
    *out = is_word(s, yes);
    return *out || is_word(s, no);
}

/* Copy without the underscores that YAML allows between digits; false when that is not a number's
 * text. */
static bool without_underscores(const char *s, char *out, size_t room)
{
    size_t n = 0;
    if (!isdigit((unsigned char)*s) && !strchr("+-.", *s))
        return false;
    for (const char *p = s; *p; p++) {
        if (*p == '_' && p > s && isxdigit((unsigned char)p[-1]) && isxdigit((unsigned char)p[1]))
            continue;
        if (n + 1 == room || *p == '_')
            return false;
        out[n++] = *p;
    }
    out[n] = 0;
    return n > 0;
}

static bool text_is_int(const char *s, int64_t *out)
{
    char plain[80];
    if (!without_underscores(s, plain, sizeof plain))
        return false;
    char *digits = plain + (*plain == '-' || *plain == '+');
    int base = 10;
    if (digits[0] == '0' && strchr("xXoObB", digits[1]) && digits[1]) {
        base = tolower((unsigned char)digits[1]) == 'x'   ? 16
               : tolower((unsigned char)digits[1]) == 'o' ? 8
                                                          : 2;
        digits += 2;
    } else if (digits[0] == '0' && digits[1]) {
        base = 8; /* as in YAML 1.1 */
    }
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + (*plain == '-');
    if (!*digits)
        return false;
    for (; *digits; digits++) {
        int c = tolower((unsigned char)*digits), d = isdigit(c)   ? c - '0'
                                                     : isalpha(c) ? c - 'a' + 10
                                                                  : 99;
        if (d >= base || v > (limit - (uint64_t)d) / (uint64_t)base)
            return false;
        v = v * (uint64_t)base + (uint64_t)d;
    }
    *out = *plain == '-' ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static bool text_is_double(const char *s, double *out)
{
    static const char *const inf[] = {".inf", "+.inf", NULL}, *const nan[] = {".nan", NULL};
    char plain[80];
    if (is_word(s, inf) || !strcasecmp(s, "-.inf")) {
        *out = *s == '-' ? -INFINITY : INFINITY;
        return true;
    }
    if (is_word(s, nan)) {
        *out = NAN;
        return true;
    }
    if (!without_underscores(s, plain, sizeof plain) || plain[strspn(plain, "0123456789+-.eE")])
        return false;
    return saw_parse_double(plain, out);
}

saw_config_kind saw_config_kind_of(const saw_config *node)
{
    int64_t i;
    double d;
    bool b;
    if (!node)
        return SAW_CONFIG_NULL;
    if (node->shape != SHAPE_SCALAR)
        return node->shape == SHAPE_LIST ? SAW_CONFIG_LIST : SAW_CONFIG_MAP;
    if (node->quoted)
        return SAW_CONFIG_STRING;
    return text_is_null(node->text)         ? SAW_CONFIG_NULL
           : text_is_bool(node->text, &b)   ? SAW_CONFIG_BOOL
           : text_is_int(node->text, &i)    ? SAW_CONFIG_INT
           : text_is_double(node->text, &d) ? SAW_CONFIG_DOUBLE
                                            : SAW_CONFIG_STRING;
}

/* ---- looking ----------------------------------------------------------------------------------- ---- */

int saw_config_line(const saw_config *node)
{
    return node ? node->line : 0;
}

int saw_config_size(const saw_config *node)
{
    return node ? node->count : 0;
}

const saw_config *saw_config_at(const saw_config *node, int i)
{
    return node && i >= 0 && i < node->count ? node->entries[i].value : NULL;
}

const char *saw_config_key(const saw_config *node, int i)
{
    return node && i >= 0 && i < node->count ? node->entries[i].key : NULL;
}

static const saw_config *get(const saw_config *node, const char *key, size_t n)
{
    for (int i = 0; node && node->shape == SHAPE_MAP && i < node->count; i++)
        if (!strncmp(node->entries[i].key, key, n) && !node->entries[i].key[n])
            return node->entries[i].value;
    return NULL;
}

const saw_config *saw_config_get(const saw_config *node, const char *key)
{
    return get(node, key, strlen(key));
}

const saw_config *saw_config_find(const saw_config *node, const char *path)
{
    while (node && *path) {
        size_t n = strcspn(path, ".");
        if (node->shape == SHAPE_LIST) {
            int i = 0;
            for (size_t k = 0; k < n; k++)
                i = isdigit((unsigned char)path[k]) && i < 100000000 ? 10 * i + path[k] - '0'
                                                                     : INT32_MAX;
            node = n ? saw_config_at(node, i) : NULL;
        } else {
            node = get(node, path, n);
        }
        path += n + (path[n] == '.');
    }
    return node;
}

static const char *scalar_text(const saw_config *node)
{
    return node && node->shape == SHAPE_SCALAR ? node->text : NULL;
}

bool saw_config_as_int(const saw_config *node, int64_t *out)
{
    const char *s = scalar_text(node);
    double d;
    if (s && text_is_int(s, out))
        return true;
    if (!s || !text_is_double(s, &d) || d != floor(d) || fabs(d) > 9007199254740992.0)
        return false;
    *out = (int64_t)d;
    return true;
}

bool saw_config_as_double(const saw_config *node, double *out)
{
    const char *s = scalar_text(node);
    int64_t i;
    if (s && text_is_int(s, &i)) {
        *out = (double)i;
        return true;
    }
    return s && text_is_double(s, out);
}

bool saw_config_as_bool(const saw_config *node, bool *out)
{
    const char *s = scalar_text(node);
    bool v;
    if (!s || !text_is_bool(s, &v))
        return false;
    *out = v;
    return true;
}

const char *saw_config_as_string(const saw_config *node)
{
    return saw_config_kind_of(node) == SAW_CONFIG_NULL ? NULL : scalar_text(node);
}

/* A node at a path that counts: neither missing nor null. */
static const saw_config *present(const saw_config *root, const char *path)
{
    const saw_config *node = saw_config_find(root, path);
    return saw_config_kind_of(node) == SAW_CONFIG_NULL ? NULL : node;
}

static saw_status wrong_kind(saw_context *ctx, const saw_config *node, const char *path,
                             const char *wanted)
{
    const char *s = scalar_text(node);
    return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s, line %d: %s must be %s, but it is %s%.80s%s",
                    node->tree->name, node->line, path, wanted, s ? "'" : "",
                    s                           ? s
                    : node->shape == SHAPE_LIST ? "a list"
                                                : "a map",
                    s ? "'" : "");
}

saw_status saw_config_int(saw_context *ctx, const saw_config *root, const char *path,
                          int64_t fallback, int64_t *out)
{
    const saw_config *node = present(root, path);
    *out = fallback;
    return !node || saw_config_as_int(node, out) ? SAW_OK
                                                 : wrong_kind(ctx, node, path, "a whole number");
}

saw_status saw_config_double(saw_context *ctx, const saw_config *root, const char *path,
                             double fallback, double *out)
{
    const saw_config *node = present(root, path);
    *out = fallback;
    return !node || saw_config_as_double(node, out) ? SAW_OK
                                                    : wrong_kind(ctx, node, path, "a number");
}

saw_status saw_config_bool(saw_context *ctx, const saw_config *root, const char *path,
                           bool fallback, bool *out)
{
    const saw_config *node = present(root, path);
    *out = fallback;
    return !node || saw_config_as_bool(node, out) ? SAW_OK
                                                  : wrong_kind(ctx, node, path, "true or false");
}

saw_status saw_config_string(saw_context *ctx, const saw_config *root, const char *path,
                             const char *fallback, const char **out)
{
    const saw_config *node = present(root, path);
    *out = node ? saw_config_as_string(node) : fallback;
    return !node || *out ? SAW_OK : wrong_kind(ctx, node, path, "a text");
}

/* ---- making ------------------------------------------------------------------------------------ ---- */

saw_config *saw_config_new(saw_context *ctx)
{
    saw_config_tree *tree = saw_config_tree_new(ctx, "settings");
    saw_config *root = tree ? saw_config_node(tree, SHAPE_MAP, 0) : NULL;
    if (!root)
        saw_config_tree_free(tree);
    return root;
}

static saw_status put(saw_config *node, const char *key, saw_config *value)
{
    if (!value)
        return SAW_ERR_MEMORY;
    for (int i = 0; key && i < node->count; i++)
        if (!strcmp(node->entries[i].key, key)) {
            node->entries[i].value = value;
            return SAW_OK;
        }
    if (key && !(key = saw_pool_strndup(&node->tree->pool, key, strlen(key))))
        return SAW_ERR_MEMORY;
    return saw_config_add(node, key, value);
}

static saw_status put_text(saw_config *node, const char *key, const char *text, bool quoted)
{
    return put(node, key, saw_config_scalar(node->tree, text, strlen(text), quoted, 0));
}

saw_status saw_config_put_int(saw_config *node, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return put_text(node, key, text, false);
}

saw_status saw_config_put_double(saw_config *node, const char *key, double value)
{
    char text[40];
    saw_config_format_double(value, text);
    return put_text(node, key, text, false);
}

saw_status saw_config_put_bool(saw_config *node, const char *key, bool value)
{
    return put_text(node, key, value ? "true" : "false", false);
}

saw_status saw_config_put_string(saw_config *node, const char *key, const char *value)
{
    return put_text(node, key, value, true);
}

static saw_config *copy(saw_config_tree *tree, const saw_config *from)
{
    if (from->shape == SHAPE_SCALAR)
        return saw_config_scalar(tree, from->text, strlen(from->text), from->quoted, from->line);
    saw_config *to = saw_config_node(tree, from->shape, from->line);
    for (int i = 0; to && i < from->count; i++) {
        const char *key = from->entries[i].key;
        if (key && !(key = saw_pool_strndup(&tree->pool, key, strlen(key))))
            return NULL;
        if (saw_config_add(to, key, copy(tree, from->entries[i].value)))
            return NULL;
    }
    return to;
}

saw_status saw_config_put_copy(saw_config *node, const char *key, const saw_config *value)
{
    return put(node, key, copy(node->tree, value));
}

static saw_config *put_node(saw_config *node, const char *key, saw_config_shape shape)
{
    saw_config *inner = saw_config_node(node->tree, shape, 0);
    return put(node, key, inner) ? NULL : inner;
}

saw_config *saw_config_put_map(saw_config *node, const char *key)
{
    return put_node(node, key, SHAPE_MAP);
}

saw_config *saw_config_put_list(saw_config *node, const char *key)
{
    return put_node(node, key, SHAPE_LIST);
}

/* ---- JSON -------------------------------------------------------------------------------------- ---- */

void saw_config_format_double(double v, char out[40])
{
    double back;
    if (isnan(v) || isinf(v)) {
        snprintf(out, 40, "%s", isnan(v) ? ".nan" : v < 0 ? "-.inf" : ".inf");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        char *to = out;
        for (const char *p = out; *p; p++) /* the locale's decimal point may be of several bytes */
            if (strchr("0123456789+-e", *p))
                *to++ = *p;
            else if (to == out || to[-1] != '.')
                *to++ = '.';
        *to = 0;
        if (saw_parse_double(out, &back) && back == v)
            break;
    }
    if (!strpbrk(out, ".e"))
        strcat(out, ".0");
}

/* [-] int [. digits] [e [+-] digits], no zero before another digit: a real whose text can stay. */
static bool is_json_real(const char *s)
{
    if (!strpbrk(s, ".eE"))
        return false;
    s += *s == '-';
    if (!isdigit((unsigned char)*s) || (*s == '0' && isdigit((unsigned char)s[1])))
        return false;
    s += strspn(s, "0123456789");
    if (*s == '.') {
        if (!isdigit((unsigned char)*++s))
            return false;
        s += strspn(s, "0123456789");
    }
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '+' || s[1] == '-');
        if (!isdigit((unsigned char)*s))
            return false;
        s += strspn(s, "0123456789");
    }
    return !*s;
}

static bool write_scalar(const saw_config *node, saw_buffer *out)
{
    int64_t i;
    double d;
    bool b;
    char text[40];
    switch (saw_config_kind_of(node)) {
    case SAW_CONFIG_NULL:
        saw_buffer_printf(out, "null");
        return true;
    case SAW_CONFIG_BOOL:
        text_is_bool(node->text, &b);
        saw_buffer_printf(out, b ? "true" : "false");
        return true;
    case SAW_CONFIG_INT:
        text_is_int(node->text, &i);
        saw_buffer_printf(out, "%lld", (long long)i);
        return true;
    case SAW_CONFIG_DOUBLE:
        text_is_double(node->text, &d);
        saw_config_format_double(d, text);
        if (!isfinite(d)) /* JSON has no number for it; as text it reads back as the same value */
            return saw_json_add_string(out, text);
        saw_buffer_printf(out, "%s", is_json_real(node->text) ? node->text : text);
        return true;
    default:
        return saw_json_add_string(out, node->text);
    }
}

static bool write_node(const saw_config *node, saw_buffer *out)
{
    if (node->shape == SHAPE_SCALAR)
        return write_scalar(node, out);
    bool map = node->shape == SHAPE_MAP, good = true;
    saw_buffer_printf(out, map ? "{" : "[");
    for (int i = 0; i < node->count && good && out->size <= MAX_JSON_BYTES; i++) {
        saw_buffer_printf(out, "%s", i ? "," : "");
        good = !map || saw_json_add_string(out, node->entries[i].key);
        saw_buffer_printf(out, "%s", map ? ":" : "");
        good = good && write_node(node->entries[i].value, out);
    }
    saw_buffer_printf(out, map ? "}" : "]");
    return good;
}

saw_status saw_config_write_json(const saw_config *node, saw_buffer *out)
{
    bool good = write_node(node, out);
    if (out->failed)
        return SAW_ERR_MEMORY;
    if (out->size > MAX_JSON_BYTES)
        return saw_fail(out->ctx, SAW_ERR_UNSUPPORTED, "%s: would be more than 16 MB of JSON",
                        node->tree->name);
    return good ? SAW_OK
                : saw_fail(out->ctx, SAW_ERR_ARGUMENT, "%s: has text that is not UTF-8",
                           node->tree->name);
}
