/*
 * separator.c - a checkpoint and its configuration become a model; streams run it chunk by chunk.
 */
#include "run/separator.h"

#include "kernels/simd/simd.h"
#include "nn/adapter.h"
#include "run/model_file.h"
#include "run/peft_file.h"
#include "run/stitch.h"

#include <stdlib.h>
#include <string.h>

struct saw_separator {
    saw_context *ctx;
    char *path, *config_path;
    saw_checkpoint *checkpoint;
    saw_model_spec spec;
    saw_peft *adapter;
    saw_precision precision;
    saw_weights *weights;
    saw_separator_info info;
    const char *stem_names[SAW_MAX_STEMS];
    const char *assumed[16];
};

struct saw_stream {
    saw_context *ctx;
    saw_program *program;
    saw_run *run;
    saw_stitcher *stitcher;
    saw_stream_info info;
    saw_tensor mix, present, *stems;
    int n_stems, batch;
    int64_t frame, hop; /* of the stitcher spleeter */
};

/* ---- weights from a checkpoint --------------------------------------------------------------- */

static saw_status source_dims(void *user, const char *name, saw_dims *dims)
{
    const saw_ckpt_tensor *t = saw_checkpoint_find(user, name);
    if (!t)
        return SAW_ERR_SHAPE;
    *dims = saw_dims_of(t->ndim, t->dims);
    return SAW_OK;
}

static saw_status source_read(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    saw_checkpoint *ck = user;
    return saw_model_file_read_f32(ck, saw_checkpoint_find(ck, name), first, n, out);
}

saw_weight_source saw_checkpoint_source(saw_checkpoint *ck)
{
    return (saw_weight_source){.dims = source_dims, .read = source_read, .user = ck};
}

/* ---- separator ------------------------------------------------------------------------------- */

static saw_graph *record_model(const saw_separator *s, int64_t batch, int64_t samples,
                               bool inner_frames)
{
    saw_graph *g;
    size_t bytes = s->spec.model->options_bytes;
    void *options = saw_alloc(s->ctx, bytes);
    if (!options || saw_graph_open(s->ctx, &g)) {
        saw_free(s->ctx, options);
        return NULL;
    }
    memcpy(options, s->spec.options, bytes);
    ((saw_model_common *)options)->inner_frames = inner_frames;
    const saw_model_common *c = saw_model_common_of(&s->spec);
    if (s->adapter)
        nn_adapt(g, saw_peft_adapters(s->adapter));
    s->spec.model->record(g, options, saw_input(g, "mix", SAW_DIMS(batch, c->channels, samples)));
    saw_free(s->ctx, options);
    return g;
}

static void append_name(saw_buffer *text, int *count, const char *name, const int64_t *dims, int n)
{
    if (++*count > 4)
        return;
    saw_buffer_printf(text, "%s%s [", *count > 1 ? ", " : "", name);
    for (int i = 0; i < n; i++)
        saw_buffer_printf(text, "%s%lld", i ? "," : "", (long long)dims[i]);
    saw_buffer_printf(text, "]");
}

static bool is_adapters(const saw_graph *g, saw_val v)
{
    for (const nn_adapted *a = nn_adapted_first(g); a; a = a->next)
        for (int i = 0; i < a->tensors; i++)
            if (a->tensor[i] == v)
                return true;
    return false;
}

/* Missing, misshapen and surplus tensors in one sentence. */
static saw_status check_names(saw_separator *s, const saw_graph *g)
{
    saw_buffer missing = {.ctx = s->ctx}, wrong = {.ctx = s->ctx}, surplus = {.ctx = s->ctx};
    int n_missing = 0, n_wrong = 0, n_surplus = 0;
    s->info.parameters = 0;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM || (s->adapter && is_adapters(g, v)))
            continue;
        s->info.parameters += saw_dims_count(&x->dims);
        const saw_ckpt_tensor *t = saw_checkpoint_find(s->checkpoint, x->name);
        saw_dims have = t ? saw_dims_of(t->ndim, t->dims) : x->dims;
        if (!t)
            append_name(&missing, &n_missing, x->name, x->dims.d, x->dims.n);
        else if (!saw_dims_equal(&have, &x->dims))
            append_name(&wrong, &n_wrong, x->name, have.d, have.n);
    }
    for (int i = 0; i < saw_checkpoint_count(s->checkpoint); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(s->checkpoint, i);
        if (!saw_graph_find(g, t->name) && !saw_model_file_is_scale(s->checkpoint, t) &&
            !(s->spec.model->surplus && s->spec.model->surplus(t->name)))
            append_name(&surplus, &n_surplus, t->name, t->dims, t->ndim);
    }
    saw_status status = SAW_OK;
    if (n_missing || n_wrong || n_surplus) {
        saw_buffer all = {.ctx = s->ctx};
        const struct {
            const char *what;
            int count;
            const char *names;
        } lists[] = {{"missing", n_missing, missing.data},
                     {"of another shape", n_wrong, wrong.data},
                     {"not known to the model", n_surplus, surplus.data}};
        for (int i = 0; i < 3; i++)
            if (lists[i].count)
                saw_buffer_printf(&all, "%s%d %s: %s%s", all.size ? "; " : "", lists[i].count,
                                  lists[i].what, lists[i].names ? lists[i].names : "",
                                  lists[i].count > 4 ? ", ..." : "");
        status = saw_fail(s->ctx, SAW_ERR_SHAPE, "%s: its tensors do not fit %s as %s: %s", s->path,
                          s->spec.model->title,
                          s->config_path ? "its configuration says" : "it was inferred",
                          all.data ? all.data : "");
        saw_buffer_free(&all);
    }
    saw_buffer_free(&missing);
    saw_buffer_free(&wrong);
    saw_buffer_free(&surplus);
    return status;
}

static saw_status open_adapter(saw_separator *s, const saw_separator_options *o)
{
    char fingerprint[17];
    saw_status status = saw_peft_open(s->ctx, o->adapter, &s->adapter);
    const char *wanted = status ? NULL : saw_peft_fingerprint(s->adapter);
    if (wanted)
        status = saw_model_fingerprint(s->checkpoint, fingerprint);
    if (wanted && !status && strcmp(wanted, fingerprint)) {
        const char *base = saw_peft_base(s->adapter);
        return saw_fail(s->ctx, SAW_ERR_ARGUMENT,
                        "%s is an adapter for another model%s%s, not for %s", o->adapter,
                        base ? ", " : "", base ? base : "", s->path);
    }
    if (!status)
        saw_peft_set(s->adapter, false, o->adapter_strength > 0 ? o->adapter_strength : 1);
    return status;
}

static void fill_info(saw_separator *s)
{
    const saw_model_common *c = saw_model_common_of(&s->spec);
    for (int i = 0; i < c->stems; i++)
        s->stem_names[i] = c->stem_names[i];
    for (int i = 0; i < s->spec.assumed.count; i++)
        s->assumed[i] = s->spec.assumed.text[i];
    static const char *const precisions[] = {"f32", "bf16", "int8"};
    s->info.path = s->path;
    s->info.config_path = s->config_path;
    s->info.architecture = s->spec.model->name;
    s->info.precision = precisions[s->precision];
    s->info.device = "cpu";
    s->info.rate_hz = c->rate_hz;
    s->info.channels = c->channels;
    s->info.stems = c->stems;
    s->info.stem_names = s->stem_names;
    s->info.chunk_samples = c->chunk_samples;
    s->info.hop_samples = c->hop_samples;
    s->info.overlap = c->overlap;
    s->info.assumed_count = s->spec.assumed.count;
    s->info.assumed = s->assumed;
    s->info.normalize = c->normalize;
}

saw_status saw_separator_open(saw_context *ctx, const char *path,
                              const saw_separator_options *options, saw_separator **out)
{
    saw_separator_options o = {.precision = SAW_PRECISION_DEFAULT};
    if (options)
        o = *options;
    *out = NULL;
    if (o.device && strcmp(o.device, "cpu"))
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED, "the device %s is not there; cpu is", o.device);
    saw_separator *s = saw_calloc(ctx, 1, sizeof *s);
    if (!s)
        return SAW_ERR_MEMORY;
    s->ctx = ctx;
    s->precision = o.precision == SAW_PRECISION_DEFAULT ? SAW_PRECISION_F32 : o.precision;
    s->path = saw_strdup(ctx, path);
    saw_config *config = NULL;
    saw_status status = s->path ? saw_checkpoint_open(ctx, path, &s->checkpoint) : SAW_ERR_MEMORY;
    if (!status)
        status = saw_model_import(s->checkpoint);
    if (!status)
        status =
            saw_model_file_config(ctx, s->checkpoint, path, o.config, &config, &s->config_path);
    bool configured = config != NULL;
    if (!status && o.n_settings) {
        saw_config *merged;
        status = saw_model_file_merge(ctx, config, o.settings, o.n_settings, &merged);
        saw_config_free(config);
        config = merged;
    }
    if (!status) {
        status = configured ? saw_model_configure(ctx, config, s->checkpoint, &s->spec)
                            : saw_model_infer(ctx, config, s->checkpoint, &s->spec);
        if (status)
            status = saw_fail_in(ctx, status, s->config_path ? s->config_path : path);
    }
    saw_config_free(config);
    if (!status && o.adapter)
        status = open_adapter(s, &o);
    saw_graph *g = NULL;
    if (!status) {
        const saw_model_common *c = saw_model_common_of(&s->spec);
        g = record_model(s, 1, c->chunk_fixed ? c->chunk_samples : c->min_samples, false);
        status = g ? saw_graph_status(g) : SAW_ERR_MEMORY;
    }
    if (!status)
        status = check_names(s, g);
    if (!status)
        status = saw_weights_open(
            ctx,
            &(saw_weight_source){.dims = source_dims, .read = source_read, .user = s->checkpoint},
            &s->weights);
    if (!status && s->adapter)
        status = saw_peft_bind(s->adapter, g, s->weights, s->path);
    saw_graph_close(g);
    if (status) {
        saw_separator_close(s);
        return status;
    }
    fill_info(s);
    *out = s;
    return SAW_OK;
}

/* All parameters of a graph as a checkpoint of first values. */
static saw_status begin_checkpoint(saw_separator *s, const saw_graph *g, uint64_t seed)
{
    saw_safetensors_entry *e = saw_calloc(s->ctx, (size_t)saw_graph_values(g), sizeof *e);
    int n = 0;
    for (saw_val v = 1; e && v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM)
            continue;
        e[n].name = x->name;
        e[n].ndim = x->dims.n;
        memcpy(e[n++].dims, x->dims.d, sizeof x->dims.d);
        s->info.parameters += saw_dims_count(&x->dims);
    }
    saw_status status =
        e ? saw_checkpoint_of_formula(s->ctx, e, n, saw_model_start, seed, &s->checkpoint)
          : SAW_ERR_MEMORY;
    saw_free(s->ctx, e);
    return status;
}

saw_status saw_separator_begin(saw_context *ctx, const char *path, const char *const *settings,
                               int n_settings, uint64_t seed, saw_separator **out)
{
    *out = NULL;
    saw_separator *s = saw_calloc(ctx, 1, sizeof *s);
    if (!s)
        return SAW_ERR_MEMORY;
    s->ctx = ctx;
    s->path = saw_strdup(ctx, path);
    s->config_path = saw_strdup(ctx, path);
    saw_config *config = NULL, *merged = NULL;
    saw_status status =
        s->path && s->config_path ? saw_config_load(ctx, path, &config) : SAW_ERR_MEMORY;
    if (!status && n_settings)
        status = saw_model_file_merge(ctx, config, settings, n_settings, &merged);
    if (!status) {
        status = saw_model_configure(ctx, merged ? merged : config, NULL, &s->spec);
        if (status)
            status = saw_fail_in(ctx, status, path);
    }
    saw_config_free(merged);
    saw_config_free(config);
    saw_graph *g = NULL;
    if (!status) {
        const saw_model_common *c = saw_model_common_of(&s->spec);
        g = record_model(s, 1, c->chunk_fixed ? c->chunk_samples : c->min_samples, false);
        status = g ? saw_graph_status(g) : SAW_ERR_MEMORY;
    }
    if (!status)
        status = begin_checkpoint(s, g, seed);
    saw_graph_close(g);
    saw_weight_source source = saw_checkpoint_source(s->checkpoint);
    if (!status)
        status = saw_weights_open(ctx, &source, &s->weights);
    if (status) {
        saw_separator_close(s);
        return status;
    }
    fill_info(s);
    *out = s;
    return SAW_OK;
}

void saw_separator_close(saw_separator *s)
{
    if (!s)
        return;
    saw_weights_close(s->weights);
    saw_peft_close(s->adapter);
    saw_model_spec_close(s->ctx, &s->spec);
    saw_checkpoint_close(s->checkpoint);
    saw_free(s->ctx, s->config_path);
    saw_free(s->ctx, s->path);
    saw_free(s->ctx, s);
}

const saw_separator_info *saw_separator_get_info(const saw_separator *s)
{
    return &s->info;
}

const saw_model_spec *saw_separator_spec(const saw_separator *s)
{
    return &s->spec;
}

saw_weight_source saw_separator_source(saw_separator *s)
{
    return saw_checkpoint_source(s->checkpoint);
}

const saw_checkpoint *saw_separator_checkpoint(const saw_separator *s)
{
    return s->checkpoint;
}

/* ---- streams --------------------------------------------------------------------------------- */

static bool is_spleeter(const saw_stream_options *o)
{
    return o->stitch && !strcmp(o->stitch, "spleeter") && o->whole_samples <= 0;
}

static saw_status chunk_length(saw_separator *s, const saw_stream_options *o, int64_t *chunk)
{
    const saw_model_common *c = saw_model_common_of(&s->spec);
    int64_t hop = c->hop_samples > 0 ? c->hop_samples : 1;
    if (is_spleeter(o)) {
        *chunk = c->spleeter_chunk_samples;
        bool other = o->chunk_samples > 0 || o->overlap > 0;
        return *chunk && !other
                   ? SAW_OK
                   : saw_fail(
                         s->ctx, SAW_ERR_ARGUMENT,
                         other
                             ? "%s: the stitcher spleeter has its own chunks: leave chunk and "
                               "overlap out"
                             : "%s: only Spleeter's models can be joined by the stitcher spleeter",
                         s->path);
    }
    if (o->whole_samples > 0)
        *chunk = o->whole_samples > c->min_samples ? o->whole_samples : c->min_samples;
    else
        *chunk = o->chunk_samples > 0 ? (o->chunk_samples + hop - 1) / hop * hop : c->chunk_samples;
    if (c->chunk_fixed && *chunk / hop != c->chunk_samples / hop)
        return saw_fail(
            s->ctx, SAW_ERR_ARGUMENT,
            "%s: works only with chunks of %lld samples (%.2f s); leave the chunk length out",
            s->path, (long long)c->chunk_samples, (double)c->chunk_samples / c->rate_hz);
    if (*chunk < c->min_samples)
        return saw_fail(s->ctx, SAW_ERR_ARGUMENT,
                        "%s: a chunk must have at least %lld samples (%.3f s)", s->path,
                        (long long)c->min_samples, (double)c->min_samples / c->rate_hz);
    return SAW_OK;
}

static saw_status stem_outputs(saw_separator *s, const saw_stream_options *o, char names[][16],
                               const char **list, int *count)
{
    const saw_model_common *c = saw_model_common_of(&s->spec);
    int wanted = o->stems ? o->n_stems : c->stems;
    *count = 0;
    for (int i = 0; i < wanted && i < SAW_MAX_STEMS; i++) {
        int at = i;
        if (o->stems)
            for (at = 0; at < c->stems && strcmp(c->stem_names[at], o->stems[i]); at++)
                ;
        if (at == c->stems) {
            saw_buffer text = {.ctx = s->ctx};
            for (int k = 0; k < c->stems; k++)
                saw_buffer_printf(&text, "%s%s", k ? ", " : "", c->stem_names[k]);
            saw_status status =
                saw_fail(s->ctx, SAW_ERR_ARGUMENT, "%s: has no stem %s; its stems are: %s", s->path,
                         o->stems[i], text.data ? text.data : "");
            saw_buffer_free(&text);
            return status;
        }
        snprintf(names[i], 16, "stem%d", at);
        list[(*count)++] = names[i];
    }
    return SAW_OK;
}

static saw_status plan(saw_separator *s, const saw_stream_options *o, int64_t chunk,
                       const char *const *outputs, int n_outputs, saw_program **out)
{
    saw_graph *g = record_model(s, o->batch > 1 ? o->batch : 1, chunk, is_spleeter(o));
    *out = NULL;
    if (!g)
        return SAW_ERR_MEMORY;
    return saw_program_build(g,
                             &(saw_program_options){.device = SAW_DEVICE_CPU,
                                                    .precision = s->precision,
                                                    .outputs = outputs,
                                                    .n_outputs = n_outputs},
                             out);
}

saw_status saw_separator_plan(saw_separator *s, const saw_stream_options *options,
                              saw_program **out)
{
    saw_stream_options o = {0};
    if (options)
        o = *options;
    int64_t chunk;
    char names[SAW_MAX_STEMS][16];
    const char *outputs[SAW_MAX_STEMS];
    int n;
    *out = NULL;
    saw_status status = chunk_length(s, &o, &chunk);
    if (!status)
        status = stem_outputs(s, &o, names, outputs, &n);
    return status ? status : plan(s, &o, chunk, outputs, n, out);
}

/* Frames that are centred beyond the end are not there. */
static void mark_present(saw_stream *t, int count)
{
    int64_t frames = t->present.dims[1];
    for (int b = 0; b < t->batch; b++) {
        int64_t n = b < count ? saw_stitcher_present(t->stitcher, b) : 0;
        for (int64_t i = 0; i < frames; i++)
            ((float *)t->present.data)[b * frames + i] = i * t->hop + t->frame / 2 <= n ? 1 : 0;
    }
}

static saw_status run_chunks(void *user, int count, const float *const *in, float *const *out)
{
    saw_stream *t = user;
    int channels = t->info.channels;
    size_t bytes = (size_t)t->info.chunk_samples * sizeof(float);
    for (int i = 0; i < t->batch * channels; i++) {
        char *row = (char *)t->mix.data + (size_t)i * bytes;
        if (i < count * channels)
            memcpy(row, in[i], bytes);
        else
            memset(row, 0, bytes); /* a batch that is not full */
    }
    if (t->present.data)
        mark_present(t, count);
    saw_status status = saw_run_execute(t->run);
    for (int b = 0; b < count && !status; b++)
        for (int s = 0; s < t->n_stems; s++)
            for (int c = 0; c < channels; c++) {
                const saw_tensor *y = &t->stems[s];
                int64_t n = y->dims[2] < t->info.chunk_samples ? y->dims[2] : t->info.chunk_samples;
                float *to = out[(b * t->n_stems + s) * channels + c];
                memcpy(to, (const float *)y->data + b * y->strides[0] + c * y->strides[1],
                       (size_t)n * sizeof *to);
                memset(to + n, 0, (size_t)(t->info.chunk_samples - n) * sizeof *to);
            }
    return status;
}

saw_status saw_stream_open(saw_separator *s, const saw_stream_options *options, saw_stream **out)
{
    saw_stream_options o = {0};
    if (options)
        o = *options;
    const saw_model_common *c = saw_model_common_of(&s->spec);
    int64_t chunk;
    char names[SAW_MAX_STEMS][16];
    const char *outputs[SAW_MAX_STEMS];
    *out = NULL;
    saw_status status = chunk_length(s, &o, &chunk);
    saw_stream *t = status ? NULL : saw_calloc(s->ctx, 1, sizeof *t);
    if (!t)
        return status ? status : SAW_ERR_MEMORY;
    t->ctx = s->ctx;
    t->batch = o.batch > 1 ? o.batch : 1;
    status = stem_outputs(s, &o, names, outputs, &t->n_stems);
    if (!status)
        status = plan(s, &o, chunk, outputs, t->n_stems, &t->program);
    const char *kind = o.stitch ? o.stitch : c->stitch && o.overlap <= 0 ? c->stitch : "msst";
    saw_stitch_options stitch = {.kind = o.whole_samples > 0 ? "whole" : kind,
                                 .channels = c->channels,
                                 .stems = t->n_stems,
                                 .chunk_samples = chunk,
                                 .overlap = o.whole_samples > 0 ? 1
                                            : o.overlap > 0     ? o.overlap
                                                                : c->overlap,
                                 .batch = t->batch,
                                 .frame_samples = c->spleeter_frame_samples,
                                 .hop_samples = c->hop_samples};
    if (!status) {
        t->info =
            (saw_stream_info){.channels = c->channels, .stems = t->n_stems, .chunk_samples = chunk};
        t->info.step_samples = saw_stitcher_step_samples(&stitch);
        t->info.flops_per_chunk = saw_program_flops(t->program) / t->batch;
        t->info.memory_bytes = saw_program_run_bytes(t->program) +
                               saw_program_weight_bytes(t->program) +
                               saw_stitcher_memory_bytes(&stitch);
        if (o.memory_bytes && t->info.memory_bytes > o.memory_bytes)
            status = saw_fail(
                s->ctx, SAW_ERR_MEMORY,
                "this needs %.0f MB and the limit is %.0f MB: use a shorter chunk (now %.1f s)%s",
                (double)t->info.memory_bytes * 1e-6, (double)o.memory_bytes * 1e-6,
                (double)chunk / c->rate_hz,
                s->precision == SAW_PRECISION_F32 ? " or a smaller precision" : "");
    }
    if (!status) {
        status = saw_run_open(t->program, s->weights, &t->run);
        if (status == SAW_ERR_FORMAT || status == SAW_ERR_SHAPE)
            status = saw_fail_in(s->ctx, status, s->path);
    }
    if (!status)
        status = saw_stitcher_open(s->ctx, &stitch, run_chunks, t, &t->stitcher);
    t->stems = status ? NULL : saw_calloc(s->ctx, (size_t)t->n_stems + 1, sizeof *t->stems);
    if (!status && !t->stems)
        status = SAW_ERR_MEMORY;
    if (status) {
        saw_stream_close(t);
        return status;
    }
    t->mix = saw_run_named(t->run, "mix");
    t->present = saw_run_named(t->run, "present");
    t->frame = stitch.frame_samples;
    t->hop = stitch.hop_samples;
    for (int i = 0; i < t->n_stems; i++)
        t->stems[i] = saw_run_named(t->run, outputs[i]);
    t->info.latency_samples = saw_stitcher_latency_samples(t->stitcher);
    *out = t;
    return SAW_OK;
}

void saw_stream_close(saw_stream *t)
{
    if (!t)
        return;
    saw_stitcher_close(t->stitcher);
    saw_run_close(t->run);
    saw_program_close(t->program);
    saw_free(t->ctx, t->stems);
    saw_free(t->ctx, t);
}

const saw_stream_info *saw_stream_get_info(const saw_stream *t)
{
    return &t->info;
}

int64_t saw_stream_room(const saw_stream *t)
{
    return saw_stitcher_room(t->stitcher);
}

saw_status saw_stream_push(saw_stream *t, const float *const *in, int64_t n)
{
    return saw_stitcher_push(t->stitcher, in, n);
}

saw_status saw_stream_finish(saw_stream *t)
{
    return saw_stitcher_finish(t->stitcher);
}

int64_t saw_stream_ready(const saw_stream *t)
{
    return saw_stitcher_ready(t->stitcher);
}

saw_status saw_stream_pull(saw_stream *t, float *const *out, int64_t n)
{
    return saw_stitcher_pull(t->stitcher, out, n);
}
