#include "run/recipe.h"

#include "io/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { POOL_BYTES = 8 << 20, MAX_ITEMS = 10000, NUMBER_ROOM = 40 };

#define SAW_FLAG(section, name, letter, flag, kind, value, fallback, least, most, help)            \
    {#section, #name, flag, SAW_RECIPE_##kind, offsetof(saw_recipe, name), value, fallback,        \
     help,     least, most},
#define SAW_KEY(section, name, ...) SAW_FLAG(section, name, 0, NULL, __VA_ARGS__)
#define SAW_SECTION(section, title)
static const saw_recipe_key KEYS[] = {
#include "run/recipe.def"
};
enum { N_KEYS = sizeof KEYS / sizeof *KEYS };

const saw_recipe_key *saw_recipe_key_at(int i)
{
    return i >= 0 && i < N_KEYS ? &KEYS[i] : NULL;
}

/* ---- presets --------------------------------------------------------------------------------- */

enum { PRESET_ROOM = 16 };

static const struct {
    const char *name, *help;
    struct {
        const char *key, *value;
    } rows[PRESET_ROOM];
} PRESETS[] = {
    {"quick",
     "a first answer within the hour: a small LoRA, few steps",
     {{"method", "lora"},
      {"rank", "8"},
      {"steps", "300"},
      {"warmup", "10"},
      {"validate_every", "50"},
      {"valid_seconds", "60"},
      {"patience", "3"},
      {"augment", "gain,swap,polarity"}}},
    {"careful",
     "LoRA for a night: averaged, held near the base model, more songs out of few",
     {{"method", "lora"},
      {"rank", "16"},
      {"steps", "4000"},
      {"warmup", "100"},
      {"accumulate", "4"},
      {"ema", "0.999"},
      {"rehearsal", "on"},
      {"validate_every", "200"},
      {"patience", "6"},
      {"augment", "gain,swap,polarity,eq,layer"}}},
    {"full",
     "every weight trains, slowly and held near the base model: for many songs",
     {{"method", "full"},
      {"steps", "10000"},
      {"warmup", "500"},
      {"accumulate", "4"},
      {"clip_mode", "tensor"},
      {"ema", "0.999"},
      {"layer_decay", "0.9"},
      {"l2sp", "0.001"},
      {"rehearsal", "on"},
      {"validate_every", "250"},
      {"patience", "10"},
      {"augment", "gain,swap,polarity,eq,layer"}}},
};
enum { N_PRESETS = sizeof PRESETS / sizeof *PRESETS };

const char *saw_recipe_preset_name(int i)
{
    return i >= 0 && i < N_PRESETS ? PRESETS[i].name : NULL;
}

const char *saw_recipe_preset_help(int i)
{
    return i >= 0 && i < N_PRESETS ? PRESETS[i].help : NULL;
}

const char *saw_recipe_preset_value(int i, const char *key)
{
    for (int k = 0; k < PRESET_ROOM && PRESETS[i].rows[k].key; k++)
        if (!strcmp(PRESETS[i].rows[k].key, key))
            return PRESETS[i].rows[k].value;
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------- */

static const saw_recipe_key *find_key(const char *name)
{
    const char *dot = strchr(name, '.');
    for (int i = 0; i < N_KEYS; i++) {
        size_t n = strlen(KEYS[i].section);
        if (dot ? (size_t)(dot - name) == n && !strncmp(name, KEYS[i].section, n) &&
                      !strcmp(dot + 1, KEYS[i].name)
                : !strcmp(name, KEYS[i].name))
            return &KEYS[i];
    }
    return NULL;
}

static saw_status unknown_key(saw_context *ctx, const char *source, const char *name)
{
    const char *names[N_KEYS + 1], *own = strrchr(name, '.') ? strrchr(name, '.') + 1 : name;
    for (int i = 0; i < N_KEYS; i++)
        names[i] = KEYS[i].name;
    names[N_KEYS] = "preset";
    const char *near = saw_nearest_word(own, names, N_KEYS + 1);
    const saw_recipe_key *key = near ? find_key(near) : NULL;
    if (key)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: there is no key '%s': did you mean %s.%s?",
                        source, name, key->section, key->name);
    if (near)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: there is no key '%s': did you mean %s?", source,
                        name, near);
    return saw_fail(ctx, SAW_ERR_ARGUMENT,
                    "%s: there is no key '%s': `bandsaw finetune --help-recipe` lists them", source,
                    name);
}

static saw_status bad_value(saw_recipe *r, const char *source, const saw_recipe_key *key,
                            const char *value, const char *wanted)
{
    return saw_fail(r->pool.ctx, SAW_ERR_ARGUMENT, "%s: %s '%s' makes no sense: %s is wanted",
                    source, key->name, value, wanted);
}

static bool is_auto(const saw_recipe_key *key, const char *value)
{
    return key->fallback && !strcmp(key->fallback, "auto") && !strcasecmp(value, "auto");
}

/* What the saved file could not say again is not taken. */
static bool is_printable(saw_context *ctx, const char *text)
{
    saw_buffer b = {.ctx = ctx};
    bool good = saw_json_add_string(&b, text);
    saw_buffer_free(&b);
    for (const char *p = text; *p; p++)
        good = good && (unsigned char)*p >= ' ' && *p != 127;
    return good;
}

static saw_status set_text(saw_recipe *r, const char *source, const saw_recipe_key *key,
                           const char *value, size_t n, const char **out)
{
    char *text = saw_pool_strndup(&r->pool, value, n);
    if (!text)
        return SAW_ERR_MEMORY;
    if (!is_printable(r->pool.ctx, text))
        return saw_fail(r->pool.ctx, SAW_ERR_ARGUMENT,
                        "%s: %s has bytes that are not UTF-8, or control characters: rename the "
                        "file or folder",
                        source, key->name);
    *out = text;
    return SAW_OK;
}

/* Absolute where it exists, so that a run may go on from anywhere. */
static saw_status set_path(saw_recipe *r, const char *source, const saw_recipe_key *key,
                           const char *value, const char **out)
{
    *out = NULL;
    if (!*value)
        return SAW_OK;
    char *full = realpath(value, NULL);
    const char *path = full ? full : value;
    saw_status status = set_text(r, source, key, path, strlen(path), out);
    free(full);
    return status;
}

static saw_status set_list(saw_recipe *r, const char *source, const saw_recipe_key *key,
                           const char *value, saw_recipe_list *out)
{
    char between = key->kind == SAW_RECIPE_NAMES ? ',' : ';';
    int count = 1, used = 0;
    for (const char *p = value; *p; p++)
        count += *p == between;
    if (count > MAX_ITEMS)
        return bad_value(r, source, key, "", "a list of at most 10000 items");
    const char **items = saw_pool_alloc(&r->pool, (size_t)count * sizeof *items);
    saw_status status = items ? SAW_OK : SAW_ERR_MEMORY;
    for (const char *p = value; !status && *p;) {
        size_t n = strcspn(p, (char[]){between, 0}), skip = strspn(p, " ");
        skip = skip < n ? skip : n;
        size_t length = n - skip;
        while (length && p[skip + length - 1] == ' ')
            length--;
        if (length)
            status = set_text(r, source, key, p + skip, length, &items[used++]);
        p += n + (p[n] != 0);
    }
    if (!status)
        *out = (saw_recipe_list){items, used};
    return status;
}

static bool has_word(const char *words, const char *word)
{
    size_t n = strcspn(word, "|");
    if (word[n])
        return false;
    for (const char *p = words; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (n && !strncmp(p, word, n) && (p[n] == '|' || !p[n]))
            return true;
    return false;
}

static bool parse_switch(const char *text, bool *out)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (int i = 0; i < 8; i++)
        if (!strcasecmp(text, words[i])) {
            *out = i % 2;
            return true;
        }
    return false;
}

static saw_status set_number(saw_recipe *r, const char *source, const saw_recipe_key *key,
                             const char *value, void *at)
{
    char wanted[128];
    bool whole = key->kind == SAW_RECIPE_INT;
    int64_t n = 0;
    double v = 0;
    bool good = whole ? saw_parse_int64(value, &n) : saw_parse_double(value, &v);
    v = whole ? (double)n : v;
    if (good && v >= key->least && v <= key->most) {
        if (whole)
            *(int64_t *)at = n;
        else
            *(double *)at = v;
        return SAW_OK;
    }
    if (!whole && is_auto(key, value)) {
        *(double *)at = NAN;
        return SAW_OK;
    }
    snprintf(wanted, sizeof wanted, "%sa %snumber from %.15g to %.15g",
             !whole && is_auto(key, "auto") ? "auto or " : "", whole ? "whole " : "", key->least,
             key->most);
    return bad_value(r, source, key, value, wanted);
}

static saw_status set_value(saw_recipe *r, const char *source, const saw_recipe_key *key,
                            const char *value)
{
    void *at = (char *)r + key->offset;
    char wanted[128];
    switch (key->kind) {
    case SAW_RECIPE_WORD:
        if (!has_word(key->value, value)) {
            snprintf(wanted, sizeof wanted, "one of %s", key->value);
            return bad_value(r, source, key, value, wanted);
        }
        return set_text(r, source, key, value, strlen(value), at);
    case SAW_RECIPE_PATH:
        return set_path(r, source, key, value, at);
    case SAW_RECIPE_TEXT:
        if (!*value) {
            *(const char **)at = NULL;
            return SAW_OK;
        }
        return set_text(r, source, key, value, strlen(value), at);
    case SAW_RECIPE_NAMES:
    case SAW_RECIPE_LINES:
        return set_list(r, source, key, value, at);
    case SAW_RECIPE_INT:
    case SAW_RECIPE_NUMBER:
        return set_number(r, source, key, value, at);
    case SAW_RECIPE_SWITCH:
        return parse_switch(value, at) ? SAW_OK : bad_value(r, source, key, value, "on or off");
    case SAW_RECIPE_BYTES:
        if (is_auto(key, value))
            *(size_t *)at = 0;
        else if (!saw_parse_bytes(value, at))
            return bad_value(r, source, key, value, "auto or a size as 800M or 6G");
    }
    return SAW_OK;
}

saw_status saw_recipe_set(saw_recipe *r, const char *source, const char *key, const char *value)
{
    const saw_recipe_key *k = find_key(key);
    return k ? set_value(r, source, k, value) : unknown_key(r->pool.ctx, source, key);
}

saw_status saw_recipe_set_preset(saw_recipe *r, const char *name)
{
    const char *names[N_PRESETS];
    for (int i = 0; i < N_PRESETS; i++) {
        names[i] = PRESETS[i].name;
        if (strcmp(names[i], name))
            continue;
        r->preset = names[i];
        saw_status status = SAW_OK;
        for (int k = 0; k < PRESET_ROOM && PRESETS[i].rows[k].key && !status; k++)
            status = saw_recipe_set(r, names[i], PRESETS[i].rows[k].key, PRESETS[i].rows[k].value);
        return status;
    }
    const char *near = saw_nearest_word(name, names, N_PRESETS);
    return saw_fail(r->pool.ctx, SAW_ERR_ARGUMENT,
                    near ? "there is no preset '%s': did you mean %s?"
                         : "there is no preset '%s': quick, careful and full are known",
                    name, near);
}

saw_status saw_recipe_open(saw_context *ctx, saw_recipe *out)
{
    memset(out, 0, sizeof *out);
    saw_pool_init(&out->pool, ctx, POOL_BYTES);
    saw_status status = SAW_OK;
    for (int i = 0; i < N_KEYS && !status; i++)
        if (KEYS[i].fallback)
            status = set_value(out, "default", &KEYS[i], KEYS[i].fallback);
    return status;
}

void saw_recipe_free(saw_recipe *r)
{
    saw_pool_free(&r->pool);
}

/* ---- files ----------------------------------------------------------------------------------- */

static saw_status load_list(saw_recipe *r, const char *source, const saw_recipe_key *key,
                            const saw_config *node)
{
    int n = saw_config_size(node);
    saw_recipe_list *out = (saw_recipe_list *)((char *)r + key->offset);
    if (n > MAX_ITEMS)
        return bad_value(r, source, key, "", "a list of at most 10000 items");
    const char **items = saw_pool_alloc(&r->pool, (size_t)n * sizeof *items);
    saw_status status = items ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < n && !status; i++) {
        const char *text = saw_config_as_string(saw_config_at(node, i));
        status = text && *text
                     ? set_text(r, source, key, text, strlen(text), &items[i])
                     : bad_value(r, source, key, text ? text : "", "a list of plain texts");
    }
    if (!status)
        *out = (saw_recipe_list){items, n};
    return status;
}

static saw_status load_value(saw_recipe *r, const char *source, const saw_recipe_key *key,
                             const saw_config *node)
{
    const char *text = saw_config_as_string(node);
    switch (saw_config_kind_of(node)) {
    case SAW_CONFIG_NULL: /* nothing is said */
        return SAW_OK;
    case SAW_CONFIG_LIST:
        if (key->kind == SAW_RECIPE_NAMES || key->kind == SAW_RECIPE_LINES)
            return load_list(r, source, key, node);
        return bad_value(r, source, key, "[...]", "a single value");
    case SAW_CONFIG_MAP:
        return bad_value(r, source, key, "{...}", "a value");
    default:
        return set_value(r, source, key, text);
    }
}

static saw_status load_entry(saw_recipe *r, const char *path, const char *section, const char *name,
                             const saw_config *node)
{
    char source[4200], full[256];
    snprintf(source, sizeof source, "%s, line %d", path, saw_config_line(node));
    snprintf(full, sizeof full, "%s%s%s", section ? section : "", section ? "." : "", name);
    const saw_recipe_key *key = find_key(full);
    return key ? load_value(r, source, key, node) : unknown_key(r->pool.ctx, source, full);
}

/* A map, or nothing, whose name is a section's. */
static bool is_section(const char *name, const saw_config *node)
{
    bool known = false;
    for (int i = 0; i < N_KEYS; i++)
        known = known || !strcmp(KEYS[i].section, name);
    saw_config_kind kind = saw_config_kind_of(node);
    return known && (kind == SAW_CONFIG_MAP || kind == SAW_CONFIG_NULL);
}

static saw_status load_tree(saw_recipe *r, const char *path, const saw_config *root)
{
    const char *preset = saw_config_as_string(saw_config_get(root, "preset"));
    saw_status status = SAW_OK;
    if (preset && !r->preset) {
        status = saw_recipe_set_preset(r, preset);
        if (status)
            return saw_fail_in(r->pool.ctx, status, path);
    }
    for (int i = 0; i < saw_config_size(root) && !status; i++) {
        const char *name = saw_config_key(root, i);
        const saw_config *node = saw_config_at(root, i);
        if (is_section(name, node))
            for (int k = 0; k < saw_config_size(node) && !status; k++)
                status = load_entry(r, path, name, saw_config_key(node, k), saw_config_at(node, k));
        else if (strcmp(name, "preset"))
            status = load_entry(r, path, NULL, name, node);
    }
    return status;
}

saw_status saw_recipe_load(saw_recipe *r, const char *path)
{
    saw_config *root;
    saw_status status = saw_config_load(r->pool.ctx, path, &root);
    if (status)
        return status;
    saw_config_kind kind = saw_config_kind_of(root);
    if (kind == SAW_CONFIG_MAP)
        status = load_tree(r, path, root);
    else
        status = saw_fail(r->pool.ctx, SAW_ERR_FORMAT,
                          "%s: a recipe is a map of keys and values, as `lr: 0.0003`", path);
    saw_config_free(root);
    return status;
}

/* Texts that YAML could take for something else are put in quotes. */
static void print_text(saw_buffer *out, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.+-";
    size_t n = strlen(text);
    if (n && text[0] != '-' && strspn(text, plain) == n && strcasecmp(text, "null"))
        saw_buffer_add(out, text, n);
    else if (!saw_json_add_string(out, text))
        out->failed = true;
}

static void print_size(saw_buffer *out, size_t bytes)
{
    static const char units[] = "KMG";
    int u = -1;
    while (u < 2 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        u++;
    }
    saw_buffer_printf(out, u < 0 ? "%zu" : "%zu%c", bytes, u < 0 ? 0 : units[u]);
}

void saw_recipe_print(const saw_recipe *r, const saw_recipe_key *key, saw_buffer *out)
{
    const void *at = (const char *)r + key->offset;
    const saw_recipe_list *list = at;
    const char *text;
    char number[NUMBER_ROOM] = "auto", *end;
    switch (key->kind) {
    case SAW_RECIPE_TEXT:
    case SAW_RECIPE_PATH:
    case SAW_RECIPE_WORD:
        text = *(const char *const *)at;
        if (text)
            print_text(out, text);
        else
            saw_buffer_printf(out, "\"\"");
        break;
    case SAW_RECIPE_NAMES:
    case SAW_RECIPE_LINES:
        saw_buffer_printf(out, "[");
        for (int i = 0; i < list->count; i++) {
            saw_buffer_printf(out, i ? ", " : "");
            print_text(out, list->items[i]);
        }
        saw_buffer_printf(out, "]");
        break;
    case SAW_RECIPE_INT:
        saw_buffer_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case SAW_RECIPE_NUMBER:
        if (!isnan(*(const double *)at))
            saw_config_format_double(*(const double *)at, number);
        if ((end = strstr(number, ".0")) && !end[2])
            *end = 0;
        saw_buffer_printf(out, "%s", number);
        break;
    case SAW_RECIPE_SWITCH:
        saw_buffer_printf(out, *(const bool *)at ? "on" : "off");
        break;
    case SAW_RECIPE_BYTES:
        if (*(const size_t *)at)
            print_size(out, *(const size_t *)at);
        else
            saw_buffer_printf(out, "auto");
    }
}

saw_status saw_recipe_save(const saw_recipe *r, const char *path)
{
    saw_buffer b = {.ctx = r->pool.ctx};
    for (int i = 0; i < N_KEYS; i++) {
        const saw_recipe_key *key = &KEYS[i];
        if (i == 0 || strcmp(key->section, KEYS[i - 1].section))
            saw_buffer_printf(&b, "%s%s:\n", i ? "\n" : "", key->section);
        saw_buffer_printf(&b, "  # %s\n  %s: ", key->help, key->name);
        saw_recipe_print(r, key, &b);
        saw_buffer_printf(&b, "\n");
    }
    saw_atomic_file file = {0};
    saw_status status = b.failed ? SAW_ERR_MEMORY : saw_atomic_open(r->pool.ctx, path, &file);
    if (!status) {
        fwrite(b.data, 1, b.size, file.file);
        status = saw_atomic_commit(&file);
    }
    saw_buffer_free(&b);
    return status;
}
