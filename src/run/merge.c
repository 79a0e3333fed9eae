#include "run/merge.h"

#include "datasets/dataset.h"
#include "kernels/ops.h"
#include "run/model_file.h"
#include "run/peft_file.h"
#include "run/score.h"
#include "run/separator.h"

#include <math.h>
#include <string.h>

enum { MAX_OTHERS = 64, BLOCK = 4096 };

typedef struct merger {
    saw_context *ctx;
    const saw_merge_options *o;
    saw_separator *base;
    saw_config *config;
    saw_weight_source source;
    saw_checkpoint *others[MAX_OTHERS];
    saw_safetensors_entry *entries;
    int count;
    double alpha;
    /* of an adapter */
    saw_peft *peft;
    saw_graph *g;         /* of the whole model: which matrices are adapted */
    saw_weights *tensors; /* the adapter's */
    float *merged;        /* the tensor at hand */
    const char *merged_name;
} merger;

/* ---- one tensor ------------------------------------------------------------------------------ */

/* The base with what the adapter replaces of it, and the adapter's own tensors. */
static saw_status site_dims(void *user, const char *name, saw_dims *dims)
{
    merger *m = user;
    saw_val v = saw_graph_find(m->g, name);
    *dims = saw_dims_val(m->g, v);
    return v ? SAW_OK : SAW_ERR_SHAPE;
}

static saw_status site_read(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    merger *m = user;
    saw_dims dims;
    const float *own;
    if (!m->source.dims(m->source.user, name, &dims)) {
        saw_status status = m->source.read(m->source.user, name, first, n, out);
        return status ? status : saw_peft_replace(m->peft, name, first, n, out);
    }
    saw_status status = site_dims(m, name, &dims);
    if (!status)
        status = saw_weights_dense(m->tensors, name, &dims, &own);
    if (!status)
        memcpy(out, own + first, (size_t)n * sizeof *out);
    return status;
}

/* The matrix that a tensor is, or whose bias it is, when the adapter changes it. */
static const nn_adapted *adapted_tensor(const merger *m, const char *name)
{
    char tap[600];
    snprintf(tap, sizeof tap, "%s.merged", name);
    if (!m->g || !saw_graph_find(m->g, tap))
        return NULL;
    for (const nn_adapted *a = nn_adapted_first(m->g); a; a = a->next)
        if (!strcmp(a->weight, name) || (a->bias && !strcmp(a->bias, name)))
            return a;
    return NULL;
}

/* A graph of one matrix alone, whose outputs are what it and its bias become. */
static saw_status record_site(merger *m, const nn_adapted *a, saw_program **out)
{
    saw_graph *g;
    saw_dims dims;
    saw_status status = saw_graph_open(m->ctx, &g);
    if (status)
        return status;
    bool has_bias = a->bias && !m->source.dims(m->source.user, a->bias, &dims);
    nn_adapt(g, saw_peft_adapters(m->peft));
    saw_val w = saw_param(g, a->weight, a->dims),
            b = has_bias ? saw_param(g, a->bias, SAW_DIMS(a->matrix.out)) : 0, before = b;
    nn_site_weight(g, &(saw_site){.module = a->module, .kind = a->kind}, w, a->bias ? &b : NULL);
    char name[600];
    snprintf(name, sizeof name, "%s.merged", a->weight);
    saw_output(g, "weight", saw_graph_find(g, name));
    if (b && !before)
        saw_graph_fail(g, SAW_ERR_UNSUPPORTED,
                       "the adapter gives %s a bias, and the model has none to merge it into",
                       a->module);
    else if (b != before)
        saw_output(g, "bias", b);
    return saw_program_build(g, NULL, out);
}

/* The adapted tensor `name` into m->merged. */
static saw_status merge_tensor(merger *m, const nn_adapted *a, const char *name)
{
    saw_program *p = NULL;
    saw_run *run = NULL;
    saw_weights *w = NULL;
    saw_weight_source source = {.dims = site_dims, .read = site_read, .user = m};
    saw_free(m->ctx, m->merged);
    m->merged = NULL;
    m->merged_name = name;
    saw_status status = record_site(m, a, &p);
    if (!status)
        status = saw_weights_open(m->ctx, &source, &w);
    if (!status)
        status = saw_run_open(p, w, &run);
    if (!status)
        status = saw_run_execute(run);
    if (!status) {
        saw_tensor t = saw_run_named(run, strcmp(name, a->weight) ? "bias" : "weight");
        size_t bytes = (size_t)saw_tensor_count(&t) * sizeof *m->merged;
        m->merged = saw_alloc(m->ctx, bytes);
        if (m->merged)
            memcpy(m->merged, t.data, bytes);
        else
            status = SAW_ERR_MEMORY;
    }
    saw_run_close(run);
    saw_weights_close(w);
    saw_program_close(p);
    return status;
}

/* out <- the mean of the others, or on the way to it from the base. */
static saw_status average(merger *m, const char *name, int64_t first, int64_t n, float *out)
{
    double sum[BLOCK];
    float x[BLOCK];
    saw_status status = SAW_OK;
    for (int64_t at = 0, k; at < n && !status; at += k) {
        k = n - at < BLOCK ? n - at : BLOCK;
        memset(sum, 0, sizeof sum);
        for (int i = 0; i < m->o->n_others && !status; i++) {
            const saw_ckpt_tensor *t = saw_checkpoint_find(m->others[i], name);
            status = saw_model_file_read_f32(m->others[i], t, first + at, k, x);
            for (int64_t j = 0; j < k && !status; j++)
                sum[j] += (double)x[j];
        }
        for (int64_t j = 0; j < k; j++)
            out[at + j] =
                (float)((1 - m->alpha) * (double)out[at + j] + m->alpha * sum[j] / m->o->n_others);
    }
    return status;
}

static saw_status read_tensor(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    merger *m = user;
    const nn_adapted *a = m->alpha != 0 ? adapted_tensor(m, name) : NULL;
    saw_status status = SAW_OK;
    if (a && (!m->merged_name || strcmp(m->merged_name, name)))
        status = merge_tensor(m, a, name);
    if (status)
        return status;
    if (a) {
        memcpy(out, m->merged + first, (size_t)n * sizeof *out);
        return SAW_OK;
    }
    status = m->source.read(m->source.user, name, first, n, out);
    if (!status && m->peft && m->alpha != 0)
        status = saw_peft_replace(m->peft, name, first, n, out);
    return status || !m->o->n_others ? status : average(m, name, first, n, out);
}

/* ---- opening --------------------------------------------------------------------------------- */

static saw_status open_other(merger *m, int i)
{
    const char *path = m->o->others[i];
    saw_status status = saw_checkpoint_open(m->ctx, path, &m->others[i]);
    if (!status)
        status = saw_model_import(m->others[i]);
    for (int k = 0; k < m->count && !status; k++) {
        const saw_safetensors_entry *e = &m->entries[k];
        const saw_ckpt_tensor *t = saw_checkpoint_find(m->others[i], e->name);
        if (!t || t->ndim != e->ndim || memcmp(t->dims, e->dims, (size_t)e->ndim * sizeof *e->dims))
            status = saw_fail(m->ctx, SAW_ERR_SHAPE,
                              "%s: %s %s; only checkpoints of one model can "
                              "be averaged",
                              path, t ? "has another shape of" : "has no", e->name);
    }
    return status;
}

static saw_status open_adapter(merger *m, const char *model)
{
    char fingerprint[17];
    const saw_model_spec *spec = saw_separator_spec(m->base);
    const saw_model_common *c = saw_model_common_of(spec);
    saw_status status = saw_peft_open(m->ctx, m->o->adapter, &m->peft);
    const char *wanted = status ? NULL : saw_peft_fingerprint(m->peft);
    if (wanted)
        status = saw_model_fingerprint(m->source.user, fingerprint);
    if (wanted && !status && strcmp(wanted, fingerprint))
        return saw_fail(m->ctx, SAW_ERR_ARGUMENT,
                        "%s is an adapter for another model%s%s, not for %s", m->o->adapter,
                        saw_peft_base(m->peft) ? ", " : "",
                        saw_peft_base(m->peft) ? saw_peft_base(m->peft) : "", model);
    if (!status && !strcmp(saw_peft_type(m->peft), "HOULSBY"))
        return saw_fail(m->ctx, SAW_ERR_UNSUPPORTED,
                        "%s: bottlenecks are layers of their own and cannot be merged; use "
                        "separate --adapter",
                        m->o->adapter);
    if (!status)
        status = saw_graph_open(m->ctx, &m->g);
    if (!status) {
        nn_adapt(m->g, saw_peft_adapters(m->peft));
        spec->model->record(
            m->g, spec->options,
            saw_input(
                m->g, "mix",
                SAW_DIMS(1, c->channels, c->chunk_fixed ? c->chunk_samples : c->min_samples)));
        status = saw_graph_status(m->g);
    }
    if (!status)
        status = saw_weights_open(m->ctx, &m->source, &m->tensors);
    return status ? status : saw_peft_bind(m->peft, m->g, m->tensors, model);
}

/* What the file will hold: every tensor of numbers. */
static saw_status open_all(merger *m, const char *model)
{
    char *config_path = NULL;
    saw_status status = saw_separator_open(
        m->ctx, model,
        &(saw_separator_options){.config = m->o->config, .precision = SAW_PRECISION_F32}, &m->base);
    if (status)
        return status;
    m->source = saw_separator_source(m->base);
    status = saw_model_file_config(m->ctx, saw_separator_checkpoint(m->base), model, m->o->config,
                                   &m->config, &config_path);
    saw_free(m->ctx, config_path);
    if (!status)
        status = saw_model_file_tensors(m->ctx, saw_separator_checkpoint(m->base), &m->entries,
                                        &m->count);
    for (int i = 0; i < m->o->n_others && !status; i++)
        status = open_other(m, i);
    return status || !m->o->adapter ? status : open_adapter(m, model);
}

static void close_all(merger *m)
{
    for (int i = 0; i < m->o->n_others; i++)
        saw_checkpoint_close(m->others[i]);
    saw_weights_close(m->tensors);
    saw_graph_close(m->g);
    saw_peft_close(m->peft);
    saw_free(m->ctx, m->merged);
    saw_free(m->ctx, m->entries);
    saw_config_free(m->config);
    saw_separator_close(m->base);
}

/* ---- writing, choosing ----------------------------------------------------------------------- */

static saw_status write_at(merger *m, double alpha)
{
    m->alpha = alpha;
    m->merged_name = NULL;
    if (m->peft)
        saw_peft_set(m->peft, false, alpha);
    return saw_model_file_write(
        m->ctx, m->o->output,
        &(saw_model_parts){.tensors = m->entries,
                           .count = m->count,
                           .read = read_tensor,
                           .user = m,
                           .config = m->config,
                           .architecture = saw_separator_spec(m->base)->model->name});
}

static saw_status score(merger *m, const saw_dataset *d, double *sdr_db)
{
    const saw_model_common *c = saw_model_common_of(saw_separator_spec(m->base));
    const char *outputs[SAW_MAX_STEMS];
    int count;
    saw_score_options o = {.outputs = outputs, .n_outputs = c->stems};
    for (int i = 0; i < c->stems; i++)
        outputs[i] = c->stem_names[i];
    for (int i = 0; i < saw_dataset_songs(d); i++) /* a folder valid/, where there is one */
        o.part = saw_dataset_song(d, i)->part == SAW_SONG_VALID ? SAW_SONG_VALID : o.part;
    saw_song_score *rows = saw_calloc(m->ctx, (size_t)saw_dataset_songs(d) + 1, sizeof *rows);
    saw_separator *s = NULL;
    saw_status status = rows ? SAW_OK : SAW_ERR_MEMORY;
    if (!status)
        status =
            saw_separator_open(m->ctx, m->o->output,
                               &(saw_separator_options){.config = m->config ? NULL : m->o->config,
                                                        .precision = SAW_PRECISION_F32},
                               &s);
    if (!status)
        status = saw_score_songs(m->ctx, s, d, &o, rows, &count, sdr_db);
    saw_separator_close(s);
    saw_free(m->ctx, rows);
    return status;
}

/* Score every share and write the best one. */
static saw_status sweep(merger *m, saw_merge_report *report)
{
    const saw_model_common *c = saw_model_common_of(saw_separator_spec(m->base));
    const char *stems[SAW_MAX_STEMS];
    saw_dataset *d;
    double last = -1;
    for (int i = 0; i < c->stems; i++)
        stems[i] = c->stem_names[i];
    saw_status status = saw_dataset_open(
        m->ctx, m->o->data,
        &(saw_dataset_options){
            .stems = stems, .n_stems = c->stems, .rate_hz = c->rate_hz, .channels = c->channels},
        &d);
    if (status)
        return status;
    for (int i = 0; i < m->o->n_alphas && !status; i++) {
        double sdr_db = NAN;
        last = m->o->alphas[i];
        status = write_at(m, last);
        if (!status)
            status = score(m, d, &sdr_db);
        if (!status && isnan(sdr_db))
            status = saw_fail(m->ctx, SAW_ERR_ARGUMENT, "%s: no song could be scored", m->o->data);
        if (status)
            break;
        if (m->o->scored)
            m->o->scored(m->o->user, last, sdr_db);
        if (isnan(report->sdr_db) || sdr_db > report->sdr_db) {
            report->sdr_db = sdr_db;
            report->alpha = last;
        }
    }
    saw_dataset_close(d);
    return status || last == report->alpha ? status : write_at(m, report->alpha);
}

saw_status saw_merge(saw_context *ctx, const saw_merge_options *options, saw_merge_report *report)
{
    merger m = {.ctx = ctx, .o = options};
    *report =
        (saw_merge_report){.sdr_db = NAN, .alpha = options->n_alphas ? options->alphas[0] : 1};
    const char *model = options->model      ? options->model
                        : options->n_others ? options->others[0]
                                            : NULL;
    if (!model || (!options->adapter && !options->n_others))
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "there is nothing to merge");
    if (options->adapter && options->n_others)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "merge adapters first: either an adapter or checkpoints");
    if (options->n_others > MAX_OTHERS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "more than %d checkpoints", MAX_OTHERS);
    saw_status status = open_all(&m, model);
    if (!status)
        status = options->n_alphas > 1 ? sweep(&m, report) : write_at(&m, report->alpha);
    report->tensors = m.count;
    for (int i = 0; i < m.count; i++)
        report->changed += options->n_others || adapted_tensor(&m, m.entries[i].name) ||
                           (m.peft && saw_peft_replaces(m.peft, m.entries[i].name));
    close_all(&m);
    return status;
}
