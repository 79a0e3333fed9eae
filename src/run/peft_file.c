#include "run/peft_file.h"

#include "io/config.h"
#include "io/pattern.h"
#include "models/adapters/houlsby.h"
#include "models/adapters/ia3.h"
#include "models/adapters/lora.h"
#include "models/adapters/oft.h"
#include "models/adapters/road.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_ROOM = 512, EXACT_SWEEPS = 3000, BLOCK = 1 << 16, FINGERPRINT_NUMBERS = 32 };

#define PREFIX      "base_model.model."
#define WEIGHTS     "adapter_model.safetensors"
#define CONFIG      "adapter_config.json"
#define META_BASE   "bandsaw.base"
#define META_FINGER "bandsaw.fingerprint"

typedef struct peft_tensor {
    const saw_ckpt_tensor *t;
    char *name; /* in the graph */
    bool own;   /* of the model itself: replaces its tensor */
} peft_tensor;

struct saw_peft {
    saw_context *ctx;
    char *path;
    saw_checkpoint *ck;
    saw_checkpoint *start; /* what A and B were at first, where that lies in the folder; or NULL */
    saw_config *config;
    const struct method *method;
    peft_tensor *tensors;
    saw_adapted *rows;
    saw_adapters set;
};

/* ---- methods --------------------------------------------------------------------------------- */

typedef struct method {
    const char *type;                 /* peft_type */
    const char *adapter[2];           /* rows of the table of adapters that are written so */
    const char *first;                /* a module's row is made where this tensor of it is */
    const char *others;               /* its other tensors, each followed by a blank */
    const char *const read, *ignored; /* keys of the configuration, likewise */
    saw_status (*row)(saw_peft *p, const char *module, const saw_ckpt_tensor *t, saw_adapted *row);
} method;

/* Keys without a meaning for what the numbers do. */
static const char common_keys[] =
    "auto_mapping base_model_name_or_path revision task_type peft_type peft_version "
    "inference_mode target_modules exclude_modules layers_pattern layers_to_transform "
    "modules_to_save bias init_weights ";

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n)
        if ((at == words || at[-1] == ' ') && at[n] == ' ')
            return true;
    return false;
}

static bool truth(const saw_peft *p, const char *key, bool fallback)
{
    bool b;
    return saw_config_as_bool(saw_config_get(p->config, key), &b) ? b : fallback;
}

static double value(const saw_peft *p, const char *key, double fallback)
{
    double x;
    return saw_config_as_double(saw_config_get(p->config, key), &x) ? x : fallback;
}

/* An option struct of the row's own, at the adapter's defaults. */
static void *options_of(saw_peft *p, saw_adapted *row, const char *adapter)
{
    row->adapter = saw_adapter_named(adapter);
    void *o = saw_alloc(p->ctx, row->adapter->options_bytes);
    row->options = o;
    if (o)
        memcpy(o, row->adapter->defaults, row->adapter->options_bytes);
    return o;
}

/* The value of the first pattern that a module's name, or what follows a dot in it, matches. */
static saw_status pattern_value(saw_peft *p, const char *key, const char *module, double *out)
{
    const saw_config *map = saw_config_get(p->config, key);
    for (int i = 0; i < saw_config_size(map); i++) {
        saw_pattern *pattern = NULL;
        char *text = saw_format(p->ctx, "(.*\\.)?(%s)", saw_config_key(map, i));
        saw_status status = text ? saw_pattern_open(p->ctx, text, &pattern) : SAW_ERR_MEMORY;
        bool matches = !status && saw_pattern_matches(pattern, module);
        saw_pattern_close(pattern);
        saw_free(p->ctx, text);
        if (status)
            return saw_fail_in(p->ctx, status, p->path);
        if (matches) {
            if (!saw_config_as_double(saw_config_at(map, i), out))
                return saw_fail(p->ctx, SAW_ERR_FORMAT, "%s: %s of %s is not a number", p->path,
                                key, module);
            return SAW_OK;
        }
    }
    return SAW_OK;
}

static saw_status lora_row(saw_peft *p, const char *module, const saw_ckpt_tensor *t,
                           saw_adapted *row)
{
    bool dora = truth(p, "use_dora", false), known = true;
    const saw_config *init = saw_config_get(p->config, "init_lora_weights");
    const char *word = saw_config_as_string(init);
    saw_lora_options *o = options_of(p, row, dora ? "dora" : "lora");
    if (!o)
        return SAW_ERR_MEMORY;
    *o = (saw_lora_options){.rank = (int)t->dims[0],
                            .alpha = value(p, "lora_alpha", 8),
                            .rslora = truth(p, "use_rslora", false),
                            .bias = truth(p, "lora_bias", false)};
    if (word && saw_config_kind_of(init) == SAW_CONFIG_STRING) {
        bool same_base = !strcmp(word, "gaussian") || !strcmp(word, "eva");
        o->start = same_base ? SAW_LORA_ZERO : SAW_LORA_PISSA;
        known = same_base || p->start || !strncmp(word, "pissa", 5);
    }
    if (!known)
        return saw_fail(
            p->ctx, SAW_ERR_UNSUPPORTED,
            "%s: starts from %s, which changes the base: lay the adapter as it was at the "
            "start into the folder, as init/adapter_model.safetensors, or have peft "
            "convert it (path_initial_model_for_weight_conversion)",
            p->path, word);
    if (dora && (o->bias || o->start))
        return saw_fail(p->ctx, SAW_ERR_UNSUPPORTED, "%s: use_dora together with %s is not known",
                        p->path, o->bias ? "lora_bias" : "init_lora_weights pissa");
    return pattern_value(p, "alpha_pattern", module, &o->alpha);
}

static saw_status oft_row(saw_peft *p, const char *module, const saw_ckpt_tensor *t,
                          saw_adapted *row)
{
    (void)module;
    saw_oft_options *o = options_of(p, row, "oft");
    if (!o)
        return SAW_ERR_MEMORY;
    int64_t block = t->ndim == 2 ? (int64_t)(0.5 + sqrt(0.25 + 2 * (double)t->dims[1]) + 0.5) : 0;
    *o = (saw_oft_options){.block = (int)block,
                           .terms = truth(p, "use_cayley_neumann", true)
                                        ? (int)value(p, "num_cayley_neumann_terms", 5)
                                        : 0,
                           .shared = truth(p, "block_share", false)};
    if (block < 2 || block > 100000 || block * (block - 1) / 2 != t->dims[1] || o->terms < 0 ||
        o->terms > 32)
        return saw_fail(p->ctx, SAW_ERR_FORMAT,
                        "%s: %s is not what is above the diagonal of blocks", p->path, t->name);
    return SAW_OK;
}

/* Whether a module is among feedforward_modules: a pattern of whole names, or a list of endings. */
static saw_status is_feedforward(saw_peft *p, const char *module, bool *out)
{
    const saw_config *f = saw_config_get(p->config, "feedforward_modules");
    const char *word = saw_config_as_string(f);
    saw_pattern *pattern;
    *out = false;
    if (word) {
        saw_status status = saw_pattern_open(p->ctx, word, &pattern);
        if (status)
            return saw_fail_in(p->ctx, status, p->path);
        *out = saw_pattern_matches(pattern, module);
        saw_pattern_close(pattern);
    }
    for (int i = 0; i < saw_config_size(f); i++) {
        const char *end = saw_config_as_string(saw_config_at(f, i));
        size_t n = end ? strlen(end) : 0, m = strlen(module);
        *out = *out || (n && n <= m && !strcmp(module + m - n, end) &&
                        (n == m || module[m - n - 1] == '.'));
    }
    return SAW_OK;
}

static saw_status ia3_row(saw_peft *p, const char *module, const saw_ckpt_tensor *t,
                          saw_adapted *row)
{
    saw_ia3_options *o = options_of(p, row, "ia3");
    if (!o)
        return SAW_ERR_MEMORY;
    if (t->ndim == 2 && t->count > 1) { /* the shape tells */
        o->input = t->dims[0] == 1;
        return SAW_OK;
    }
    return is_feedforward(p, module, &o->input);
}

static saw_status road_row(saw_peft *p, const char *module, const saw_ckpt_tensor *t,
                           saw_adapted *row)
{
    (void)module, (void)t;
    static const char *const variants[] = {"road_1", "road_2", "road_4"};
    const char *name = saw_config_as_string(saw_config_get(p->config, "variant"));
    double group = value(p, "group_size", 64);
    saw_road_options *o = options_of(p, row, "road");
    if (!o)
        return SAW_ERR_MEMORY;
    o->group = group >= 2 && group <= 1e6 ? (int)group : 0;
    for (o->variant = 0; name && o->variant < 3 && strcmp(name, variants[o->variant]);)
        o->variant++;
    if (o->variant == 3 || o->group < 2 || o->group % 2)
        return saw_fail(p->ctx, SAW_ERR_UNSUPPORTED,
                        "%s: the variant %s with groups of %d is not known", p->path,
                        name ? name : "", o->group);
    return SAW_OK;
}

static saw_status houlsby_row(saw_peft *p, const char *module, const saw_ckpt_tensor *t,
                              saw_adapted *row)
{
    (void)module;
    saw_houlsby_options *o = options_of(p, row, "houlsby");
    if (!o)
        return SAW_ERR_MEMORY;
    o->width = (int)t->dims[0];
    return SAW_OK;
}

static const method methods[] = {
    {"LORA",
     {"lora", "dora"},
     "lora_A.weight",
     "lora_B.weight lora_B.bias lora_magnitude_vector ",
     "r lora_alpha rank_pattern alpha_pattern use_rslora use_dora lora_bias init_lora_weights "
     "target_parameters ",
     "lora_dropout loftq_config megatron_config megatron_core eva_config corda_config "
     "lora_ga_config ensure_weight_tying qalora_group_size runtime_config ",
     lora_row},
    {"OFT",
     {"oft"},
     "oft_R.weight",
     "",
     "r oft_block_size use_cayley_neumann num_cayley_neumann_terms block_share ",
     "coft eps module_dropout ", /* of coft the numbers in the file have been projected */
     oft_row},
    {"IA3", {"ia3"}, "ia3_l", "", "feedforward_modules ", "init_ia3_weights ", ia3_row},
    {"ROAD", {"road"}, "road_theta", "road_alpha ", "variant group_size ", "", road_row},
    {"HOULSBY",
     {"houlsby"},
     "houlsby_down.weight",
     "houlsby_down.bias houlsby_up.weight houlsby_up.bias ",
     "width ",
     "",
     houlsby_row},
    {"TENSORS", {NULL}, " ", "", "", "", NULL}};

enum { METHODS = sizeof methods / sizeof *methods };

/* ---- opening --------------------------------------------------------------------------------- */

static bool is_nothing(const saw_config *c)
{
    const char *text = saw_config_as_string(c);
    double x;
    bool b;
    switch (saw_config_kind_of(c)) {
    case SAW_CONFIG_NULL:
        return true;
    case SAW_CONFIG_BOOL:
        return saw_config_as_bool(c, &b) && !b;
    case SAW_CONFIG_INT:
    case SAW_CONFIG_DOUBLE:
        return saw_config_as_double(c, &x) && x == 0;
    case SAW_CONFIG_STRING:
        return !*text;
    default:
        return !saw_config_size(c);
    }
}

static saw_status check_config(saw_peft *p)
{
    const char *type = saw_config_as_string(saw_config_get(p->config, "peft_type"));
    for (int i = 0; type && i < METHODS && !p->method; i++)
        p->method = strcmp(methods[i].type, type) ? NULL : &methods[i];
    if (!p->method)
        return saw_fail(p->ctx, SAW_ERR_UNSUPPORTED,
                        "%s: the method %s is not here; LORA (with rsLoRA, DoRA, PiSSA), OFT, IA3 "
                        "and ROAD are",
                        p->path, type ? type : "(none)");
    for (int i = 0; i < saw_config_size(p->config); i++) {
        const char *key = saw_config_key(p->config, i);
        if (!has_word(common_keys, key) && !has_word(p->method->read, key) &&
            !has_word(p->method->ignored, key) && !is_nothing(saw_config_at(p->config, i)))
            return saw_fail(p->ctx, SAW_ERR_UNSUPPORTED,
                            "%s: %s is set to %.60s, and what that means is not known", p->path,
                            key,
                            saw_config_as_string(saw_config_at(p->config, i))
                                ? saw_config_as_string(saw_config_at(p->config, i))
                                : "something");
    }
    return SAW_OK;
}

static bool strip_end(char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    if (n < m || strcmp(name + n - m, end))
        return false;
    name[n - m] = 0;
    return true;
}

/* The matrices of a recurrent module, in torch's order. */
static const char *const recurrent[] = {"weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse",
                                        "weight_hh_l0_reverse"};
enum { RECURRENT = sizeof recurrent / sizeof *recurrent };

static bool is_target(const saw_config *list, const char *name)
{
    for (int i = 0; i < saw_config_size(list); i++) {
        const char *end = saw_config_as_string(saw_config_at(list, i));
        size_t n = end ? strlen(end) : 0, m = strlen(name);
        if (n && n <= m && !strcmp(name + m - n, end) && (n == m || name[m - n - 1] == '.'))
            return true;
    }
    return false;
}

/* target_parameters: each adapted matrix of a module is one more layer around it; the first in
 * torch's order lies innermost, below the most ".base_layer". Makes the module the matrix. */
static saw_status find_matrix(saw_peft *p, char module[NAME_ROOM], int depth)
{
    const saw_config *list = saw_config_get(p->config, "target_parameters");
    const char *found[RECURRENT];
    char name[2 * NAME_ROOM];
    int n = 0;
    for (int i = 0; i < RECURRENT; i++) {
        snprintf(name, sizeof name, "%s.%s", module, recurrent[i]);
        if (is_target(list, name))
            found[n++] = recurrent[i];
    }
    if (!n && !depth)
        return SAW_OK;
    if (depth >= n)
        return saw_fail(p->ctx, SAW_ERR_FORMAT,
                        "%s: %s has tensors for more matrices than target_parameters names",
                        p->path, module);
    snprintf(name, sizeof name, "%s.%s", module, found[n - 1 - depth]);
    snprintf(module, NAME_ROOM, "%.*s", NAME_ROOM - 1, name);
    return SAW_OK;
}

/* The name in the graph of a tensor of the file. */
static saw_status name_tensor(saw_peft *p, peft_tensor *x, bool *first, char module[NAME_ROOM])
{
    const char *key = x->t->name, *part = NULL;
    char words[256];
    *first = false;
    if (strncmp(key, PREFIX, sizeof PREFIX - 1) ||
        snprintf(module, NAME_ROOM, "%s", key + sizeof PREFIX - 1) >= NAME_ROOM)
        return saw_fail(p->ctx, SAW_ERR_FORMAT, "%s: the tensor %.100s is not called %s...",
                        p->path, key, PREFIX);
    snprintf(words, sizeof words, "%s %s", p->method->first, p->method->others);
    for (char *save = NULL, *w = strtok_r(words, " ", &save); w && !part;
         w = strtok_r(NULL, " ", &save)) {
        char end[64];
        snprintf(end, sizeof end, ".%s", w);
        if (strip_end(module, end)) {
            part = w;
            *first = !strcmp(w, p->method->first);
        }
    }
    saw_status status = SAW_OK;
    x->own = !part;
    if (part) {
        int depth = 0;
        while (strip_end(module, ".base_layer"))
            depth++;
        if (depth || saw_config_size(saw_config_get(p->config, "target_parameters")))
            status = find_matrix(p, module, depth);
        if (!status)
            x->name = saw_format(p->ctx, "%s.%s", module, part);
    } else {
        char *base = strstr(module, ".base_layer.");
        x->name = base ? saw_format(p->ctx, "%.*s%s", (int)(base - module), module, base + 11)
                       : saw_strdup(p->ctx, module);
    }
    return status ? status : x->name ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status read_tensors(saw_peft *p)
{
    int n = saw_checkpoint_count(p->ck);
    saw_status status = SAW_OK;
    p->tensors = saw_calloc(p->ctx, (size_t)n + 1, sizeof *p->tensors);
    p->set.rows = p->rows = saw_calloc(p->ctx, (size_t)n + 1, sizeof *p->rows);
    if (!p->tensors || !p->rows)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < n && !status; i++) {
        char module[NAME_ROOM];
        bool first;
        p->tensors[i].t = saw_checkpoint_at(p->ck, i);
        status = name_tensor(p, &p->tensors[i], &first, module);
        if (status || !first)
            continue;
        const saw_ckpt_tensor *t = p->tensors[i].t;
        saw_adapted *row = &p->rows[p->set.count++];
        if (t->ndim < 1 || t->dims[0] < 1 || t->dims[0] > 1 << 20)
            return saw_fail(p->ctx, SAW_ERR_FORMAT, "%s: the tensor %s is empty or too large",
                            p->path, t->name);
        row->glob = saw_strdup(p->ctx, module);
        status = row->glob ? p->method->row(p, module, t, row) : SAW_ERR_MEMORY;
    }
    if (!status && !n)
        status = saw_fail(p->ctx, SAW_ERR_FORMAT, "%s: has no tensors", p->path);
    return status;
}

/* The adapter as it was before training, for starts that change the base. */
static saw_status open_start(saw_peft *p, const char *folder, int n)
{
    static const char *const names[] = {"init/" WEIGHTS, "start_" WEIGHTS};
    saw_status status = SAW_OK;
    for (int i = 0; i < 2 && !status && !p->start; i++) {
        char *path = saw_format(p->ctx, "%.*s%s", n, folder, names[i]);
        status = !path                ? SAW_ERR_MEMORY
                 : access(path, R_OK) ? SAW_OK
                                      : saw_checkpoint_open(p->ctx, path, &p->start);
        saw_free(p->ctx, path);
    }
    return status;
}

static saw_status open_files(saw_peft *p, const char *path)
{
    struct stat s;
    bool folder = !stat(path, &s) && S_ISDIR(s.st_mode);
    char *weights = folder ? saw_format(p->ctx, "%s/%s", path, WEIGHTS) : saw_strdup(p->ctx, path);
    const char *slash = weights ? strrchr(weights, '/') : NULL;
    int n = slash ? (int)(slash - weights) + 1 : 0;
    char *config = weights ? saw_format(p->ctx, "%.*s%s", n, weights, CONFIG) : NULL;
    saw_status status = config ? open_start(p, weights, n) : SAW_ERR_MEMORY;
    if (!status)
        status = saw_config_load(p->ctx, config, &p->config);
    if (!status)
        status = check_config(p);
    if (!status)
        status = saw_checkpoint_open(p->ctx, weights, &p->ck);
    saw_free(p->ctx, config);
    saw_free(p->ctx, weights);
    return status;
}

saw_status saw_peft_open(saw_context *ctx, const char *path, saw_peft **out)
{
    *out = NULL;
    saw_peft *p = saw_calloc(ctx, 1, sizeof *p);
    if (!p)
        return SAW_ERR_MEMORY;
    p->ctx = ctx;
    p->path = saw_strdup(ctx, path);
    saw_status status = p->path ? open_files(p, path) : SAW_ERR_MEMORY;
    if (!status)
        status = read_tensors(p);
    if (status) {
        saw_peft_close(p);
        return status;
    }
    *out = p;
    return SAW_OK;
}

void saw_peft_close(saw_peft *p)
{
    if (!p)
        return;
    for (int i = 0; p->tensors && i < saw_checkpoint_count(p->ck); i++)
        saw_free(p->ctx, p->tensors[i].name);
    for (int i = 0; i < p->set.count; i++) {
        saw_free(p->ctx, (void *)p->rows[i].glob);
        saw_free(p->ctx, (void *)p->rows[i].options);
    }
    saw_free(p->ctx, p->tensors);
    saw_free(p->ctx, p->rows);
    saw_config_free(p->config);
    saw_checkpoint_close(p->ck);
    saw_checkpoint_close(p->start);
    saw_free(p->ctx, p->path);
    saw_free(p->ctx, p);
}

const saw_adapters *saw_peft_adapters(const saw_peft *p)
{
    return &p->set;
}

void saw_peft_set(saw_peft *p, bool attached, double strength)
{
    p->set.strength = strength;
    for (int i = 0; i < p->set.count; i++)
        p->rows[i].attached = attached;
}

bool saw_peft_tensor(const saw_peft *p, int i, const char **key, const char **name)
{
    if (i < 0 || i >= saw_checkpoint_count(p->ck))
        return false;
    *key = p->tensors[i].t->name;
    *name = p->tensors[i].name;
    return true;
}

const char *saw_peft_type(const saw_peft *p)
{
    return p->method->type;
}

const char *saw_peft_base(const saw_peft *p)
{
    return saw_checkpoint_meta(p->ck, META_BASE);
}

const char *saw_peft_fingerprint(const saw_peft *p)
{
    return saw_checkpoint_meta(p->ck, META_FINGER);
}

/* ---- on a model ------------------------------------------------------------------------------ */

static const peft_tensor *own_tensor(const saw_peft *p, const char *name)
{
    for (int i = 0; i < saw_checkpoint_count(p->ck); i++)
        if (p->tensors[i].own && !strcmp(p->tensors[i].name, name))
            return &p->tensors[i];
    return NULL;
}

bool saw_peft_replaces(const saw_peft *p, const char *name)
{
    return own_tensor(p, name) != NULL;
}

static saw_status replace(saw_peft *p, const peft_tensor *x, int64_t first, int64_t n, float *out)
{
    double strength = p->set.strength;
    if (strength == 0 || strength == 1)
        return saw_checkpoint_read_f32(p->ck, x->t, first, n, out);
    float block[256];
    saw_status status = SAW_OK;
    for (int64_t at = 0, m; at < n && !status; at += m) {
        m = n - at < 256 ? n - at : 256;
        status = saw_checkpoint_read_f32(p->ck, x->t, first + at, m, block);
        for (int64_t i = 0; i < m && !status; i++)
            out[at + i] =
                (float)((1 - strength) * (double)out[at + i] + strength * (double)block[i]);
    }
    return status;
}

saw_status saw_peft_replace(saw_peft *p, const char *name, int64_t first, int64_t n, float *out)
{
    const peft_tensor *x = own_tensor(p, name);
    return x ? replace(p, x, first, n, out) : SAW_OK;
}

static void print_dims(saw_buffer *b, const saw_dims *d)
{
    saw_buffer_printf(b, " [");
    for (int i = 0; i < d->n; i++)
        saw_buffer_printf(b, "%s%lld", i ? "," : "", (long long)d->d[i]);
    saw_buffer_printf(b, "]");
}

/* What does not fit in one sentence. */
static saw_status check_fit(saw_peft *p, const saw_graph *g, const char *model)
{
    saw_buffer text = {.ctx = p->ctx};
    int wrong = 0;
    for (int i = 0; i < saw_checkpoint_count(p->ck); i++) {
        const peft_tensor *x = &p->tensors[i];
        saw_val v = saw_graph_find(g, x->name);
        bool there = v && saw_graph_value(g, v)->kind == SAW_VALUE_PARAM;
        saw_dims have = saw_dims_of(x->t->ndim, x->t->dims), want = saw_dims_val(g, v);
        if ((there && saw_dims_equal(&have, &want)) || wrong++ >= 3)
            continue;
        saw_buffer_printf(&text, "%s%s", wrong > 1 ? "; " : "", x->name);
        print_dims(&text, &have);
        if (there)
            print_dims((saw_buffer_printf(&text, " where the model takes"), &text), &want);
    }
    for (const nn_adapted *a = nn_adapted_first(g); a && !wrong; a = a->next)
        for (int k = 0; k < a->tensors; k++) {
            const saw_value *x = saw_graph_value(g, a->tensor[k]);
            bool there = x->frozen;
            for (int i = 0; i < saw_checkpoint_count(p->ck) && !there; i++)
                there = !strcmp(p->tensors[i].name, x->name);
            if (!there && !wrong++)
                saw_buffer_printf(&text, "its tensor %s is missing", x->name);
        }
    const char *base = saw_peft_base(p);
    saw_status status = SAW_OK;
    if (wrong)
        status = saw_fail(p->ctx, SAW_ERR_SHAPE,
                          "%s: is an adapter for %s and does not fit %s: %d tensors are not "
                          "those of the model: %s%s",
                          p->path, base ? base : "another model", model, wrong,
                          text.data ? text.data : "", wrong > 3 ? "; ..." : "");
    saw_buffer_free(&text);
    return status;
}

static saw_status bind_tensor(saw_peft *p, const peft_tensor *x, saw_weights *w)
{
    saw_dims dims = saw_dims_of(x->t->ndim, x->t->dims);
    float *data = saw_calloc(p->ctx, (size_t)x->t->count + 1, sizeof *data);
    saw_status status = data ? SAW_OK : SAW_ERR_MEMORY;
    if (!status && x->own && p->set.strength != 0 && p->set.strength != 1)
        status = saw_weights_read(w, x->name, &dims, data);
    if (!status)
        status = x->own ? replace(p, x, 0, x->t->count, data)
                        : saw_checkpoint_read_f32(p->ck, x->t, 0, x->t->count, data);
    for (int64_t i = 0; i < x->t->count && !status; i++)
        if (!isfinite(data[i]))
            status = saw_fail(p->ctx, SAW_ERR_FORMAT,
                              "%s: the tensor %s has a value that is not a finite number", p->path,
                              x->t->name);
    if (!status)
        status = saw_weights_set(w, x->name, dims, data);
    saw_free(p->ctx, data);
    return status;
}

/* A tensor of the start, by its name in the graph. */
static saw_status read_start(saw_peft *p, const nn_adapted *a, const char *part, const saw_dims *d,
                             float *out)
{
    char name[2 * NAME_ROOM];
    const saw_ckpt_tensor *t = NULL;
    snprintf(name, sizeof name, "%s.%s", a->module, part);
    for (int i = 0; i < saw_checkpoint_count(p->ck) && !t; i++)
        if (!strcmp(p->tensors[i].name, name))
            t = saw_checkpoint_find(p->start, p->tensors[i].t->name);
    saw_dims have = t ? saw_dims_of(t->ndim, t->dims) : (saw_dims){0};
    if (!t || !saw_dims_equal(&have, d))
        return saw_fail(p->ctx, SAW_ERR_SHAPE, "%s: its start values have no %s of the same shape",
                        p->path, name);
    return saw_checkpoint_read_f32(p->start, t, 0, t->count, out);
}

/* A0 and B0 of a matrix whose base was changed: the start values, else by PiSSA's decomposition of
 * its weight. */
static saw_status bind_start(saw_peft *p, const saw_graph *g, const nn_adapted *a, saw_weights *w)
{
    float *base = saw_calloc(p->ctx, (size_t)saw_dims_count(&a->dims) + 1, sizeof *base);
    float *values[2] = {NULL, NULL};
    saw_dims dims[2];
    saw_status status = base ? SAW_OK : SAW_ERR_MEMORY;
    for (int k = 0; k < 2 && !status; k++) {
        dims[k] = saw_dims_val(g, a->tensor[a->tensors - 2 + k]);
        values[k] = saw_calloc(p->ctx, (size_t)saw_dims_count(&dims[k]) + 1, sizeof(float));
        status = values[k] ? SAW_OK : SAW_ERR_MEMORY;
    }
    for (int k = 0; k < 2 && !status && p->start; k++)
        status = read_start(p, a, k ? "lora_B.weight" : "lora_A.weight", &dims[k], values[k]);
    if (!status && !p->start)
        status = saw_weights_read(w, a->weight, &a->dims, base);
    if (!status && !p->start)
        status = saw_lora_pissa(p->ctx, a->row->options, &a->matrix, base, EXACT_SWEEPS, values[0],
                                values[1]);
    for (int k = 0; k < 2 && !status; k++)
        status = saw_weights_set(w, saw_graph_value(g, a->tensor[a->tensors - 2 + k])->name,
                                 dims[k], values[k]);
    saw_free(p->ctx, values[0]);
    saw_free(p->ctx, values[1]);
    saw_free(p->ctx, base);
    return status;
}

saw_status saw_peft_bind(saw_peft *p, const saw_graph *g, saw_weights *w, const char *model)
{
    saw_status status = check_fit(p, g, model);
    for (const nn_adapted *a = nn_adapted_first(g); a && !status; a = a->next)
        if (a->row->adapter->start_reads && !strcmp(a->row->adapter->name, "lora") &&
            a->row->adapter->start_reads(a->row->options))
            status = bind_start(p, g, a, w);
    for (int i = 0; i < saw_checkpoint_count(p->ck) && !status; i++)
        status = bind_tensor(p, &p->tensors[i], w);
    return status;
}

saw_status saw_model_fingerprint(saw_checkpoint *ck, char out[17])
{
    uint64_t sum = 0;
    saw_status status = SAW_OK;
    for (int i = 0; i < saw_checkpoint_count(ck) && !status; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        struct {
            uint64_t name;
            int64_t dims[SAW_MAX_DIMS];
            float first[FINGERPRINT_NUMBERS];
        } own = {.name = saw_fnv1a(t->name, strlen(t->name))};
        memcpy(own.dims, t->dims, (size_t)t->ndim * sizeof *t->dims);
        int64_t n = t->count < FINGERPRINT_NUMBERS ? t->count : FINGERPRINT_NUMBERS;
        status = saw_checkpoint_read_f32(ck, t, 0, n, own.first);
        sum += saw_fnv1a(&own, sizeof own); /* whatever their order */
    }
    snprintf(out, 17, "%016llx", (unsigned long long)sum);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A tensor of the new file: rows of A are followed by those of A0, columns of B by those of -B0. */
typedef struct out_tensor {
    char *key;
    saw_val v, start; /* start 0: v alone */
    bool columns;
} out_tensor;

typedef struct writer {
    saw_context *ctx;
    const saw_peft_save *save;
    const saw_graph *g;
    const method *method;
    const nn_adapted *first;
    out_tensor *tensors;
    saw_safetensors_entry *entries;
    int n;
} writer;

static bool is_pissa(const nn_adapted *a)
{
    return !strcmp(a->row->adapter->name, "lora") &&
           ((const saw_lora_options *)a->row->options)->start == SAW_LORA_PISSA;
}

static const nn_adapted *adapted_module(const saw_graph *g, const char *module)
{
    for (const nn_adapted *a = nn_adapted_first(g); a; a = a->next)
        if (!strcmp(a->module, module))
            return a;
    return NULL;
}

/* "a.b.weight_ih_l0" is a matrix of the module "a.b": how many adapted ones come after it. */
static int matrices_after(const saw_graph *g, const char *matrix)
{
    const char *dot = strrchr(matrix, '.');
    int at = 0, after = 0;
    char name[NAME_ROOM];
    while (at < RECURRENT && strcmp(recurrent[at], dot ? dot + 1 : matrix))
        at++;
    for (int i = at + 1; i < RECURRENT; i++) {
        snprintf(name, sizeof name, "%.*s%s", dot ? (int)(dot - matrix) + 1 : 0, matrix,
                 recurrent[i]);
        after += adapted_module(g, name) != NULL;
    }
    return after;
}

static saw_status put_tensor(writer *w, const out_tensor *t, const char *key)
{
    out_tensor *to = &w->tensors[w->n];
    *to = *t;
    to->key = saw_strdup(w->ctx, key);
    saw_dims d = saw_dims_val(w->g, t->v);
    if (t->start)
        d.d[t->columns ? 1 : 0] *= 2;
    w->entries[w->n] = (saw_safetensors_entry){.name = to->key, .dtype = SAW_F32, .ndim = d.n};
    memcpy(w->entries[w->n++].dims, d.d, sizeof d.d);
    return to->key ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status list_adapted(writer *w, const nn_adapted *a)
{
    char key[2 * NAME_ROOM];
    saw_status status = SAW_OK;
    bool pissa = is_pissa(a);
    for (int k = 0; k < a->tensors && !status; k++) {
        const saw_value *x = saw_graph_value(w->g, a->tensor[k]);
        if (x->frozen)
            continue;
        const char *part = x->name + strlen(a->module) + (*a->module != 0);
        size_t n = strlen(a->module);
        int depth = 0;
        if (a->kind == SAW_SITE_MATRIX) {
            n = (size_t)(strrchr(a->module, '.') - a->module);
            depth = matrices_after(w->g, a->module);
        }
        int at = snprintf(key, sizeof key, "%s%.*s", PREFIX, (int)n, a->module);
        for (int d = 0; d < depth; d++)
            at += snprintf(key + at, sizeof key - (size_t)at, ".base_layer");
        snprintf(key + at, sizeof key - (size_t)at, ".%s", part);
        out_tensor t = {.v = a->tensor[k],
                        .start = pissa && k < 2 ? a->tensor[a->tensors - 2 + k] : 0,
                        .columns = k == 1};
        status = put_tensor(w, &t, key);
    }
    return status;
}

/* A tensor of the model itself. */
static saw_status list_own(writer *w, saw_val v)
{
    const char *name = saw_graph_value(w->g, v)->name, *dot = strrchr(name, '.');
    char key[2 * NAME_ROOM], module[NAME_ROOM];
    snprintf(module, sizeof module, "%.*s", dot ? (int)(dot - name) : 0, name);
    const nn_adapted *a = adapted_module(w->g, module);
    if (a && a->weight)
        snprintf(key, sizeof key, "%s%s.base_layer%s", PREFIX, module, dot);
    else
        snprintf(key, sizeof key, "%s%s", PREFIX, name);
    return put_tensor(w, &(out_tensor){.v = v}, key);
}

static saw_status list_tensors(writer *w)
{
    size_t n = (size_t)saw_graph_values(w->g);
    bool *adapter = saw_calloc(w->ctx, n, sizeof *adapter);
    w->tensors = saw_calloc(w->ctx, n, sizeof *w->tensors);
    w->entries = saw_calloc(w->ctx, n, sizeof *w->entries);
    saw_status status = adapter && w->tensors && w->entries ? SAW_OK : SAW_ERR_MEMORY;
    for (const nn_adapted *a = w->first; a && !status; a = a->next) {
        const char *name = a->row->adapter->name;
        if ((!w->method->adapter[0] || strcmp(w->method->adapter[0], name)) &&
            (!w->method->adapter[1] || strcmp(w->method->adapter[1], name)))
            status = saw_fail(w->ctx, SAW_ERR_UNSUPPORTED,
                              "%s and %s cannot be in one adapter file: use one kind of adapter",
                              w->first->row->adapter->name, name);
        else
            status = list_adapted(w, a);
        for (int k = 0; k < a->tensors; k++)
            adapter[a->tensor[k]] = true;
    }
    for (saw_val v = 1; v < (saw_val)n && !status; v++)
        if (saw_graph_value(w->g, v)->kind == SAW_VALUE_PARAM && !adapter[v] &&
            saw_graph_value(w->g, v)->trainable)
            status = list_own(w, v);
    saw_free(w->ctx, adapter);
    return status;
}

static saw_status write_tensor(writer *w, const out_tensor *t, saw_safetensors *out)
{
    saw_dims d = saw_dims_val(w->g, t->v);
    size_t n = (size_t)saw_dims_count(&d);
    float *x = saw_calloc(w->ctx, 2 * n + 1, sizeof *x);
    saw_status status =
        x ? w->save->read(w->save->user, saw_graph_value(w->g, t->v)->name, &d, x) : SAW_ERR_MEMORY;
    if (!status && t->start)
        status = w->save->read(w->save->user, saw_graph_value(w->g, t->start)->name, &d, x + n);
    if (!status && t->start && t->columns) {
        size_t rows = (size_t)d.d[0], inner = n / rows;
        for (size_t r = 0; r < rows && !status; r++) {
            for (size_t i = 0; i < inner; i++)
                x[n + r * inner + i] = -x[n + r * inner + i];
            status = saw_safetensors_write(out, x + r * inner, inner * sizeof *x);
            if (!status)
                status = saw_safetensors_write(out, x + n + r * inner, inner * sizeof *x);
        }
    } else if (!status) {
        status = saw_safetensors_write(out, x, (t->start ? 2 : 1) * n * sizeof *x);
    }
    saw_free(w->ctx, x);
    return status;
}

static saw_status write_weights(writer *w, const char *folder)
{
    const char *meta[6] = {"format", "pt"};
    int n_meta = 1;
    if (w->save->base) {
        meta[2 * n_meta] = META_BASE;
        meta[2 * n_meta++ + 1] = w->save->base;
    }
    if (w->save->fingerprint) {
        meta[2 * n_meta] = META_FINGER;
        meta[2 * n_meta++ + 1] = w->save->fingerprint;
    }
    char *path = saw_format(w->ctx, "%s/%s", folder, WEIGHTS);
    saw_safetensors *out;
    saw_status status =
        path ? saw_safetensors_create(w->ctx, path, w->entries, w->n, meta, n_meta, &out)
             : SAW_ERR_MEMORY;
    saw_free(w->ctx, path);
    if (status)
        return status;
    for (int i = 0; i < w->n && !status; i++)
        status = write_tensor(w, &w->tensors[i], out);
    if (!status)
        return saw_safetensors_commit(out);
    saw_safetensors_abort(out);
    return status;
}

/* rank_pattern and alpha_pattern take a name as a pattern. */
static void quote(const char *module, char out[2 * NAME_ROOM])
{
    size_t n = 0;
    out[n++] = '^';
    for (; *module && n + 3 < 2 * NAME_ROOM; module++) {
        if (*module == '.')
            out[n++] = '\\';
        out[n++] = *module;
    }
    out[n] = 0;
}

static double written_rank(const nn_adapted *a)
{
    return ((const saw_lora_options *)a->row->options)->rank * (is_pissa(a) ? 2 : 1);
}

/* Twice the rank, the same scale. */
static double written_alpha(const nn_adapted *a)
{
    const saw_lora_options *o = a->row->options;
    return o->alpha * (!is_pissa(a) ? 1 : o->rslora ? sqrt(2) : 2);
}

static saw_status put_lora(writer *w, saw_config *c)
{
    const saw_lora_options *first = w->first->row->options;
    saw_status status = saw_config_put_int(c, "r", (int64_t)written_rank(w->first));
    if (!status)
        status = saw_config_put_double(c, "lora_alpha", written_alpha(w->first));
    const struct {
        const char *key;
        bool on;
    } flags[] = {{"use_rslora", first->rslora},
                 {"use_dora", !strcmp(w->first->row->adapter->name, "dora")},
                 {"lora_bias", first->bias},
                 {"init_lora_weights", true},
                 {"fan_in_fan_out", false}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags && !status; i++)
        status = saw_config_put_bool(c, flags[i].key, flags[i].on);
    if (!status)
        status = saw_config_put_double(c, "lora_dropout", 0);
    saw_config *ranks = saw_config_put_map(c, "rank_pattern"),
               *alphas = saw_config_put_map(c, "alpha_pattern"), *matrices = NULL;
    if (!ranks || !alphas)
        return SAW_ERR_MEMORY;
    for (const nn_adapted *a = w->first; a && !status; a = a->next) {
        const saw_lora_options *o = a->row->options;
        char name[2 * NAME_ROOM];
        quote(a->module, name);
        if (o->rslora != first->rslora || o->bias != first->bias ||
            a->row->adapter != w->first->row->adapter)
            return saw_fail(w->ctx, SAW_ERR_UNSUPPORTED,
                            "%s and %s have other kinds of LoRA, which one adapter file cannot say",
                            w->first->module, a->module);
        if (a->kind == SAW_SITE_MATRIX) { /* with one rank and alpha: peft looks by module */
            if (written_rank(a) != written_rank(w->first) ||
                written_alpha(a) != written_alpha(w->first))
                return saw_fail(w->ctx, SAW_ERR_UNSUPPORTED,
                                "%s must have the rank and alpha of %s in an adapter file",
                                a->module, w->first->module);
            if (!matrices && !(matrices = saw_config_put_list(c, "target_parameters")))
                return SAW_ERR_MEMORY;
            status = saw_config_put_string(matrices, NULL, a->module);
        } else if (written_rank(a) != written_rank(w->first)) {
            status = saw_config_put_int(ranks, name, (int64_t)written_rank(a));
        }
        if (!status && a->kind != SAW_SITE_MATRIX && written_alpha(a) != written_alpha(w->first))
            status = saw_config_put_double(alphas, name, written_alpha(a));
    }
    return status;
}

static saw_status put_oft(writer *w, saw_config *c)
{
    const saw_oft_options *o = w->first->row->options;
    saw_status status = saw_config_put_int(c, "r", 0);
    if (!status)
        status = saw_config_put_int(c, "oft_block_size", o->block);
    if (!status)
        status = saw_config_put_bool(c, "use_cayley_neumann", o->terms > 0);
    if (!status)
        status = saw_config_put_int(c, "num_cayley_neumann_terms", o->terms ? o->terms : 5);
    return status ? status : saw_config_put_bool(c, "block_share", o->shared);
}

static saw_status put_ia3(writer *w, saw_config *c)
{
    saw_config *list = saw_config_put_list(c, "feedforward_modules");
    saw_status status = list ? SAW_OK : SAW_ERR_MEMORY;
    for (const nn_adapted *a = w->first; a && !status; a = a->next)
        if (((const saw_ia3_options *)a->row->options)->input)
            status = saw_config_put_string(list, NULL, a->module);
    return status;
}

static saw_status put_road(writer *w, saw_config *c)
{
    static const char *const variants[] = {"road_1", "road_2", "road_4"};
    const saw_road_options *o = w->first->row->options;
    saw_status status = saw_config_put_string(c, "variant", variants[o->variant]);
    return status ? status : saw_config_put_int(c, "group_size", o->group);
}

static saw_status put_method(writer *w, saw_config *c)
{
    if (!strcmp(w->method->type, "LORA"))
        return put_lora(w, c);
    if (!strcmp(w->method->type, "OFT"))
        return put_oft(w, c);
    if (!strcmp(w->method->type, "IA3"))
        return put_ia3(w, c);
    return strcmp(w->method->type, "ROAD") ? SAW_OK : put_road(w, c);
}

static saw_status write_config(writer *w, const char *folder)
{
    saw_config *c = saw_config_new(w->ctx);
    saw_status status = c ? saw_config_put_string(c, "peft_type", w->method->type) : SAW_ERR_MEMORY;
    if (!status && w->save->base)
        status = saw_config_put_string(c, "base_model_name_or_path", w->save->base);
    if (!status)
        status = saw_config_put_bool(c, "inference_mode", true);
    if (!status && strcmp(w->method->type, "IA3") && strcmp(w->method->type, "ROAD"))
        status = saw_config_put_string(c, "bias", "none");
    saw_config *targets = status ? NULL : saw_config_put_list(c, "target_modules");
    if (!status && !targets)
        status = SAW_ERR_MEMORY;
    for (const nn_adapted *a = w->first; a && !status; a = a->next)
        if (a->kind != SAW_SITE_MATRIX)
            status = saw_config_put_string(targets, NULL, a->module);
    if (!status)
        status = put_method(w, c);
    saw_buffer json = {.ctx = w->ctx};
    if (!status)
        status = saw_config_write_json(c, &json);
    saw_config_free(c);
    char *path = saw_format(w->ctx, "%s/%s", folder, CONFIG);
    saw_atomic_file file = {0};
    if (!status)
        status = path ? saw_atomic_open(w->ctx, path, &file) : SAW_ERR_MEMORY;
    if (!status) {
        fwrite(json.data, 1, json.size, file.file);
        status = saw_atomic_commit(&file);
    }
    saw_buffer_free(&json);
    saw_free(w->ctx, path);
    return status;
}

saw_status saw_peft_write(saw_context *ctx, const char *folder, const saw_peft_save *save)
{
    writer w = {.ctx = ctx,
                .save = save,
                .g = save->graph,
                .first = nn_adapted_first(save->graph),
                .method = &methods[METHODS - 1]};
    for (int i = 0; i < METHODS && w.first; i++)
        for (int k = 0; k < 2; k++)
            if (methods[i].adapter[k] &&
                !strcmp(methods[i].adapter[k], w.first->row->adapter->name))
                w.method = &methods[i];
    saw_status status = list_tensors(&w);
    if (!status)
        status = saw_make_folders(ctx, folder);
    if (!status)
        status = write_weights(&w, folder);
    if (!status)
        status = write_config(&w, folder);
    for (int i = 0; i < w.n; i++)
        saw_free(ctx, w.tensors[i].key);
    saw_free(ctx, w.tensors);
    saw_free(ctx, w.entries);
    return status;
}
