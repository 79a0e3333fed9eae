/*
 * model.c - the table of families, and the one place that turns configurations into options.
 */
#include "models/model.h"

#include <string.h>

#define SAW_MODEL(name) extern const saw_model saw_model_##name;
#include "models/models.def"
#undef SAW_MODEL

static const saw_model *const table[] = {
#define SAW_MODEL(name) &saw_model_##name,
#include "models/models.def"
#undef SAW_MODEL
};

const saw_model *saw_model_at(int i)
{
    return i >= 0 && i < (int)(sizeof table / sizeof *table) ? table[i] : NULL;
}

const saw_model *saw_model_named(const char *name)
{
    for (int i = 0; saw_model_at(i); i++)
        if (!strcmp(table[i]->name, name))
            return table[i];
    return NULL;
}

void saw_assume(saw_assumed *a, const char *fmt, ...)
{
    if (a->count == (int)(sizeof a->text / sizeof *a->text))
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(a->text[a->count++], sizeof *a->text, fmt, ap);
    va_end(ap);
}

/* ---- names and shapes ------------------------------------------------------------------------ */

bool saw_shape_has(const saw_checkpoint *ck, const char *name)
{
    return saw_checkpoint_find(ck, name) != NULL;
}

int64_t saw_shape_dim(const saw_checkpoint *ck, int axis, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, name);
    return t && axis < t->ndim ? t->dims[axis] : 0;
}

int saw_shape_count(const saw_checkpoint *ck, int limit, const char *before, const char *after)
{
    int n = 0;
    while (n < limit && saw_shape_dim(ck, 0, "%s%d%s", before, n, after))
        n++;
    return n;
}

/* ---- options from a config ------------------------------------------------------------------- */

static saw_status wrong_value(saw_context *ctx, const saw_config *node, const char *key,
                              const char *wanted)
{
    const char *text = saw_config_as_string(node);
    return saw_fail(ctx, SAW_ERR_ARGUMENT, "line %d: %s is %s, and %s is needed",
                    saw_config_line(node), key, text ? text : "no single value", wanted);
}

static saw_status read_number(saw_context *ctx, const saw_config *node, const saw_option *o,
                              double *out)
{
    if (!saw_config_as_double(node, out) || *out < o->least || *out > o->most) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "a number from %.10g to %.10g", o->least, o->most);
        return wrong_value(ctx, node, o->key, wanted);
    }
    return SAW_OK;
}

static saw_status read_option(saw_context *ctx, const saw_config *node, const saw_option *o,
                              char *options)
{
    double number;
    void *at = options + o->offset;
    if (o->kind == SAW_OPTION_IGNORED || saw_config_kind_of(node) == SAW_CONFIG_NULL)
        return SAW_OK;
    if (o->kind == SAW_OPTION_BOOL)
        return saw_config_as_bool(node, at) ? SAW_OK
                                            : wrong_value(ctx, node, o->key, "true or false");
    if (o->kind == SAW_OPTION_CHOICE) {
        const char *word = saw_config_as_string(node), *words = strchr(o->key, ':') + 1,
                   *next = words;
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)(words - o->key) - 1, o->key);
        for (int i = 0; word; i++, next++) {
            size_t n = strcspn(next, ",");
            if (strlen(word) == n && !strncmp(word, next, n)) {
                *(int *)(void *)(options + o->offset) = i;
                return SAW_OK;
            }
            next += n;
            if (!*next)
                break;
        }
        return wrong_value(ctx, node, key, words);
    }
    if (o->kind == SAW_OPTION_INTS) {
        int n = saw_config_size(node);
        if (saw_config_kind_of(node) != SAW_CONFIG_LIST || n < 1 || n > SAW_MAX_BANDS)
            return wrong_value(ctx, node, o->key, "a list of whole numbers");
        for (int i = 0; i < n; i++) {
            saw_status status = read_number(ctx, saw_config_at(node, i), o, &number);
            if (status)
                return status;
            ((int64_t *)at)[i] = (int64_t)number;
        }
        *(int *)(void *)(options + o->count_offset) = n;
        return SAW_OK;
    }
    saw_status status = read_number(ctx, node, o, &number);
    if (status)
        return status;
    if (o->kind == SAW_OPTION_DOUBLE) {
        *(double *)at = number;
    } else {
        if (number != (double)(int)number)
            return wrong_value(ctx, node, o->key, "a whole number");
        *(int *)at = (int)number;
    }
    return SAW_OK;
}

static bool is_option(const saw_option *o, const char *key)
{
    size_t n = o->kind == SAW_OPTION_CHOICE ? strcspn(o->key, ":") : strlen(o->key);
    return strlen(key) == n && !strncmp(o->key, key, n);
}

static saw_status read_options(saw_context *ctx, const saw_config *section, const saw_model *m,
                               void *options)
{
    for (int i = 0; i < saw_config_size(section); i++) {
        const char *key = saw_config_key(section, i);
        const saw_option *o = m->options;
        while (o->key && !is_option(o, key))
            o++;
        if (!o->key)
            return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                            "line %d: the option %s of %s is not known to this program, so its "
                            "result would be wrong",
                            saw_config_line(saw_config_at(section, i)), key, m->title);
        saw_status status = read_option(ctx, saw_config_at(section, i), o, options);
        if (status)
            return status;
    }
    return SAW_OK;
}

saw_status saw_model_read_msst(saw_context *ctx, const saw_config *config, saw_model_common *c)
{
    static const saw_option numbers[] = {{"audio.sample_rate", SAW_OPTION_INT, 0, 1000, 768000, 0},
                                         {"audio.chunk_size", SAW_OPTION_INT, 0, 1, 1 << 28, 0},
                                         {"inference.chunk_size", SAW_OPTION_INT, 0, 1, 1 << 28, 0},
                                         {"inference.num_overlap", SAW_OPTION_INT, 0, 1, 64, 0}};
    int values[4] = {c->rate_hz, (int)c->chunk_samples, 0, c->overlap};
    for (int i = 0; i < 4; i++) {
        const saw_config *node = saw_config_find(config, numbers[i].key);
        saw_status status = node ? read_option(ctx, node, &numbers[i], (char *)&values[i]) : SAW_OK;
        if (status)
            return status;
    }
    c->rate_hz = values[0];
    c->chunk_samples = values[2] ? values[2] : values[1];
    c->overlap = values[3];
    saw_status status = saw_config_bool(ctx, config, "inference.normalize", false, &c->normalize);
    if (status)
        return status;
    const saw_config *target = saw_config_find(config, "training.target_instrument");
    const saw_config *all = saw_config_find(config, "training.instruments");
    const char *names[SAW_MAX_STEMS];
    int n = 0;
    const char *only = saw_config_as_string(target);
    if (only && c->stems == 1) {
        names[n++] = only;
    } else {
        for (; n < saw_config_size(all) && n < SAW_MAX_STEMS; n++) {
            names[n] = saw_config_as_string(saw_config_at(all, n));
            if (!names[n])
                return wrong_value(ctx, saw_config_at(all, n), "training.instruments",
                                   "a list of names");
        }
    }
    if (n && n != c->stems)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "line %d: %d instruments are named and the model has %d stems",
                        saw_config_line(all), n, c->stems);
    saw_model_name_stems(c, n, names);
    return SAW_OK;
}

void saw_model_name_stems(saw_model_common *c, int count, const char *const *names)
{
    for (int i = 0; i < c->stems && i < SAW_MAX_STEMS; i++) {
        if (i < count)
            snprintf(c->stem_names[i], SAW_STEM_NAME_ROOM, "%s", names[i]);
        else if (!c->stem_names[i][0])
            snprintf(c->stem_names[i], SAW_STEM_NAME_ROOM, "stem%d", i + 1);
        for (char *p = c->stem_names[i]; *p; p++) /* a stem's name becomes part of a file's name */
            if (*p == '/' || *p == '\\' || (unsigned char)*p < 32)
                *p = '_';
    }
}

/* ---- configure ------------------------------------------------------------------------------- */

static const char *model_type(const saw_config *config)
{
    static const char *const places[] = {"model_type", "training.model_type"};
    for (int i = 0; i < 2; i++) {
        const char *name = saw_config_as_string(saw_config_find(config, places[i]));
        if (name)
            return name;
    }
    return NULL;
}

static saw_status choose_family(saw_context *ctx, const saw_config *config,
                                const saw_checkpoint *ck, const saw_model **out)
{
    const char *type = model_type(config);
    *out = type ? saw_model_named(type) : NULL;
    if (type && !*out)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "the model type %s is not one that this program knows", type);
    for (int i = 0; saw_model_at(i) && !*out; i++)
        if (ck ? table[i]->recognise(ck) : table[i]->claims(config))
            *out = table[i];
    if (!*out)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "this is not a separation model that bandsaw knows");
    return SAW_OK;
}

saw_status saw_model_import(saw_checkpoint *ck)
{
    saw_status status = SAW_OK;
    for (int i = 0; saw_model_at(i) && !status; i++)
        if (table[i]->import)
            status = table[i]->import(ck);
    return status;
}

static saw_status start_spec(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                             saw_model_spec *out)
{
    memset(out, 0, sizeof *out);
    saw_status status = choose_family(ctx, config, ck, &out->model);
    if (status)
        return status;
    out->options = saw_calloc(ctx, 1, out->model->options_bytes);
    if (!out->options)
        return SAW_ERR_MEMORY;
    out->model->defaults(out->options);
    if (out->model->alike && !model_type(config))
        saw_assume(&out->assumed, "%s", out->model->alike);
    return SAW_OK;
}

static const saw_config *section_of(const saw_model *m, const saw_config *config)
{
    return *m->section ? saw_config_get(config, m->section) : config;
}

saw_status saw_model_configure(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                               saw_model_spec *out)
{
    saw_status status = start_spec(ctx, config, ck, out);
    if (status)
        return status;
    const saw_config *section = section_of(out->model, config);
    if (!section) {
        saw_model_spec_close(ctx, out);
        return ck ? saw_model_infer(ctx, config, ck, out)
                  : saw_fail(ctx, SAW_ERR_FORMAT, "the configuration has no section for the model");
    }
    out->from_config = true;
    status = read_options(ctx, section, out->model, out->options);
    if (!status)
        status = out->model->finish(ctx, config, ck, out->options);
    if (status)
        saw_model_spec_close(ctx, out);
    return status;
}

saw_status saw_model_infer(saw_context *ctx, const saw_config *settings, const saw_checkpoint *ck,
                           saw_model_spec *out)
{
    saw_status status = start_spec(ctx, settings, ck, out);
    if (status)
        return status;
    const saw_model *m = out->model;
    status = m->infer(ctx, ck, out->options, &out->assumed);
    if (!status && section_of(m, settings))
        status = read_options(ctx, section_of(m, settings), m, out->options);
    if (!status)
        status = m->finish(ctx, NULL, ck, out->options);
    if (status)
        saw_model_spec_close(ctx, out);
    return status;
}

void saw_model_spec_close(saw_context *ctx, saw_model_spec *spec)
{
    saw_free(ctx, spec->options);
    spec->options = NULL;
}
