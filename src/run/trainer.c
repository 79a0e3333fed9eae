#include "run/trainer.h"

#include "datasets/sampler.h"
#include "kernels/simd/simd.h"
#include "models/adapters/methods.h"
#include "nn/nn.h"
#include "nn/optim.h"
#include "run/model_file.h"
#include "run/peft_file.h"
#include "run/report.h"
#include "run/run_folder.h"
#include "run/separator.h"
#include "run/train_program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Running statistics of a batch norm that follow those of the batches. */
typedef struct running {
    char *name;       /* of the checkpoint's tensor; owned */
    saw_tensor batch; /* [D] in the run's memory */
    float *values;    /* [D], in the trainer's `statistics` */
} running;
static const float MOMENTUM = 0.1f;

struct saw_trainer {
    saw_context *ctx;
    saw_recipe *recipe;
    saw_separator *base;
    saw_adapters *adapters; /* what of the model trains, and how */
    char fingerprint[17];   /* of the base */
    saw_weights *weights;   /* the base's, and what an adapter starts from */
    saw_dataset *data, *replay, *general;
    saw_sampler *sampler, *replay_sampler;
    saw_train_setup setup;
    nn_loss_term loss[NN_LOSS_TERMS];
    const char *outputs[SAW_MAX_STEMS]; /* names of the trained stems of the model */
    saw_program *program, *teacher;     /* the teacher gives what is rehearsed */
    saw_run *run, *teacher_run;
    nn_optim *optim;
    const saw_range *ranges;
    int n_ranges;
    running *running;
    int n_running;
    float *statistics, *statistics_before; /* of all of them; before the present step */
    int64_t n_statistics;
    float *start;  /* of L2-SP: the trainables at step 0 */
    float *target; /* [B,S,C,N] */
    saw_run_folder *folder;
    saw_song_score *scores; /* of all songs of a data set */
    saw_train_plan plan;
    size_t validation_bytes; /* of a stream */
    /* the run's state, saved with the trainables and the optimizer's */
    int64_t step, validated; /* steps done; the last one that was validated */
    int64_t bad;             /* validations in a row without a better figure */
    double best, base_sdr, base_forgetting, seconds; /* of all sessions */
    /* progress */
    saw_train_progress now;
    void (*progress)(void *user, const saw_train_progress *p);
    void *user;
    double session_start;
    int64_t session_step;
};

/* ---- stems ----------------------------------------------------------------------------------- */

static int model_stem(const saw_model_common *c, const char *name, size_t n)
{
    for (int i = 0; i < c->stems; i++)
        if (strlen(c->stem_names[i]) == n && !strncmp(c->stem_names[i], name, n))
            return i;
    return -1;
}

/* Which stem of the model each wanted one is learnt by: that of its name, else the first that is
 * left. What is not wanted may be rehearsed. */
static saw_status choose_stems(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    const saw_model_common *c = saw_model_common_of(t->setup.spec);
    bool taken[SAW_MAX_STEMS] = {false};
    saw_train_setup *s = &t->setup;
    s->n_trained = r->stems.count ? r->stems.count : c->stems;
    if (s->n_trained > c->stems)
        return saw_fail(t->ctx, SAW_ERR_ARGUMENT,
                        "%s gives %d stems, and %d are to be learnt: name fewer with --stem",
                        saw_separator_get_info(t->base)->path, c->stems, s->n_trained);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < s->n_trained; i++) {
            const char *name = r->stems.count ? r->stems.items[i] : c->stem_names[i];
            int at = model_stem(c, name, strcspn(name, "="));
            if (pass == 0) {
                s->trained[i] = at;
            } else if (at < 0) {
                for (at = 0; taken[at]; at++)
                    ;
                s->trained[i] = at;
            }
            if (at >= 0)
                taken[at] = true;
        }
    for (int i = 0; i < s->n_trained; i++)
        t->outputs[i] = c->stem_names[s->trained[i]];
    for (int i = 0; i < c->stems && r->rehearsal; i++)
        if (!taken[i])
            s->rehearsed[s->n_rehearsed++] = i;
    s->rehearsal_weight = r->rehearsal_weight;
    return SAW_OK;
}

/* ---- data ------------------------------------------------------------------------------------ */

static saw_status open_songs(saw_trainer *t, const char *path, const char *layout,
                             const char *const *stems, int n, saw_dataset **out)
{
    const saw_model_common *c = saw_model_common_of(t->setup.spec);
    return saw_dataset_open(
        t->ctx, path,
        &(saw_dataset_options){.layout = layout && strcmp(layout, "auto") ? layout : NULL,
                               .stems = stems,
                               .n_stems = n,
                               .complete = t->recipe->complete,
                               .rate_hz = c->rate_hz,
                               .channels = c->channels},
        out);
}

static saw_status count_songs(saw_trainer *t)
{
    int n = saw_dataset_songs(t->data), most = n;
    int64_t samples = 0;
    for (int i = 0; i < n; i++) {
        t->plan.train_songs += saw_dataset_song(t->data, i)->part == SAW_SONG_TRAIN;
        t->plan.valid_songs += saw_dataset_song(t->data, i)->part == SAW_SONG_VALID;
        if (saw_dataset_song(t->data, i)->part == SAW_SONG_TRAIN)
            samples += saw_dataset_song(t->data, i)->samples;
    }
    if (!samples)
        return saw_fail(t->ctx, SAW_ERR_ARGUMENT, "%s: the songs to train with are all empty",
                        saw_dataset_path(t->data));
    if (t->general && saw_dataset_songs(t->general) > most)
        most = saw_dataset_songs(t->general);
    t->scores = saw_calloc(t->ctx, (size_t)most + 1, sizeof *t->scores);
    return t->scores ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status open_data(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    const char *const *stems = r->stems.count ? r->stems.items : t->outputs;
    saw_status status = open_songs(t, r->data, r->layout, stems, t->setup.n_trained, &t->data);
    if (!status && r->replay)
        status = open_songs(t, r->replay, NULL, t->outputs, t->setup.n_trained, &t->replay);
    if (!status && r->forgetting)
        status = open_songs(t, r->forgetting, NULL, t->outputs, t->setup.n_trained, &t->general);
    if (!status)
        status = saw_run_split(t->ctx, r, t->data);
    return status ? status : count_songs(t);
}

static saw_status open_sampler(saw_trainer *t, const saw_dataset *d, uint64_t seed,
                               saw_sampler **out)
{
    const saw_recipe *r = t->recipe;
    int n = r->augment.count;
    saw_augment *augment = saw_calloc(t->ctx, (size_t)n + 1, sizeof *augment);
    saw_status status = augment ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < n && !status; i++)
        status = saw_augment_parse(t->ctx, r->augment.items[i], &augment[i]);
    if (!status)
        status = saw_sampler_open(t->ctx, d,
                                  &(saw_sampler_options){.chunk_samples = t->setup.samples,
                                                         .batch = t->setup.batch,
                                                         .seed = seed,
                                                         .part = SAW_SONG_TRAIN,
                                                         .aligned = r->aligned,
                                                         .gate_db = r->gate_db,
                                                         .balance = r->balance,
                                                         .augment = augment,
                                                         .n_augment = n},
                                  out);
    saw_free(t->ctx, augment);
    return status;
}

/* ---- the program and its memory -------------------------------------------------------------- */

static void before_model(saw_graph *g, void *user)
{
    const saw_trainer *t = user;
    nn_adapt(g, t->adapters);
    nn_training(g, &(nn_training_options){.batch_norm = strcmp(t->recipe->batch_norm, "batch")
                                                            ? NN_BN_FROZEN
                                                            : NN_BN_BATCH,
                                          .dropout = t->recipe->dropout});
}

static void after_model(saw_graph *g, void *user)
{
    const saw_trainer *t = user;
    nn_trained trained;
    saw_status status = nn_trainability(g, t->adapters, &trained);
    if (status)
        saw_graph_fail(g, status, "%s", saw_context_error(t->ctx));
}

static saw_status choose_method(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    saw_buffer rules = {.ctx = t->ctx};
    for (int i = 0; i < r->rules.count; i++)
        saw_buffer_printf(&rules, "%s\n", r->rules.items[i]);
    saw_status status = saw_method_table(
        t->ctx, r->method,
        &(saw_method_options){
            .rules = rules.data, .rank = (int)r->rank, .alpha = isnan(r->alpha) ? 0 : r->alpha},
        saw_separator_checkpoint(t->base), &t->adapters);
    saw_buffer_free(&rules);
    return status;
}

static nn_optim_options optim_options(const saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    nn_optim_options o;
    if (nn_optim_defaults(t->ctx, r->optimizer, &o))
        return (nn_optim_options){0};
    /* Whole weights that were trained before learn a tenth as fast as what starts from nothing. */
    bool gentle = r->model && !strcmp(r->method, "full") && strcmp(r->optimizer, "prodigy");
    double usual = gentle ? o.schedule.lr / 10 : o.schedule.lr;
    o.schedule = (nn_schedule){.name = r->schedule,
                               .lr = isnan(r->lr) ? usual : r->lr,
                               .warmup_steps = r->warmup < r->steps / 4 ? r->warmup : r->steps / 4,
                               .total_steps = r->steps,
                               .floor = r->floor,
                               .factor = r->plateau_factor,
                               .patience = (int)r->plateau_patience};
    if (!isnan(r->weight_decay))
        o.weight_decay = r->weight_decay;
    if (!isnan(r->beta1))
        o.beta1 = r->beta1;
    if (!isnan(r->beta2))
        o.beta2 = r->beta2;
    o.clip = r->clip <= 0                      ? NN_CLIP_NONE
             : !strcmp(r->clip_mode, "tensor") ? NN_CLIP_TENSOR
                                               : NN_CLIP_GLOBAL;
    o.clip_norm = r->clip;
    o.ema_decay = r->ema;
    return o;
}

/* What is only opened when the run starts is refused before it. */
static saw_status check_options(const saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    nn_optim_options defaults;
    saw_augment ignored;
    saw_status status = nn_optim_defaults(t->ctx, r->optimizer, &defaults);
    nn_schedule schedule = optim_options(t).schedule;
    if (!status)
        status = nn_schedule_check(t->ctx, &schedule);
    for (int i = 0; i < r->augment.count && !status; i++)
        status = saw_augment_parse(t->ctx, r->augment.items[i], &ignored);
    return status;
}

static bool has_adapter(const saw_trainer *t)
{
    return nn_adapted_first(saw_program_graph(t->program)) != NULL;
}

/* Bytes of everything beside the data, for the program as it is planned. A validation runs while
 * the run waits. */
static size_t planned_bytes(const saw_trainer *t)
{
    const saw_range *ranges;
    int n = saw_program_ranges(t->program, &ranges);
    nn_optim_options o = optim_options(t);
    size_t weights = saw_program_weight_bytes(t->program),
           bytes = saw_program_run_bytes(t->program) + nn_optim_bytes(t->ctx, &o, n, ranges) +
                   t->validation_bytes;
    if (t->recipe->l2sp > 0)
        bytes += (size_t)saw_program_trainables(t->program) * sizeof(float);
    if (t->teacher) { /* its frozen weights are the adapted model's too */
        size_t own = saw_program_weight_bytes(t->teacher);
        weights = own > weights ? own : weights;
        bytes += saw_program_run_bytes(t->teacher);
    }
    return bytes + weights;
}

static saw_status plan_with(saw_trainer *t, int64_t samples, saw_checkpointing how)
{
    saw_program_close(t->program);
    saw_program_close(t->teacher);
    t->program = t->teacher = NULL;
    t->setup.samples = samples;
    t->setup.checkpointing = how;
    saw_status status = saw_train_program_build(t->ctx, &t->setup, &t->program);
    if (!status && t->setup.n_rehearsed) {
        saw_train_setup frozen = t->setup;
        frozen.n_loss = 0;
        frozen.before = frozen.after = NULL;
        status = saw_train_program_build(t->ctx, &frozen, &t->teacher);
    }
    if (!status)
        t->plan.memory_bytes = planned_bytes(t);
    return status;
}

/* What a reader keeps of decoded audio: the songs of a part, or of all (SAW_SONG_UNUSED). */
static size_t cache_bytes(const saw_dataset *d, saw_song_part part)
{
    enum { CACHE = 256 << 20 };
    size_t sample = sizeof(float) * (size_t)(saw_dataset_channels(d) * saw_dataset_sources(d));
    double bytes = 0;
    for (int i = 0; i < saw_dataset_songs(d); i++) {
        const saw_song *song = saw_dataset_song(d, i);
        if (part == SAW_SONG_UNUSED || song->part == part)
            bytes += (double)song->samples * (double)sample;
    }
    return bytes < CACHE ? (size_t)bytes : CACHE;
}

static size_t data_bytes(const saw_trainer *t)
{
    enum { AHEAD = 2 }; /* batches that a sampler has ready */
    size_t stems = (size_t)t->setup.n_trained,
           batch = (size_t)(t->setup.batch * t->setup.samples) * sizeof(float) *
                   (size_t)saw_dataset_channels(t->data),
           queue = AHEAD * (stems + 1) * batch,
           bytes = stems * batch + queue + cache_bytes(t->data, SAW_SONG_TRAIN),
           valid = cache_bytes(t->data, SAW_SONG_VALID),
           general = t->general ? cache_bytes(t->general, SAW_SONG_UNUSED) : 0;
    if (t->replay)
        bytes += queue + cache_bytes(t->replay, SAW_SONG_TRAIN);
    return bytes + (valid > general ? valid : general);
}

static saw_status plan_validation(saw_trainer *t)
{
    saw_program *p;
    saw_status status = saw_separator_plan(
        t->base, &(saw_stream_options){.stems = t->outputs, .n_stems = t->setup.n_trained}, &p);
    if (!status)
        t->validation_bytes = saw_program_run_bytes(p) + saw_program_weight_bytes(p);
    saw_program_close(p);
    return status;
}

/* The chunk and the checkpointing that fit the memory: less of the one only when no more of the
 * other helps. The chunk goes into the recipe, for a run that goes on has the one that it began
 * with, whatever memory is free then; checkpointing changes no bit. */
static saw_status plan(saw_trainer *t)
{
    static const char *const names[] = {"none", "plain", "nested"};
    const saw_recipe *r = t->recipe;
    const saw_model_common *c = saw_model_common_of(t->setup.spec);
    size_t whole, available, limit = r->memory;
    saw_machine_memory(&whole, &available);
    if (!limit)
        limit = available / 10 * 9;
    bool automatic = isnan(r->chunk_s) && !c->chunk_fixed;
    int64_t hop = c->hop_samples > 0 ? c->hop_samples : 1;
    int64_t samples = isnan(r->chunk_s) ? c->chunk_samples : llround(r->chunk_s * c->rate_hz);
    if (c->chunk_fixed && !isnan(r->chunk_s) && samples / hop != c->chunk_samples / hop)
        return saw_fail(
            t->ctx, SAW_ERR_ARGUMENT, "%s works only with chunks of %.2f s: leave --chunk out",
            saw_separator_get_info(t->base)->path, (double)c->chunk_samples / c->rate_hz);
    if (!c->chunk_fixed)
        samples = (samples + hop - 1) / hop * hop;
    samples = samples < c->min_samples ? c->min_samples : samples;
    saw_status status = plan_validation(t);
    if (status)
        return status;
    int first = !strcmp(r->checkpointing, "on"), last = !strcmp(r->checkpointing, "off") ? 0 : 2;
    for (;;) {
        for (int how = first; how <= last; how++) {
            status = plan_with(t, samples, (saw_checkpointing)how);
            if (status)
                return status;
            t->plan.memory_bytes += data_bytes(t);
            if (t->plan.memory_bytes <= limit || !limit) {
                t->plan.checkpointing = names[how];
                t->plan.memory_limit = r->memory;
                if (automatic)
                    t->recipe->chunk_s = (double)samples / c->rate_hz;
                return SAW_OK;
            }
        }
        int64_t less = samples / 2 / hop * hop;
        if (!automatic || less < c->min_samples || less < c->rate_hz)
            return saw_fail(
                t->ctx, SAW_ERR_MEMORY,
                "this run needs %.2f GB and %s %.2f GB: use a shorter --chunk (now %.1f s), a "
                "smaller --batch%s",
                (double)t->plan.memory_bytes * 1e-9, r->memory ? "the limit is" : "there are",
                (double)limit * 1e-9, (double)samples / c->rate_hz,
                has_adapter(t) ? "" : " or an adapter (--method lora)");
        samples = less;
    }
}

/* ---- open ------------------------------------------------------------------------------------ */

static saw_status open_optimizer(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    nn_optim_options o = optim_options(t);
    nn_param_group *groups = saw_calloc(t->ctx, (size_t)t->n_ranges + 1, sizeof *groups);
    if (!groups)
        return SAW_ERR_MEMORY;
    nn_param_groups(&(nn_param_options){.weight_decay = (float)o.weight_decay,
                                        .decay_matrices_only = true,
                                        .layer_decay = (float)r->layer_decay,
                                        .lora_plus_ratio = (float)r->lora_plus},
                    t->n_ranges, t->ranges, groups);
    for (int i = 0; i < t->n_ranges; i++)
        groups[i].lr_factor *=
            (float)nn_lr_factor(saw_program_graph(t->program), t->adapters, t->ranges[i].name);
    saw_status status = nn_optim_open(t->ctx, &o, t->n_ranges, t->ranges, groups,
                                      saw_run_params(t->run).data, &t->optim);
    saw_free(t->ctx, groups);
    return status;
}

static saw_status fill_plan(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    saw_train_plan *p = &t->plan;
    p->tensors = t->n_ranges = saw_program_ranges(t->program, &t->ranges);
    for (int i = 0; i < t->n_ranges; i++)
        p->trainable += t->ranges[i].count;
    if (!p->trainable)
        return saw_fail(t->ctx, SAW_ERR_ARGUMENT,
                        "the method %s leaves nothing of this model to train", r->method);
    if (!r->model && has_adapter(t))
        return saw_fail(t->ctx, SAW_ERR_ARGUMENT,
                        "the method %s adapts a model, and here is none yet: use --method full",
                        r->method);
    p->parameters = saw_separator_get_info(t->base)->parameters;
    p->flops_per_step = saw_program_flops(t->program) * (double)r->accumulate;
    p->seconds_per_step =
        p->flops_per_step / (saw_simd_best()->peak(SAW_F32, 0.02) * 1e9 * saw_threads(t->ctx));
    p->chunk_samples = t->setup.samples;
    p->steps = r->steps;
    p->batch = t->setup.batch;
    p->accumulate = (int)r->accumulate;
    p->rate_hz = saw_model_common_of(t->setup.spec)->rate_hz;
    return SAW_OK;
}

static saw_status open_base(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    if (!r->model)
        return saw_separator_begin(t->ctx, r->config, r->settings.items, r->settings.count,
                                   (uint64_t)r->seed, &t->base);
    return saw_separator_open(t->ctx, r->model,
                              &(saw_separator_options){.config = r->config,
                                                       .settings = r->settings.items,
                                                       .n_settings = r->settings.count,
                                                       .precision = SAW_PRECISION_F32},
                              &t->base);
}

saw_status saw_trainer_open(saw_context *ctx, saw_recipe *recipe, saw_trainer **out)
{
    *out = NULL;
    saw_trainer *t = saw_calloc(ctx, 1, sizeof *t);
    if (!t)
        return SAW_ERR_MEMORY;
    t->ctx = ctx;
    t->recipe = recipe;
    t->best = t->base_sdr = t->base_forgetting = NAN;
    t->validated = -1;
    saw_status status = SAW_OK;
    if (!(recipe->model || recipe->config) || !recipe->data)
        status =
            saw_fail(ctx, SAW_ERR_ARGUMENT, "a run needs a model (--model) and songs (--data)");
    if (!status)
        status = nn_loss_parse(ctx, recipe->loss, t->loss, &t->setup.n_loss);
    if (!status)
        status = check_options(t);
    if (!status)
        status = open_base(t);
    if (!status) {
        t->setup.spec = saw_separator_spec(t->base);
        t->setup.loss = t->loss;
        t->setup.batch = (int)recipe->batch;
        t->setup.before = before_model;
        t->setup.after = after_model;
        t->setup.user = t;
        status = choose_method(t);
    }
    if (!status)
        status = choose_stems(t);
    if (!status)
        status = open_data(t);
    if (!status)
        status = plan(t);
    if (!status)
        status = fill_plan(t);
    if (status) {
        saw_trainer_close(t);
        return status;
    }
    *out = t;
    return SAW_OK;
}

const saw_train_plan *saw_trainer_plan(const saw_trainer *t)
{
    return &t->plan;
}

void saw_trainer_close(saw_trainer *t)
{
    if (!t)
        return;
    saw_sampler_close(t->sampler);
    saw_sampler_close(t->replay_sampler);
    nn_optim_close(t->optim);
    saw_run_close(t->run);
    saw_run_close(t->teacher_run);
    saw_program_close(t->program);
    saw_program_close(t->teacher);
    saw_weights_close(t->weights);
    saw_dataset_close(t->data);
    saw_dataset_close(t->replay);
    saw_dataset_close(t->general);
    saw_run_folder_close(t->folder);
    saw_separator_close(t->base);
    for (int i = 0; i < t->n_running; i++)
        saw_free(t->ctx, t->running[i].name);
    saw_adapters_free(t->ctx, t->adapters);
    saw_free(t->ctx, t->running);
    saw_free(t->ctx, t->statistics);
    saw_free(t->ctx, t->start);
    saw_free(t->ctx, t->target);
    saw_free(t->ctx, t->scores);
    saw_free(t->ctx, t);
}

/* ---- state ----------------------------------------------------------------------------------- */

enum { COUNTS = 4, FIGURES = 4 };

static int64_t fingerprint_number(const saw_trainer *t)
{
    return (int64_t)strtoull(t->fingerprint, NULL, 16);
}

static saw_status save_state(saw_trainer *t)
{
    int64_t counts[COUNTS] = {t->step, t->validated, t->bad, fingerprint_number(t)};
    double figures[FIGURES] = {t->best, t->base_sdr, t->base_forgetting, t->seconds};
    nn_optim_array arrays[NN_OPTIM_ARRAYS + 4] = {{"run.counts", SAW_I64, COUNTS, counts},
                                                  {"run.figures", SAW_F64, FIGURES, figures}};
    int n = 2;
    nn_optim_array own[NN_OPTIM_ARRAYS];
    int n_own = nn_optim_arrays(t->optim, own);
    for (int pass = 0; pass < 3; pass++) { /* wide elements first */
        static const saw_dtype order[] = {SAW_I64, SAW_F64, SAW_F32};
        for (int i = 0; i < n_own; i++)
            if (own[i].dtype == order[pass])
                arrays[n++] = own[i];
    }
    saw_tensor params = saw_run_params(t->run);
    arrays[n++] = (nn_optim_array){"params", SAW_F32, params.dims[0], params.data};
    if (t->n_statistics)
        arrays[n++] = (nn_optim_array){"statistics", SAW_F32, t->n_statistics, t->statistics};
    return saw_run_folder_save_state(t->folder, arrays, n);
}

static saw_status read_state(saw_trainer *t, saw_checkpoint *file)
{
    const saw_ckpt_tensor *counts = saw_checkpoint_find(file, "run.counts"),
                          *figures = saw_checkpoint_find(file, "run.figures"),
                          *params = saw_checkpoint_find(file, "params"),
                          *statistics = saw_checkpoint_find(file, "statistics");
    saw_tensor to = saw_run_params(t->run);
    int64_t n[COUNTS];
    double x[FIGURES];
    if (!counts || counts->count != COUNTS || counts->dtype != SAW_I64 || !figures ||
        figures->count != FIGURES || !params || params->count != to.dims[0] ||
        (t->n_statistics && (!statistics || statistics->count != t->n_statistics)))
        return saw_fail(t->ctx, SAW_ERR_FORMAT,
                        "the state in %s is not that of this recipe: its model, method or rank is "
                        "another",
                        saw_run_folder_path(t->folder));
    saw_status status = saw_checkpoint_read_raw(file, counts, 0, COUNTS, n);
    if (!status)
        status = saw_checkpoint_read_f64(file, figures, 0, FIGURES, x);
    if (!status)
        status = nn_optim_load(t->optim, file);
    if (!status)
        status = saw_checkpoint_read_f32(file, params, 0, params->count, to.data);
    if (!status && t->n_statistics)
        status = saw_checkpoint_read_f32(file, statistics, 0, t->n_statistics, t->statistics);
    if (status)
        return status;
    if (n[3] != fingerprint_number(t))
        return saw_fail(t->ctx, SAW_ERR_FORMAT, "the run in %s began with another model than %s",
                        saw_run_folder_path(t->folder), saw_separator_get_info(t->base)->path);
    t->step = n[0];
    t->validated = n[1];
    t->bad = n[2];
    t->best = x[0];
    t->base_sdr = x[1];
    t->base_forgetting = x[2];
    t->seconds = x[3];
    return SAW_OK;
}

/* ---- models ---------------------------------------------------------------------------------- */

/* The numbers of what trains or follows the batches; NULL for any other tensor. */
static const float *present(const saw_trainer *t, const char *name)
{
    for (int i = 0; i < t->n_ranges; i++)
        if (!strcmp(t->ranges[i].name, name))
            return (const float *)saw_run_params(t->run).data + t->ranges[i].first;
    for (int i = 0; i < t->n_running; i++)
        if (!strcmp(t->running[i].name, name))
            return t->running[i].values;
    return NULL;
}

static saw_status read_tensor(void *user, const char *name, int64_t first, int64_t n, float *out)
{
    const saw_trainer *t = user;
    const float *x = present(t, name);
    saw_weight_source base = saw_separator_source(t->base);
    if (!x)
        return base.read(base.user, name, first, n, out);
    memcpy(out, x + first, (size_t)n * sizeof *out);
    return SAW_OK;
}

/* The whole model with what trains as it is now. */
static saw_status save_whole(saw_trainer *t, const char *path)
{
    const saw_checkpoint *ck = saw_separator_checkpoint(t->base);
    int count;
    saw_safetensors_entry *entries;
    saw_config *config = NULL, *merged = NULL;
    char *config_path = NULL;
    saw_status status = saw_model_file_tensors(t->ctx, ck, &entries, &count);
    if (!status)
        status = saw_model_file_config(t->ctx, ck, t->recipe->model, t->recipe->config, &config,
                                       &config_path);
    if (!status && t->recipe->settings.count)
        status = saw_model_file_merge(t->ctx, config, t->recipe->settings.items,
                                      t->recipe->settings.count, &merged);
    if (!status)
        status =
            saw_model_file_write(t->ctx, path,
                                 &(saw_model_parts){.tensors = entries,
                                                    .count = count,
                                                    .read = read_tensor,
                                                    .user = t,
                                                    .config = merged ? merged : config,
                                                    .architecture = t->setup.spec->model->name});
    saw_config_free(merged);
    saw_config_free(config);
    saw_free(t->ctx, config_path);
    saw_free(t->ctx, entries);
    return status;
}

static saw_status read_trained(void *user, const char *name, const saw_dims *dims, float *out)
{
    const saw_trainer *t = user;
    const float *x = present(t, name);
    if (!x)
        return saw_weights_read(t->weights, name, dims, out);
    memcpy(out, x, (size_t)saw_dims_count(dims) * sizeof *out);
    return SAW_OK;
}

/* A path says nothing on another machine. */
static const char *file_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : path;
}

/* Write the present weights into a folder of the run: an adapter, or the whole model. */
static saw_status save_model(saw_trainer *t, const char *folder)
{
    char name[64];
    if (!has_adapter(t)) {
        snprintf(name, sizeof name, "%s/model.safetensors", folder);
        const char *path = saw_run_folder_file(t->folder, name);
        return path ? save_whole(t, path) : SAW_ERR_IO;
    }
    const char *path = saw_run_folder_file(t->folder, folder);
    return path ? saw_peft_write(t->ctx, path,
                                 &(saw_peft_save){.graph = saw_program_graph(t->program),
                                                  .base = file_name(t->recipe->model),
                                                  .fingerprint = t->fingerprint,
                                                  .read = read_trained,
                                                  .user = t})
                : SAW_ERR_IO;
}

/* Open what save_model wrote, as `bandsaw separate` would. */
static saw_status open_saved(saw_trainer *t, const char *folder, saw_separator **out)
{
    const saw_recipe *r = t->recipe;
    char name[64];
    bool adapter = has_adapter(t);
    snprintf(name, sizeof name, "%s%s", folder, adapter ? "" : "/model.safetensors");
    const char *path = saw_run_folder_file(t->folder, name);
    if (!path)
        return SAW_ERR_IO;
    if (!adapter)
        return saw_separator_open(t->ctx, path,
                                  &(saw_separator_options){.precision = SAW_PRECISION_F32}, out);
    return saw_separator_open(t->ctx, r->model,
                              &(saw_separator_options){.config = r->config,
                                                       .settings = r->settings.items,
                                                       .n_settings = r->settings.count,
                                                       .precision = SAW_PRECISION_F32,
                                                       .adapter = path},
                              out);
}

/* ---- progress -------------------------------------------------------------------------------- */

static void tell(saw_trainer *t)
{
    if (!t->progress)
        return;
    double spent = saw_seconds() - t->session_start;
    int64_t done = t->step - t->session_step;
    t->now.step = t->step;
    t->now.steps = t->recipe->steps;
    t->now.steps_per_s = done ? (double)done / spent : 0;
    t->now.seconds_left = done ? spent / (double)done * (double)(t->recipe->steps - t->step) : NAN;
    t->progress(t->user, &t->now);
    t->now.validated = false;
}

static void tell_validating(void *user, int song, int songs, int64_t samples, int64_t of)
{
    saw_trainer *t = user;
    t->now.doing = "validating";
    t->now.share = (song + (double)samples / (double)of) / songs;
    tell(t);
    t->now.doing = NULL;
}

/* ---- validation ------------------------------------------------------------------------------ */

/* SDR of a model on the songs that validate and on the general ones (NaN where there are none). */
static saw_status score(saw_trainer *t, saw_separator *model, double *sdr, double *general,
                        int *songs)
{
    saw_score_options o = {.part = SAW_SONG_VALID,
                           .outputs = t->outputs,
                           .n_outputs = t->setup.n_trained,
                           .song_seconds = t->recipe->valid_seconds,
                           .progress = tell_validating,
                           .user = t};
    saw_status status = SAW_OK;
    int n;
    *sdr = *general = NAN;
    if (t->general) { /* all its songs, whatever their part */
        double sum = 0;
        int counted = 0;
        for (int part = SAW_SONG_TRAIN; part <= SAW_SONG_UNUSED && !status; part++) {
            o.part = (saw_song_part)part;
            double mean;
            status = saw_score_songs(t->ctx, model, t->general, &o, t->scores, &n, &mean);
            for (int i = 0; i < n && !status; i++)
                if (!isnan(t->scores[i].mean_db)) {
                    sum += t->scores[i].mean_db;
                    counted++;
                }
        }
        *general = counted ? sum / counted : NAN;
    }
    o.part = SAW_SONG_VALID;
    if (!status)
        status = saw_score_songs(t->ctx, model, t->data, &o, t->scores, songs, sdr);
    return status;
}

/* Score the present weights (their average, where there is one), keep them when they are the best
 * so far. At step 0 this is the base. */
static saw_status validate(saw_trainer *t)
{
    saw_separator *model = NULL;
    double sdr, general, start = saw_seconds();
    int songs = 0;
    bool ema = nn_optim_ema(t->optim) != NULL;
    const char *folder = ema ? "ema" : "last";
    float *params = saw_run_params(t->run).data;
    if (ema)
        nn_optim_swap_ema(t->optim, params);
    saw_status status = save_model(t, folder);
    if (!status)
        status = open_saved(t, folder, &model);
    if (!status)
        status = score(t, model, &sdr, &general, &songs);
    saw_separator_close(model);
    bool best = !status && t->step > 0 && !isnan(sdr) && !(sdr <= t->best);
    if (best)
        status = save_model(t, "best");
    if (ema)
        nn_optim_swap_ema(t->optim, params);
    if (status)
        return status;
    if (t->step == 0) {
        t->base_sdr = sdr;
        t->base_forgetting = general;
    } else {
        nn_optim_validated(t->optim, sdr);
        t->bad = best ? 0 : t->bad + 1;
    }
    if (best)
        t->best = sdr;
    t->validated = t->step;
    t->now.validated = true;
    t->now.sdr_db = sdr;
    t->now.best_sdr_db = t->best;
    t->now.base_sdr_db = t->base_sdr;
    t->now.forgetting_db = general;
    t->now.base_forgetting_db = t->base_forgetting;
    t->seconds += saw_seconds() - start;
    status = saw_run_log_valid(t->folder, t->data,
                               &(saw_run_valid){.step = t->step,
                                                .sdr_db = sdr,
                                                .forgetting_db = general,
                                                .seconds = t->seconds,
                                                .best = best,
                                                .songs = t->scores,
                                                .n_songs = songs,
                                                .outputs = t->outputs,
                                                .n_outputs = t->setup.n_trained});
    tell(t);
    return status;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static uint64_t draw(const saw_trainer *t, uint64_t what, uint64_t at)
{
    uint32_t word[4];
    saw_philox((uint64_t)t->recipe->seed, what, at, word);
    return (uint64_t)word[0] << 32 | word[1];
}

/* Fill the inputs of the program from one batch. What the model gives may be shorter than the
 * mixture. */
static saw_status fill_inputs(saw_trainer *t, int64_t forward)
{
    bool replay = t->replay_sampler &&
                  (double)(draw(t, 1, (uint64_t)forward) >> 11) * 0x1p-53 < t->recipe->replay_ratio;
    saw_tensor mix = saw_run_named(t->run, "mix"), target = saw_run_named(t->run, "target");
    saw_status status =
        saw_sampler_batch(replay ? t->replay_sampler : t->sampler, forward, mix.data, t->target);
    int64_t rows = target.dims[0] * target.dims[1] * target.dims[2], n = target.dims[3];
    for (int64_t i = 0; i < rows && !status; i++)
        memcpy((float *)target.data + i * n, t->target + i * t->setup.samples,
               (size_t)n * sizeof(float));
    if (status || !t->teacher_run)
        return status;
    memcpy(saw_run_named(t->teacher_run, "mix").data, mix.data,
           (size_t)saw_tensor_count(&mix) * sizeof(float));
    status = saw_run_execute(t->teacher_run);
    for (int i = 0; i < t->setup.n_rehearsed && !status; i++) {
        char stem[16], name[32];
        snprintf(stem, sizeof stem, "stem%d", t->setup.rehearsed[i]);
        snprintf(name, sizeof name, "rehearsal%d", i);
        saw_tensor from = saw_run_named(t->teacher_run, stem), to = saw_run_named(t->run, name);
        memcpy(to.data, from.data, (size_t)saw_tensor_count(&to) * sizeof(float));
    }
    return status;
}

static void follow_batch(saw_trainer *t)
{
    for (int i = 0; i < t->n_running; i++) {
        const running *r = &t->running[i];
        for (int64_t k = 0; k < r->batch.dims[0]; k++)
            r->values[k] += MOMENTUM * (((const float *)r->batch.data)[k] - r->values[k]);
    }
}

/* The gradient of strength / 2 |p - start|^2, of the size that the optimizer divides. */
static void pull_to_start(saw_trainer *t, double strength)
{
    const float *p = saw_run_params(t->run).data;
    float *g = saw_run_gradients(t->run).data;
    int64_t n = saw_program_trainables(t->program);
    for (int64_t i = 0; i < n; i++)
        g[i] += (float)strength * (p[i] - t->start[i]);
}

/* One forward and backward of a step, the gradients added to those of the ones before. */
static saw_status accumulate(saw_trainer *t, int64_t a, double *loss)
{
    int64_t forward = t->step * t->recipe->accumulate + a;
    saw_status status = fill_inputs(t, forward);
    saw_run_accumulate(t->run, a > 0);
    saw_run_seed(t->run, draw(t, 2, (uint64_t)forward));
    if (!status)
        status = saw_run_execute(t->run);
    if (!status)
        follow_batch(t);
    *loss += *(const float *)saw_run_named(t->run, "loss").data;
    return status;
}

static saw_status train_step(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    double start = saw_seconds(), loss = 0;
    size_t bytes = (size_t)t->n_statistics * sizeof *t->statistics;
    memcpy(t->statistics_before, t->statistics, bytes);
    for (int64_t a = 0; a < r->accumulate; a++) {
        saw_status status = accumulate(t, a, &loss);
        if (status) { /* as if the step had not begun */
            memcpy(t->statistics, t->statistics_before, bytes);
            return status;
        }
    }
    if (t->start)
        pull_to_start(t, r->l2sp * (double)r->accumulate);
    nn_optim_report report =
        nn_optim_step(t->optim, 1 / (float)r->accumulate, saw_run_params(t->run).data,
                      saw_run_gradients(t->run).data);
    t->step++;
    t->seconds += saw_seconds() - start;
    t->now.loss = loss / (double)r->accumulate;
    t->now.grad_norm = report.norm;
    t->now.lr = report.lr;
    if (report.where)
        saw_log(t->ctx, SAW_LOG_WARN,
                "step %lld: the gradient of %s is not finite; the step was left out",
                (long long)t->step, report.where);
    return saw_run_log_step(t->folder, &(saw_run_step){.step = t->step,
                                                       .loss = t->now.loss,
                                                       .grad_norm = report.norm,
                                                       .lr = report.lr,
                                                       .seconds = t->seconds});
}

/* ---- the run --------------------------------------------------------------------------------- */

/* Every output "NAME.batch" of the program moves the statistics NAME of the model. */
static saw_status find_statistics(saw_trainer *t)
{
    static const char end[] = ".batch";
    const saw_graph *g = saw_program_graph(t->program);
    saw_status status = SAW_OK;
    for (int pass = 0; pass < 2 && !status; pass++) {
        int n = 0;
        int64_t at = 0;
        for (saw_val v = 1; v < saw_graph_values(g) && !status; v++) {
            const saw_value *x = saw_graph_value(g, v);
            size_t size = x->output && x->name ? strlen(x->name) : 0;
            if (size < sizeof end || strcmp(x->name + size - (sizeof end - 1), end))
                continue;
            if (pass) {
                running *r = &t->running[n];
                r->name = saw_strndup(t->ctx, x->name, size - (sizeof end - 1));
                r->batch = saw_run_value(t->run, v);
                r->values = t->statistics + at;
                t->n_running = n + 1;
                status = r->name ? saw_weights_read(t->weights, r->name, &x->dims, r->values)
                                 : SAW_ERR_MEMORY;
            }
            at += saw_dims_count(&x->dims);
            n++;
        }
        t->n_statistics = at;
        if (!pass) {
            t->running = saw_calloc(t->ctx, (size_t)n + 1, sizeof *t->running);
            t->statistics = saw_calloc(t->ctx, 2 * (size_t)at + 1, sizeof *t->statistics);
            t->statistics_before = t->statistics + at;
            status = t->running && t->statistics ? SAW_OK : SAW_ERR_MEMORY;
        }
    }
    return status;
}

static saw_status start_run(saw_trainer *t)
{
    const saw_recipe *r = t->recipe;
    const saw_model_common *c = saw_model_common_of(t->setup.spec);
    size_t batch = (size_t)(t->setup.batch * c->channels * t->setup.samples);
    saw_status status = saw_run_folder_open(t->ctx, t->recipe, &t->folder);
    if (!status)
        status = saw_run_folder_split(t->folder, t->data);
    t->target =
        status ? NULL : saw_alloc(t->ctx, batch * (size_t)t->setup.n_trained * sizeof *t->target);
    if (!status && !t->target)
        status = SAW_ERR_MEMORY;
    saw_weight_source source = saw_separator_source(t->base);
    if (!status)
        status = saw_model_fingerprint(source.user, t->fingerprint);
    if (!status)
        status = saw_weights_open(t->ctx, &source, &t->weights);
    if (!status)
        status = nn_adapters_start(saw_program_graph(t->program), t->weights, (uint64_t)r->seed);
    if (!status)
        status = saw_run_open(t->program, t->weights, &t->run);
    if (!status)
        status = find_statistics(t);
    if (!status && t->teacher)
        status = saw_run_open(t->teacher, t->weights, &t->teacher_run);
    if (!status && r->l2sp > 0) {
        size_t n = (size_t)saw_program_trainables(t->program);
        t->start = saw_alloc(t->ctx, n * sizeof *t->start);
        if (t->start)
            memcpy(t->start, saw_run_params(t->run).data, n * sizeof *t->start);
        else
            status = SAW_ERR_MEMORY;
    }
    if (!status)
        status = open_optimizer(t);
    if (!status)
        status = open_sampler(t, t->data, (uint64_t)r->seed, &t->sampler);
    if (!status && t->replay)
        status = open_sampler(t, t->replay, draw(t, 3, 0), &t->replay_sampler);
    if (!status)
        *(float *)saw_run_named(t->run, "gradient of the loss").data = 1;
    if (status || !r->resume)
        return status;
    saw_checkpoint *file = NULL;
    status = saw_run_folder_load_state(t->folder, &file);
    bool begun = file != NULL;
    if (!status && begun)
        status = read_state(t, file);
    saw_checkpoint_close(file);
    return status ? status : saw_run_log_cut(t->folder, begun ? t->step : -1);
}

static saw_status save_all(saw_trainer *t)
{
    saw_status status = save_state(t);
    return status ? status : save_model(t, "last");
}

/* What the report lets people hear: the base beside the best model of the run. */
static saw_status write_excerpts(saw_trainer *t)
{
    saw_separator *best = NULL;
    saw_status status = isnan(t->best) ? SAW_OK : open_saved(t, "best", &best);
    if (!status && best)
        status = saw_report_excerpts(t->ctx, saw_run_folder_path(t->folder), t->data,
                                     &(saw_excerpt_options){.outputs = t->outputs,
                                                            .n_outputs = t->setup.n_trained,
                                                            .before = t->base,
                                                            .after = best});
    saw_separator_close(best);
    return status;
}

saw_status saw_trainer_run(saw_trainer *t,
                           void (*progress)(void *user, const saw_train_progress *p), void *user)
{
    const saw_recipe *r = t->recipe;
    t->progress = progress;
    t->user = user;
    saw_status status = t->run ? SAW_OK : start_run(t);
    if (status)
        return status;
    t->now = (saw_train_progress){.loss = NAN,
                                  .grad_norm = NAN,
                                  .sdr_db = NAN,
                                  .best_sdr_db = t->best,
                                  .base_sdr_db = t->base_sdr,
                                  .forgetting_db = NAN,
                                  .base_forgetting_db = t->base_forgetting};
    t->session_start = saw_seconds();
    t->session_step = t->step;
    int64_t kept = -1; /* the step that was last saved */
    while (!status) {
        bool due = t->step % r->validate_every == 0 || t->step == r->steps;
        if (due && t->validated != t->step)
            status = validate(t);
        if (!status && t->step % r->save_every == 0 && kept != t->step) {
            status = save_all(t);
            kept = t->step;
        }
        if (status || t->step >= r->steps || (r->patience > 0 && t->bad >= r->patience))
            break;
        status = train_step(t);
        if (!status)
            tell(t);
    }
    if (status == SAW_ERR_CANCELLED) { /* the step that was cut short is done again */
        saw_context_resume(t->ctx);
        saw_status saved = save_all(t);
        if (!saved)
            saw_fail(t->ctx, SAW_ERR_CANCELLED,
                     "stopped at step %lld of %lld: go on with --resume %s", (long long)t->step,
                     (long long)r->steps, saw_run_folder_path(t->folder));
        return saved ? saved : SAW_ERR_CANCELLED;
    }
    if (!status && kept != t->step)
        status = save_all(t);
    return status ? status : write_excerpts(t);
}
