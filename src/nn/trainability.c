/*
 * trainability.c - the table of what trains: read from text, put on a recorded graph.
 */
#include "nn/adapter.h"
#include "nn/nn.h"

#include <string.h>

/* ---- on a graph ------------------------------------------------------------------------------ */

/* The module of a tensor: its name without the last part. */
static void module_of(const char *name, char out[300])
{
    const char *dot = strrchr(name, '.');
    snprintf(out, 300, "%.*s", dot ? (int)(dot - name) : 0, name);
}

static bool is_bias(const char *name)
{
    const char *dot = strrchr(name, '.');
    return !strncmp(dot ? dot + 1 : name, "bias", 4);
}

/* One bit a value: weights that a norm uses; tensors of adapters. */
typedef struct marks {
    bool *norm, *adapter;
} marks;

static bool is_norm_op(const saw_op *op)
{
    static const char *const names[] = {"rmsnorm", "band_rmsnorm", "norm", "band_norm",
                                        "batch_norm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(op->name, names[i]))
            return true;
    return false;
}

static saw_status marks_open(saw_graph *g, marks *m)
{
    size_t n = (size_t)saw_graph_values(g) + 1;
    m->norm = saw_calloc(saw_graph_context(g), 2 * n, sizeof *m->norm);
    if (!m->norm)
        return SAW_ERR_MEMORY;
    m->adapter = m->norm + n;
    for (int i = 0; i < saw_graph_entries(g); i++) {
        const saw_entry *e = saw_graph_entry(g, i);
        for (int k = 1; k < e->n_in && is_norm_op(e->op); k++)
            if (e->in[k])
                m->norm[saw_root(g, e->in[k])] = true;
    }
    for (const nn_adapted *a = nn_adapted_first(g); a; a = a->next)
        for (int i = 0; i < a->tensors; i++)
            m->adapter[a->tensor[i]] = true;
    return SAW_OK;
}

/* The row that makes a tensor of the model train, or NULL. */
static const saw_adapted *trains(const saw_adapters *set, const char *name, bool norm)
{
    char module[300];
    module_of(name, module);
    for (int i = 0; set && i < set->count; i++) {
        const saw_adapted *row = &set->rows[i];
        bool says = row->what == SAW_ADAPTED_TRAIN || row->what == SAW_ADAPTED_FREEZE ||
                    (row->what == SAW_ADAPTED_BIAS && is_bias(name)) ||
                    (row->what == SAW_ADAPTED_NORM && norm);
        if (says && saw_glob_match(row->glob, module))
            return row->what == SAW_ADAPTED_FREEZE ? NULL : row;
    }
    return NULL;
}

saw_status nn_trainability(saw_graph *g, const saw_adapters *set, nn_trained *out)
{
    saw_context *ctx = saw_graph_context(g);
    marks m = {0};
    *out = (nn_trained){0};
    saw_status status = saw_graph_status(g) ? saw_graph_status(g) : marks_open(g, &m);
    for (const nn_adapted *a = nn_adapted_first(g); a && !status; a = a->next)
        out->adapted++;
    for (saw_val v = 1; v < saw_graph_values(g) && !status; v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM)
            continue;
        if (!m.adapter[v])
            out->base_numbers += saw_dims_count(&x->dims);
        if (x->frozen || !(m.adapter[v] || trains(set, x->name, m.norm[v])))
            continue;
        saw_graph_train(g, x->name);
        out->tensors++;
        out->numbers += saw_dims_count(&x->dims);
    }
    saw_free(ctx, m.norm);
    if (!status && !out->tensors)
        status = saw_fail(ctx, SAW_ERR_ARGUMENT,
                          "nothing trains: no tensor of the model matches what should");
    return status;
}

double nn_lr_factor(const saw_graph *g, const saw_adapters *set, const char *name)
{
    saw_val v = saw_graph_find(g, name);
    const saw_adapted *row = NULL;
    for (const nn_adapted *a = nn_adapted_first(g); a && !row; a = a->next)
        for (int i = 0; i < a->tensors; i++)
            if (a->tensor[i] == v)
                row = a->row;
    if (!row)
        row = trains(set, name, false);
    return row && row->lr != 0 ? row->lr : 1;
}

/* ---- from text ------------------------------------------------------------------------------- */

static const char *const whats[] = {"adapter", "train", "freeze", "bias", "norm"};
enum { WHATS = sizeof whats / sizeof *whats, MAX_ROWS = 10000 };

static saw_status unknown(saw_context *ctx, const char *what, const char *word,
                          const char *const *words, int n)
{
    const char *near = saw_nearest_word(word, words, n);
    return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s %s is not known%s%s%s", what, word,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static saw_status set_word(saw_context *ctx, const saw_adapter_option *o, const char *value,
                           int *out)
{
    const char *words[16];
    char list[128];
    int n = 0;
    snprintf(list, sizeof list, "%s", strchr(o->key, ':') + 1);
    for (char *save = NULL, *w = strtok_r(list, ",", &save); w && n < 16;
         w = strtok_r(NULL, ",", &save))
        words[n++] = w;
    for (int i = 0; i < n; i++)
        if (!strcmp(words[i], value)) {
            *out = i;
            return SAW_OK;
        }
    return unknown(ctx, "the choice", value, words, n);
}

static saw_status set_option(saw_context *ctx, const saw_adapter *a, void *options, const char *key,
                             const char *value)
{
    const char *names[17];
    char room[16][32];
    int n = 0;
    for (const saw_adapter_option *o = a->keys; o->key && n < 16; o++, n++) {
        snprintf(room[n], sizeof room[n], "%.*s", (int)strcspn(o->key, ":"), o->key);
        names[n] = room[n];
        if (strcmp(room[n], key))
            continue;
        void *at = (char *)options + o->offset;
        double number = 0;
        bool truth = !strcmp(value, "true") || !strcmp(value, "yes");
        if (o->kind == SAW_ADAPTER_WORD)
            return set_word(ctx, o, value, at);
        if (o->kind == SAW_ADAPTER_BOOL) {
            if (!truth && strcmp(value, "false") && strcmp(value, "no"))
                return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s of %s is %s, not true or false", key,
                                a->name, value);
            *(bool *)at = truth;
            return SAW_OK;
        }
        if (!saw_parse_double(value, &number) || !(number >= o->least && number <= o->most) ||
            (o->kind == SAW_ADAPTER_INT && number != (double)(int)number))
            return saw_fail(
                ctx, SAW_ERR_ARGUMENT, "%s of %s is %s, not %s from %g to %g", key, a->name, value,
                o->kind == SAW_ADAPTER_INT ? "a whole number" : "a number", o->least, o->most);
        if (o->kind == SAW_ADAPTER_INT)
            *(int *)at = (int)number;
        else
            *(double *)at = number;
        return SAW_OK;
    }
    names[n++] = "lr";
    char what[64];
    snprintf(what, sizeof what, "the option of %s", a->name);
    return unknown(ctx, what, key, names, n);
}

static saw_status parse_row(saw_context *ctx, char *line, saw_adapted *row)
{
    char *save = NULL, *glob = strtok_r(line, " \t", &save), *what = strtok_r(NULL, " \t", &save);
    if (!what)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the row %s does not say what its modules do, as in: %s train", glob, glob);
    int kind = 1;
    while (kind < WHATS && strcmp(whats[kind], what))
        kind++;
    void *options = NULL;
    *row = (saw_adapted){.what = kind < WHATS ? kind : SAW_ADAPTED_ADAPTER, .attached = true};
    if (kind == WHATS) {
        row->adapter = saw_adapter_named(what);
        if (!row->adapter) {
            const char *words[64];
            int n = 0;
            for (int i = 1; i < WHATS; i++)
                words[n++] = whats[i];
            for (int i = 0; saw_adapter_at(i) && n < 64; i++)
                words[n++] = saw_adapter_at(i)->name;
            return unknown(ctx, "the adapter", what, words, n);
        }
        row->options = options = saw_alloc(ctx, row->adapter->options_bytes);
        if (!options)
            return SAW_ERR_MEMORY;
        memcpy(options, row->adapter->defaults, row->adapter->options_bytes);
    }
    row->glob = saw_strdup(ctx, glob);
    saw_status status = row->glob ? SAW_OK : SAW_ERR_MEMORY;
    for (char *word; !status && (word = strtok_r(NULL, " \t", &save));) {
        char *equals = strchr(word, '=');
        if (!equals || equals == word)
            return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s in the row of %s is not key=value", word,
                            glob);
        *equals = 0;
        if (!strcmp(word, "lr")) {
            if (!saw_parse_double(equals + 1, &row->lr) || !(row->lr > 0 && row->lr < 1e6))
                status = saw_fail(ctx, SAW_ERR_ARGUMENT, "lr of %s is %s, not a factor", glob,
                                  equals + 1);
        } else if (!row->adapter) {
            status =
                saw_fail(ctx, SAW_ERR_ARGUMENT, "%s takes no option %s; there is lr", what, word);
        } else {
            status = set_option(ctx, row->adapter, options, word, equals + 1);
        }
    }
    return status;
}

saw_status saw_adapters_parse(saw_context *ctx, const char *text, saw_adapters **out)
{
    *out = NULL;
    int room = 1;
    for (const char *c = text; *c; c++)
        room += *c == ';' || *c == '\n';
    saw_adapters *set = room > MAX_ROWS ? NULL : saw_calloc(ctx, 1, sizeof *set);
    if (!set)
        return room > MAX_ROWS
                   ? saw_fail(ctx, SAW_ERR_ARGUMENT, "the table has more than %d rows", MAX_ROWS)
                   : SAW_ERR_MEMORY;
    saw_adapted *rows = saw_calloc(ctx, (size_t)room, sizeof *rows);
    char *copy = saw_strdup(ctx, text);
    set->rows = rows;
    saw_status status = rows && copy ? SAW_OK : SAW_ERR_MEMORY;
    char *save = NULL;
    for (char *line = status ? NULL : strtok_r(copy, ";\n", &save); line && !status;
         line = strtok_r(NULL, ";\n", &save))
        if (line[strspn(line, " \t")] && line[strspn(line, " \t")] != '#')
            status = parse_row(ctx, line, &rows[set->count++]);
    saw_free(ctx, copy);
    if (status)
        saw_adapters_free(ctx, set);
    else
        *out = set;
    return status;
}

void saw_adapters_free(saw_context *ctx, saw_adapters *set)
{
    for (int i = 0; set && set->rows && i < set->count; i++) {
        saw_free(ctx, (void *)set->rows[i].glob);
        saw_free(ctx, (void *)set->rows[i].options);
    }
    if (set)
        saw_free(ctx, (void *)set->rows);
    saw_free(ctx, set);
}
