#include "nn/optim_row.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE = 16384, LINE_BYTES = 64, MAX_LAYERS = 10000 };

#define NN_OPTIM(name) extern const nn_optim_row nn_optim_##name;
#include "nn/optim.def"
#undef NN_OPTIM

#define NN_OPTIM(name) &nn_optim_##name,
static const nn_optim_row *const ROWS[] = {
#include "nn/optim.def"
};
#undef NN_OPTIM
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

/* ---- options --------------------------------------------------------------------------------- */

static const nn_optim_row *row_named(saw_context *ctx, const char *name)
{
    char known[256] = "";
    for (int i = 0; i < N_ROWS; i++) {
        if (!strcmp(ROWS[i]->defaults.name, name))
            return ROWS[i];
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", ROWS[i]->defaults.name);
    }
    saw_fail(ctx, SAW_ERR_ARGUMENT, "there is no optimizer '%s': use one of %s", name, known);
    return NULL;
}

saw_status nn_optim_defaults(saw_context *ctx, const char *name, nn_optim_options *out)
{
    const nn_optim_row *row = row_named(ctx, name);
    if (!row)
        return SAW_ERR_ARGUMENT;
    *out = row->defaults;
    return SAW_OK;
}

const char *nn_optim_name(int i)
{
    return i < N_ROWS ? ROWS[i]->defaults.name : NULL;
}

/* The number after the marker in the name, or -1. */
static int64_t layer_of(const char *name, const char *marker)
{
    for (const char *at = strstr(name, marker); at; at = strstr(at + 1, marker))
        if ((at == name || at[-1] == '.') && isdigit((unsigned char)at[strlen(marker)]))
            return strtol(at + strlen(marker), NULL, 10) % MAX_LAYERS;
    return -1;
}

void nn_param_groups(const nn_param_options *o, int n, const saw_range *ranges, nn_param_group *out)
{
    const char *marker = o->layer_marker ? o->layer_marker : "layers.";
    int64_t last = -1, layer = -1;
    for (int i = 0; i < n; i++)
        last = layer_of(ranges[i].name, marker) > last ? layer_of(ranges[i].name, marker) : last;
    for (int i = 0; i < n; i++) {
        bool vector = ranges[i].dims.n < 2;
        int64_t own = layer_of(ranges[i].name, marker);
        if (own >= 0)
            layer = own;
        double factor = 1;
        if (o->layer_decay > 0)
            for (int64_t k = own >= 0 ? own : layer >= 0 ? last : -1; k < last; k++)
                factor *= o->layer_decay;
        if (o->lora_plus_ratio > 0 && (vector || saw_glob_match("*lora_B*", ranges[i].name)))
            factor *= o->lora_plus_ratio;
        out[i].weight_decay = vector && o->decay_matrices_only ? 0 : o->weight_decay;
        for (int k = 0; k < o->n_rules; k++)
            if (saw_glob_match(o->rules[k].glob, ranges[i].name)) {
                factor *= o->rules[k].lr_factor;
                if (o->rules[k].weight_decay >= 0)
                    out[i].weight_decay = o->rules[k].weight_decay;
                break;
            }
        out[i].lr_factor = (float)factor;
    }
}

static saw_status check_options(saw_context *ctx, const nn_optim_row *row,
                                const nn_optim_options *o)
{
    const nn_optim_options *d = &row->defaults; /* 0 there: the row has no use for it */
    const struct {
        const char *name;
        double value;
        bool good;
    } numbers[] = {
        {"beta1", o->beta1, o->beta1 >= 0 && o->beta1 < 1},
        {"beta2", o->beta2, o->beta2 >= 0 && o->beta2 < 1},
        {"eps", o->eps, d->eps == 0 || (o->eps > 0 && o->eps < INFINITY)},
        {"momentum", o->momentum, o->momentum >= 0 && o->momentum < 1},
        {"weight decay", o->weight_decay, o->weight_decay >= 0 && o->weight_decay < INFINITY},
        {"d0", o->d0, d->d0 == 0 || (o->d0 > 0 && o->d0 < INFINITY)},
        {"growth", o->growth, d->growth == 0 || o->growth >= 1},
        {"clip norm", o->clip_norm, o->clip == NN_CLIP_NONE || o->clip_norm > 0},
        {"EMA decay", o->ema_decay, o->ema_decay >= 0 && o->ema_decay < 1},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!numbers[i].good)
            return saw_fail(ctx, SAW_ERR_ARGUMENT, "optimizer %s: a %s of %g makes no sense",
                            o->name, numbers[i].name, numbers[i].value);
    return nn_schedule_check(ctx, &o->schedule);
}

/* ---- the plan and its memory ----------------------------------------------------------------- */

typedef struct range_plan {
    saw_range range;
    nn_param_group group;
    int buffers;
    bool whole;
    int64_t state; /* where its state begins: buffer k at state + k * count */
    double squares;
    float g_scale; /* of this step */
} range_plan;

typedef struct slice_plan {
    int range;
    int64_t first, count; /* in its range */
    double sums[2];
    bool done;
} slice_plan;

struct nn_optim {
    saw_context *ctx;
    const nn_optim_row *row;
    nn_optim_options options;
    int n_ranges;
    int64_t n_slices, trainables, n_state;
    size_t bytes, scratch_bytes; /* of the one block; of one thread's scratch */
    range_plan *ranges;          /* from here on in the block */
    slice_plan *slices;
    float *state, *ema;
    char *scratch;
    /* What is saved beside state and ema. */
    int64_t identity[2]; /* of the row and the ranges; trainables */
    struct {
        int64_t asked, taken, bad;
    } counts;
    struct {
        double row[NN_OPTIM_SCALARS], best, scale;
    } scalars;
    /* Of the pass under way. */
    nn_update update;
    saw_task *task;
    float *params;
    const float *gradients;
    float ema_share;
};

static size_t aligned(size_t bytes)
{
    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

/* What the range takes; NULL row->whole means slices of the row's buffers. */
static range_plan plan_range(const nn_optim *o, const saw_range *range, size_t *scratch)
{
    range_plan p = {.range = *range, .buffers = o->row->buffers};
    size_t bytes = 0;
    p.whole = o->row->whole && o->row->whole(&o->update, range, &p.buffers, &bytes);
    *scratch = aligned(bytes);
    return p;
}

static int64_t slices_of(const range_plan *p)
{
    return p->whole ? p->range.count > 0 : (p->range.count + SLICE - 1) / SLICE;
}

/* Sizes, and with a block the pointers into it. */
static void lay_out(nn_optim *o, int n, const saw_range *ranges, char *block)
{
    o->n_ranges = n;
    o->n_slices = o->trainables = o->n_state = 0;
    o->scratch_bytes = 0;
    for (int i = 0; i < n; i++) {
        size_t scratch;
        range_plan p = plan_range(o, &ranges[i], &scratch);
        o->n_slices += slices_of(&p);
        o->n_state += p.buffers * p.range.count;
        o->scratch_bytes = scratch > o->scratch_bytes ? scratch : o->scratch_bytes;
        if (p.range.first + p.range.count > o->trainables)
            o->trainables = p.range.first + p.range.count;
    }
    const size_t sizes[] = {
        aligned((size_t)n * sizeof *o->ranges),
        aligned((size_t)o->n_slices * sizeof *o->slices),
        aligned((size_t)o->n_state * sizeof *o->state),
        aligned((size_t)(o->options.ema_decay > 0 ? o->trainables : 0) * sizeof *o->ema),
        o->scratch_bytes * (size_t)saw_threads(o->ctx),
    };
    char *at[sizeof sizes / sizeof *sizes];
    o->bytes = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        at[i] = block ? block + o->bytes : NULL;
        o->bytes += sizes[i];
    }
    o->ranges = (range_plan *)at[0];
    o->slices = (slice_plan *)at[1];
    o->state = (float *)at[2];
    o->ema = o->options.ema_decay > 0 ? (float *)at[3] : NULL;
    o->scratch = at[4];
}

static nn_optim optim_of(saw_context *ctx, const nn_optim_row *row, const nn_optim_options *options)
{
    nn_optim o = {.ctx = ctx, .row = row, .options = *options};
    o.update = (nn_update){.options = options, .simd = saw_simd_best()};
    return o;
}

size_t nn_optim_bytes(saw_context *ctx, const nn_optim_options *options, int n,
                      const saw_range *ranges)
{
    const nn_optim_row *row = row_named(ctx, options->name);
    if (!row)
        return 0;
    nn_optim o = optim_of(ctx, row, options);
    lay_out(&o, n, ranges, NULL);
    return sizeof o + o.bytes;
}

static int64_t hash(int64_t h, const void *bytes, size_t n)
{
    uint64_t pair[2] = {(uint64_t)h, saw_fnv1a(bytes, n)};
    return (int64_t)saw_fnv1a(pair, sizeof pair);
}

static nn_slice slice_at(const nn_optim *o, int64_t i, int thread)
{
    const slice_plan *s = &o->slices[i];
    const range_plan *r = &o->ranges[s->range];
    int64_t at = r->range.first + s->first;
    nn_slice out = {
        .n = s->count,
        .p = o->params + at,
        .g = o->gradients ? o->gradients + at : NULL,
        .g_scale = r->g_scale,
        .lr = (float)(o->update.lr * r->group.lr_factor),
        .decay = r->group.weight_decay,
        .range = &r->range,
        .scratch = o->scratch + o->scratch_bytes * (size_t)thread,
    };
    for (int k = 0; k < r->buffers; k++)
        out.state[k] = o->state + r->state + k * r->range.count + s->first;
    return out;
}

saw_status nn_optim_open(saw_context *ctx, const nn_optim_options *options, int n,
                         const saw_range *ranges, const nn_param_group *groups, const float *params,
                         nn_optim **out)
{
    *out = NULL;
    const nn_optim_row *row = row_named(ctx, options->name);
    saw_status status = row ? check_options(ctx, row, options) : SAW_ERR_ARGUMENT;
    if (status)
        return status;
    nn_optim *o = saw_calloc(ctx, 1, sizeof *o);
    if (!o)
        return SAW_ERR_MEMORY;
    *o = optim_of(ctx, row, options);
    o->update.options = &o->options;
    o->update.scalars = o->scalars.row;
    lay_out(o, n, ranges, NULL);
    char *block = saw_map_alloc(ctx, o->bytes);
    if (!block) {
        saw_free(ctx, o);
        return SAW_ERR_MEMORY;
    }
    lay_out(o, n, ranges, block);

    int64_t state = 0, slice = 0;
    o->identity[0] = hash(0, options->name, strlen(options->name));
    o->identity[1] = o->trainables;
    for (int i = 0; i < n; i++) {
        size_t scratch;
        range_plan *r = &o->ranges[i];
        *r = plan_range(o, &ranges[i], &scratch);
        r->group = groups ? groups[i] : (nn_param_group){1, (float)options->weight_decay};
        r->state = state;
        state += r->buffers * r->range.count;
        int64_t piece = r->whole ? r->range.count : SLICE;
        for (int64_t first = 0; first < r->range.count; first += piece) {
            int64_t left = r->range.count - first;
            o->slices[slice++] = (slice_plan){i, first, left < piece ? left : piece, {0}, false};
        }
        const saw_dims *dims = &r->range.dims;
        int64_t shape[2 + SAW_MAX_DIMS] = {r->range.first, r->buffers};
        memcpy(shape + 2, dims->d, (size_t)dims->n * sizeof *dims->d);
        o->identity[0] = hash(o->identity[0], r->range.name, strlen(r->range.name));
        o->identity[0] = hash(o->identity[0], shape, (2 + (size_t)dims->n) * sizeof *shape);
    }

    nn_plateau plateau = nn_plateau_start();
    o->scalars.best = plateau.best;
    o->scalars.scale = plateau.scale;
    o->params = (float *)params; /* only read by start */
    for (int64_t i = 0; row->start && i < o->n_slices; i++) {
        nn_slice s = slice_at(o, i, 0);
        row->start(&o->update, &s);
    }
    if (o->ema)
        memcpy(o->ema, params, (size_t)o->trainables * sizeof *params);
    *out = o;
    return SAW_OK;
}

void nn_optim_close(nn_optim *o)
{
    if (!o)
        return;
    saw_map_free(o->ctx, o->ranges, o->bytes); /* the block begins with them */
    saw_free(o->ctx, o);
}

/* ---- passes over the slices ------------------------------------------------------------------ */

static void run_slice(void *arg, int64_t item, int thread)
{
    nn_optim *o = arg;
    o->task(o, item, thread);
    o->slices[item].done = true;
}

/* All slices, also when a cancel stops the team: nothing is left half done. */
static void pass(nn_optim *o, saw_task *task)
{
    o->task = task;
    for (int64_t i = 0; i < o->n_slices; i++)
        o->slices[i].done = false;
    saw_parallel(o->ctx, o->n_slices, run_slice, o);
    for (int64_t i = 0; i < o->n_slices; i++)
        if (!o->slices[i].done)
            task(o, i, 0);
}

static void square_task(void *arg, int64_t item, int thread)
{
    (void)thread;
    nn_optim *o = arg;
    slice_plan *s = &o->slices[item];
    const float *g = o->gradients + o->ranges[s->range].range.first + s->first;
    double lanes[8] = {0}; /* a fixed order that a compiler can keep in vectors */
    int64_t i = 0;
    for (; i + 8 <= s->count; i += 8)
        for (int k = 0; k < 8; k++)
            lanes[k] += (double)g[i + k] * g[i + k];
    for (; i < s->count; i++)
        lanes[i % 8] += (double)g[i] * g[i];
    s->sums[0] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                 ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static void gather_task(void *arg, int64_t item, int thread)
{
    nn_optim *o = arg;
    slice_plan *s = &o->slices[item];
    nn_slice slice = slice_at(o, item, thread);
    s->sums[0] = s->sums[1] = 0;
    o->row->gather(&o->update, &slice, s->sums);
}

static void step_task(void *arg, int64_t item, int thread)
{
    nn_optim *o = arg;
    nn_slice s = slice_at(o, item, thread);
    o->row->step(&o->update, &s);
    if (!o->ema)
        return;
    float *restrict e = o->ema + (s.p - o->params);
    const float *restrict p = s.p;
    for (int64_t i = 0; i < s.n; i++)
        e[i] += o->ema_share * (p[i] - e[i]);
}

static void swap_task(void *arg, int64_t item, int thread)
{
    (void)thread;
    nn_optim *o = arg;
    const slice_plan *s = &o->slices[item];
    int64_t at = o->ranges[s->range].range.first + s->first;
    float *restrict p = o->params + at, *restrict e = o->ema + at;
    for (int64_t i = 0; i < s->count; i++) {
        float t = p[i];
        p[i] = e[i];
        e[i] = t;
    }
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Norms of all and of every range; the name of the first range that is not finite, or NULL. */
static const char *norms(nn_optim *o, float scale, double *norm)
{
    double all = 0;
    const char *where = NULL;
    pass(o, square_task);
    for (int i = 0; i < o->n_ranges; i++)
        o->ranges[i].squares = 0;
    for (int64_t i = 0; i < o->n_slices; i++)
        o->ranges[o->slices[i].range].squares += o->slices[i].sums[0];
    for (int i = 0; i < o->n_ranges; i++) {
        all += o->ranges[i].squares;
        if (!where && !isfinite(o->ranges[i].squares))
            where = o->ranges[i].range.name;
    }
    *norm = fabs((double)scale) * sqrt(all);
    return where;
}

static double clip_factor(const nn_optim *o, double norm)
{
    return fmin(1, o->options.clip_norm / (norm + 1e-6));
}

nn_optim_report nn_optim_step(nn_optim *o, float scale, float *params, const float *gradients)
{
    nn_optim_report report = {.lr = nn_optim_lr(o)};
    o->params = params;
    o->gradients = gradients;
    report.where = norms(o, scale, &report.norm);
    o->counts.asked++;
    if (report.where)
        return report;

    double global = o->options.clip == NN_CLIP_GLOBAL ? clip_factor(o, report.norm) : 1;
    for (int i = 0; i < o->n_ranges; i++) {
        double own = fabs((double)scale) * sqrt(o->ranges[i].squares);
        double clip = o->options.clip == NN_CLIP_TENSOR ? clip_factor(o, own) : global;
        o->ranges[i].g_scale = (float)(scale * clip);
    }
    double t = (double)++o->counts.taken, decay = o->options.ema_decay;
    if (o->options.ema_warmup)
        decay = fmin(decay, (1 + t) / (10 + t));
    o->ema_share = (float)(1 - decay);

    o->update.t = o->counts.taken;
    o->update.lr = report.lr;
    o->update.rate = 1;
    if (o->row->gather) {
        double sums[2] = {0};
        pass(o, gather_task);
        for (int64_t i = 0; i < o->n_slices; i++) {
            sums[0] += o->slices[i].sums[0];
            sums[1] += o->slices[i].sums[1];
        }
        o->row->join(&o->update, sums);
    }
    pass(o, step_task);
    report.lr *= o->update.rate;
    return report;
}

int64_t nn_optim_steps(const nn_optim *o)
{
    return o->counts.asked;
}

static nn_plateau plateau_of(const nn_optim *o)
{
    return (nn_plateau){o->scalars.best, o->scalars.scale, o->counts.bad};
}

double nn_optim_lr(const nn_optim *o)
{
    nn_plateau plateau = plateau_of(o);
    return nn_schedule_lr(&o->options.schedule, &plateau, o->counts.asked);
}

void nn_optim_validated(nn_optim *o, double figure)
{
    nn_plateau plateau = plateau_of(o);
    nn_schedule_validated(&o->options.schedule, &plateau, figure);
    o->scalars.best = plateau.best;
    o->scalars.scale = plateau.scale;
    o->counts.bad = plateau.bad;
}

void nn_optim_swap_ema(nn_optim *o, float *params)
{
    o->params = params;
    if (o->ema)
        pass(o, swap_task);
}

const float *nn_optim_ema(const nn_optim *o)
{
    return o->ema;
}

/* ---- state ----------------------------------------------------------------------------------- */

int nn_optim_arrays(const nn_optim *o, nn_optim_array out[NN_OPTIM_ARRAYS])
{
    int n = 0;
    out[n++] = (nn_optim_array){"optim.identity", SAW_I64, 2, o->identity};
    out[n++] = (nn_optim_array){"optim.counts", SAW_I64, sizeof o->counts / 8, &o->counts};
    out[n++] = (nn_optim_array){"optim.scalars", SAW_F64, sizeof o->scalars / 8, &o->scalars};
    out[n++] = (nn_optim_array){"optim.state", SAW_F32, o->n_state, o->state};
    if (o->ema)
        out[n++] = (nn_optim_array){"optim.ema", SAW_F32, o->trainables, o->ema};
    return n;
}

static saw_status refuse(const nn_optim *o)
{
    return saw_fail(o->ctx, SAW_ERR_SHAPE,
                    "the saved state is not of this run's optimizer (%s) and trainables: resume "
                    "with the settings it was saved with",
                    o->row->defaults.name);
}

saw_status nn_optim_load(nn_optim *o, saw_checkpoint *file)
{
    nn_optim_array arrays[NN_OPTIM_ARRAYS];
    const saw_ckpt_tensor *tensors[NN_OPTIM_ARRAYS];
    int n = nn_optim_arrays(o, arrays);
    int64_t identity[2] = {0}, counts[3] = {-1};
    for (int i = 0; i < n; i++) {
        tensors[i] = saw_checkpoint_find(file, arrays[i].name);
        if (!tensors[i] || tensors[i]->dtype != arrays[i].dtype ||
            tensors[i]->count != arrays[i].count)
            return refuse(o);
    }
    saw_status status = saw_checkpoint_read_raw(file, tensors[0], 0, 2, identity);
    if (!status)
        status = saw_checkpoint_read_raw(file, tensors[1], 0, 3, counts);
    if (status)
        return status;
    if (memcmp(identity, o->identity, sizeof identity) || counts[1] < 0 || counts[0] < counts[1] ||
        counts[2] < 0)
        return refuse(o);
    for (int i = 1; i < n && !status; i++)
        status =
            saw_checkpoint_read_raw(file, tensors[i], 0, tensors[i]->count, (void *)arrays[i].data);
    return status;
}
