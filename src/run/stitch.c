/*
 * stitch.c - the padded signal is a line of positions: `border` mirrored samples, the signal,
 * `border` mirrored samples (or the signal alone). Chunk j covers [j step, j step + chunk). Two
 * windows slide over that line:
 *
 *     input     [next - 1, next + have)   samples not yet cut; `next` is where the next chunk
 * begins. The one sample before it is kept for the mirror at the end. output    [base, next +
 * border)     weighted sums; positions before `next` are final.
 *
 * Whether the ends are mirrored is known when 2 border + 1 samples came, or at the end. A chunk is
 * cut only when it is known not to be the last one: with borders that is always so while input
 * comes, without them one more step must be there.
 *
 *     result[p] = sum_j w_j[p - j step] y_j[p - j step]  /  sum_j w_j[p - j step]        in rising
 * order of j
 */
#include "run/stitch.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct layout layout;

typedef struct stitch_kind {
    const char *name;
    int64_t (*step)(const saw_stitch_options *o);
    bool border; /* mirror chunk - step samples at both ends of a signal longer than twice that */
    bool fill;   /* mirror a short chunk of more than chunk / 2 samples; else zeros */
    bool ends; /* a chunk that reaches the end is the last, even if a step from it is not the end */
    bool frames; /* half a frame of zeros goes before the signal */
    void (*window)(float *w, const layout *l, bool first, bool last);
} stitch_kind;

/* What follows from the options. */
struct layout {
    const stitch_kind *kind;
    int64_t chunk, step, border, frame, hop;
    int64_t need;            /* input before a batch is cut, once begun */
    int64_t reach;           /* a chunk is the last when no more than so much is there */
    int64_t decide;          /* signal samples after which the mirror at the start is decided */
    int64_t input, output;   /* room of the two windows */
    size_t floats, pointers; /* of everything together */
    int channels, rows, batch;
};

static int64_t shared_step(const saw_stitch_options *o)
{
    return o->chunk_samples / (o->overlap ? o->overlap : 1);
}

static int64_t whole_step(const saw_stitch_options *o)
{
    return o->chunk_samples;
}

static int64_t fade_step(const saw_stitch_options *o)
{
    return o->chunk_samples - o->chunk_samples / 4;
}

static int64_t frames_step(const saw_stitch_options *o)
{
    return o->chunk_samples - o->frame_samples + o->hop_samples;
}

/* Evenly from a to b in float32, built from both ends as torch.linspace does. */
static void ramp(float *w, int64_t n, float a, float b)
{
    float step = n > 1 ? (b - a) / (float)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++)
        w[i] = i < n / 2 || n == 1 ? a + step * (float)i : b - step * (float)(n - 1 - i);
}

static void flat(float *w, const layout *l, bool first, bool last)
{
    (void)first, (void)last;
    for (int64_t i = 0; i < l->chunk; i++)
        w[i] = 1;
}

/* A chunk that is first and last at once still fades out there. */
static void faded(float *w, const layout *l, bool first, bool last)
{
    int64_t fade = l->chunk / 10;
    flat(w, l, first, last);
    if (first || !last)
        ramp(w + l->chunk - fade, fade, 1, 0);
    if (!first)
        ramp(w, fade, 0, 1);
}

/* Ramps over the overlap that sum to 1 and are nowhere 0. */
static void crossed(float *w, const layout *l, bool first, bool last)
{
    int64_t fade = l->chunk - l->step;
    flat(w, l, first, last);
    for (int64_t i = 0; i < fade; i++) {
        float rising = ((float)i + 0.5f) / (float)fade;
        if (!first)
            w[i] = rising;
        if (!last)
            w[l->chunk - 1 - i] = rising;
    }
}

/* Sum of the squared windows of the first `frames` frames of a chunk, at sample i of it. */
static float square_sum(const layout *l, int64_t frames, int64_t i)
{
    double sum = 0;
    for (int64_t t = i < l->frame ? 0 : (i - l->frame) / l->hop + 1; t < frames && t * l->hop <= i;
         t++) {
        double s = sin(3.14159265358979323846 * (double)(i - t * l->hop) / (double)l->frame);
        sum += s * s * s * s;
    }
    return (float)sum;
}

static void squares(float *w, const layout *l, bool first, bool last)
{
    (void)first, (void)last;
    for (int64_t i = 0; i < l->chunk; i++)
        w[i] = square_sum(l, (l->chunk - l->frame) / l->hop + 1, i);
}

static const stitch_kind kinds[] = {
    {"msst", shared_step, true, true, false, false, faded},
    {"demucs", shared_step, false, false, false, false, flat},
    {"whole", whole_step, false, false, false, false, flat},
    {"fade", fade_step, false, false, true, false, crossed},
    {"spleeter", frames_step, false, false, false, true, squares},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *saw_stitch_kind_name(int i)
{
    return i >= 0 && i < KINDS ? kinds[i].name : NULL;
}

struct saw_stitcher {
    saw_context *ctx;
    saw_chunk_fn *fn;
    void *user;
    layout l;
    float *map;
    float *input, *output, *sum; /* [channels][l.input], [rows][l.output], [l.output] */
    float *short_in, *results;   /* [batch channels][chunk], [batch rows][chunk] */
    float *window;               /* [chunk], for a chunk that is window_first, window_last */
    const float **in;            /* what the model gets */
    float **out;
    bool window_first, window_last;
    bool begun, finished;
    saw_status failed;
    int64_t next, have; /* of the input window */
    int64_t origin;     /* index of position next in input */
    int64_t base, at;   /* first position that was not pulled, and its index in output */
    int64_t first, end; /* positions of the signal: [first, end), end known when finished */
    int64_t pushed;
};

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static bool add_floats(size_t *sum, int64_t a, int64_t b)
{
    size_t n;
    return saw_mul_size((size_t)a, (size_t)b, &n) && saw_add_size(*sum, n, sum);
}

static saw_status plan(saw_context *ctx, const saw_stitch_options *o, layout *l)
{
    enum { CHANNELS = 256, STEMS = 256, BATCH = 4096 };
    const char *name = o->kind ? o->kind : kinds[0].name;
    int overlap = o->overlap ? o->overlap : 1, batch = o->batch ? o->batch : 1;
    *l = (layout){.chunk = o->chunk_samples, .channels = o->channels, .batch = batch};
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            l->kind = &kinds[i];
    if (!l->kind)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "no stitcher is called '%s'", name);
    if (o->channels < 1 || o->channels > CHANNELS || o->stems < 1 || o->stems > STEMS ||
        batch < 1 || batch > BATCH)
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "a stitcher of %d channels, %d stems and batch %d: at most %d, %d and %d are possible",
            o->channels, o->stems, batch, CHANNELS, STEMS, BATCH);
    if (l->chunk < 1 || l->chunk > (int64_t)1 << 40 || overlap < 1 || overlap > l->chunk)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "chunks of %lld samples with overlap %d make no sense", (long long)l->chunk,
                        overlap);
    l->frame = l->kind->frames ? o->frame_samples : 0;
    l->hop = o->hop_samples;
    if (l->kind->frames &&
        (l->hop < 1 || l->frame < l->hop || l->frame > l->chunk || (l->chunk - l->frame) % l->hop))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "chunks of %lld samples are no whole frames of %lld, one every %lld",
                        (long long)l->chunk, (long long)l->frame, (long long)l->hop);
    l->rows = o->stems * o->channels;
    l->step = l->kind->step(o);
    l->border = l->kind->border ? l->chunk - l->step : 0;
    l->reach = l->kind->ends ? l->chunk : l->kind->frames ? l->step + l->frame / 2 - 1 : l->step;
    l->need = (batch - 1) * l->step + most(l->chunk, l->reach + 1);
    l->decide = l->border ? 2 * l->border + 1 : 0;
    /* Both ends mirrored and the sample behind. Ready at most: a batch of steps, or border + 1
     * right after the decision. */
    l->input = most(l->border + l->decide, l->need) + l->border + 1;
    l->output = l->input + most(batch * l->step, l->border + 1);
    l->pointers = (size_t)batch * (size_t)(l->channels + l->rows);
    if (!add_floats(&l->floats, l->input, l->channels) ||
        !add_floats(&l->floats, l->output, l->rows + 1) ||
        !add_floats(&l->floats, l->chunk, (int64_t)l->pointers + 1) || l->floats > SIZE_MAX / 8)
        return saw_fail(ctx, SAW_ERR_MEMORY,
                        "chunks of %lld samples are more than this machine can address",
                        (long long)l->chunk);
    return SAW_OK;
}

int64_t saw_stitcher_step_samples(const saw_stitch_options *options)
{
    layout l;
    return plan(NULL, options, &l) ? 0 : l.step;
}

size_t saw_stitcher_memory_bytes(const saw_stitch_options *options)
{
    layout l;
    if (plan(NULL, options, &l))
        return 0;
    return sizeof(saw_stitcher) + l.pointers * sizeof(float *) + l.floats * sizeof(float);
}

saw_status saw_stitcher_open(saw_context *ctx, const saw_stitch_options *options, saw_chunk_fn *fn,
                             void *user, saw_stitcher **out)
{
    layout l;
    *out = NULL;
    saw_status status = plan(ctx, options, &l);
    if (status)
        return status;
    saw_stitcher *s = saw_calloc(ctx, 1, sizeof *s);
    if (!s)
        return SAW_ERR_MEMORY;
    *s = (saw_stitcher){.ctx = ctx, .fn = fn, .user = user, .l = l};
    s->in = saw_calloc(ctx, l.pointers, sizeof *s->in);
    s->map = saw_map_alloc(ctx, l.floats * sizeof(float));
    if (!s->in || !s->map) {
        saw_stitcher_close(s);
        return SAW_ERR_MEMORY;
    }
    s->input = s->map;
    s->output = s->input + l.input * l.channels;
    s->sum = s->output + l.output * l.rows;
    s->short_in = s->sum + l.output;
    s->results = s->short_in + l.chunk * l.batch * l.channels;
    s->window = s->results + l.chunk * l.batch * l.rows;
    s->out = (float **)s->in + (size_t)l.batch * (size_t)l.channels;
    for (int64_t i = 0; i < (int64_t)l.batch * l.rows; i++)
        s->out[i] = s->results + i * l.chunk;
    s->window_first = s->window_last = true;
    l.kind->window(s->window, &s->l, true, true);
    s->origin = 1 + l.border;         /* room for the mirror in front */
    s->have = s->first = l.frame / 2; /* zeros */
    s->begun = !l.decide;
    *out = s;
    return SAW_OK;
}

void saw_stitcher_close(saw_stitcher *s)
{
    if (!s)
        return;
    saw_map_free(s->ctx, s->map, s->l.floats * sizeof(float));
    saw_free(s->ctx, s->in);
    saw_free(s->ctx, s);
}

int64_t saw_stitcher_present(const saw_stitcher *s, int j)
{
    return least(s->l.chunk, most(0, s->have - j * s->l.step));
}

int64_t saw_stitcher_latency_samples(const saw_stitcher *s)
{
    return most(s->l.decide, s->l.need) - 1;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* One past the last final position. */
static int64_t final_end(const saw_stitcher *s)
{
    return s->finished ? least(s->next, s->end) : s->next;
}

int64_t saw_stitcher_ready(const saw_stitcher *s)
{
    return most(0, final_end(s) - most(s->base, s->first));
}

/* Give up the positions before `to`. */
static void advance(saw_stitcher *s, int64_t to)
{
    if (to > s->base) {
        s->at += to - s->base;
        s->base = to;
    }
}

/* Move what is still wanted to the start of both windows, and clear what the next chunks will add
 * to. */
static void compact_output(saw_stitcher *s, int64_t clear_from, int64_t clear_to)
{
    const layout *l = &s->l;
    assert(clear_to - s->base <= l->output);
    for (int r = 0; r <= l->rows; r++) {
        float *row = r < l->rows ? s->output + r * l->output : s->sum;
        memmove(row, row + s->at, (size_t)(clear_from - s->base) * sizeof *row);
        memset(row + (clear_from - s->base), 0, (size_t)(clear_to - clear_from) * sizeof *row);
    }
    s->at = 0;
}

static void compact_input(saw_stitcher *s, int64_t gone)
{
    const layout *l = &s->l;
    for (int c = 0; c < l->channels; c++) {
        float *row = s->input + c * l->input;
        memmove(row, row + s->origin + gone - 1, (size_t)(s->have - gone + 1) * sizeof *row);
    }
    s->origin = 1;
    s->next += gone;
    s->have -= gone;
}

/* A chunk of which only `n` samples are there. */
static void fill_short(const saw_stitcher *s, const float *from, int64_t n, float *to)
{
    int64_t chunk = s->l.chunk;
    bool mirror = s->l.kind->fill && n > chunk / 2;
    memcpy(to, from, (size_t)n * sizeof *to);
    for (int64_t i = n; i < chunk; i++)
        to[i] = mirror ? to[2 * (n - 1) - i] : 0;
}

static void add_chunk(saw_stitcher *s, int j, int64_t n, bool first, bool last)
{
    const layout *l = &s->l;
    int64_t index = s->at + s->next + j * l->step - s->base;
    if (first != s->window_first || last != s->window_last) {
        l->kind->window(s->window, l, first, last);
        s->window_first = first;
        s->window_last = last;
    }
    for (int r = 0; r < l->rows; r++) {
        float *to = s->output + r * l->output + index;
        const float *y = s->out[j * l->rows + r];
        for (int64_t i = 0; i < n; i++)
            to[i] += y[i] * s->window[i];
    }
    if (l->kind->frames && n < l->chunk) { /* frames centred beyond the end are not there */
        int64_t frames = n < l->frame / 2 ? 0 : (n - l->frame / 2) / l->hop + 1;
        frames = least(frames, (l->chunk - l->frame) / l->hop + 1);
        for (int64_t i = 0; i < n; i++)
            s->sum[index + i] += square_sum(l, frames, i);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        s->sum[index + i] += s->window[i];
}

/* Separate the next `count` chunks and add them to the output. */
static saw_status run_batch(saw_stitcher *s, int count)
{
    const layout *l = &s->l;
    if (saw_cancelled(s->ctx))
        return s->failed = saw_fail(s->ctx, SAW_ERR_CANCELLED, "cancelled");
    for (int j = 0; j < count; j++)
        for (int c = 0; c < l->channels; c++) {
            const float *from = s->input + c * l->input + s->origin + j * l->step;
            int64_t n = s->have - j * l->step, k = (int64_t)j * l->channels + c;
            s->in[k] = from;
            if (n < l->chunk) {
                s->in[k] = s->short_in + k * l->chunk;
                fill_short(s, from, n, s->short_in + k * l->chunk);
            }
        }
    if ((s->failed = s->fn(s->user, count, s->in, s->out)))
        return s->failed;

    /* Before this batch the sums reach `written`: to where the chunk before it ended. */
    int64_t chunk_end = s->next + least((count - 1) * l->step + l->chunk, s->have);
    int64_t written = s->next ? s->next + least(l->chunk - l->step, s->have) : 0;
    advance(s, least(s->first, s->next));
    compact_output(s, written, most(written, chunk_end));
    for (int j = 0; j < count; j++) {
        int64_t left = s->have - j * l->step;
        add_chunk(s, j, least(l->chunk, left), s->next + j == 0, s->finished && left <= l->reach);
    }
    bool all = s->finished && s->have - (count - 1) * l->step <= l->reach;
    compact_input(s, all ? s->have : count * l->step);
    return SAW_OK;
}

/* The start is decided: mirror it if the signal is long enough for a border. */
static void begin(saw_stitcher *s)
{
    const layout *l = &s->l;
    s->begun = true;
    if (s->have < l->decide)
        return;
    for (int c = 0; c < l->channels; c++) {
        float *x = s->input + c * l->input + s->origin;
        for (int64_t i = 1; i <= l->border; i++)
            x[-i] = x[i];
    }
    s->origin -= l->border;
    s->have += l->border;
    s->first = l->border;
}

/* ---- the stream ------------------------------------------------------------------------------ */

int64_t saw_stitcher_room(const saw_stitcher *s)
{
    int64_t missing = (s->begun ? s->l.need : s->l.decide) - s->have;
    if (s->finished || s->failed)
        return 0;
    return saw_stitcher_ready(s) ? missing - 1 : missing;
}

saw_status saw_stitcher_push(saw_stitcher *s, const float *const *planar, int64_t n)
{
    const layout *l = &s->l;
    if (s->failed)
        return s->failed;
    if (n < 0 || n > saw_stitcher_room(s))
        return saw_fail(s->ctx, SAW_ERR_ARGUMENT,
                        "%lld samples were pushed where %lld are possible", (long long)n,
                        (long long)saw_stitcher_room(s));
    for (int c = 0; c < l->channels && n; c++)
        memcpy(s->input + c * l->input + s->origin + s->have, planar[c],
               (size_t)n * sizeof **planar);
    s->have += n;
    s->pushed += n;
    assert(s->origin + s->have <= l->input);
    if (!s->begun && s->have >= l->decide)
        begin(s);
    while (s->begun && s->have >= l->need)
        if (run_batch(s, l->batch))
            return s->failed;
    return SAW_OK;
}

saw_status saw_stitcher_finish(saw_stitcher *s)
{
    const layout *l = &s->l;
    if (s->failed || s->finished)
        return s->failed;
    if (!s->begun)
        begin(s);
    s->finished = true;
    s->end = s->first + s->pushed;
    int64_t mirrored = l->border ? s->first : 0;
    for (int c = 0; c < l->channels; c++) {
        float *x = s->input + c * l->input + s->origin + s->have;
        for (int64_t i = 0; i < mirrored; i++)
            x[i] = x[-2 - i];
    }
    s->have += mirrored;
    assert(s->origin + s->have <= l->input);
    while (s->have && s->pushed) {
        int64_t chunks = 1 + (most(s->have - l->reach, 0) + l->step - 1) / l->step;
        if (run_batch(s, (int)least(chunks, l->batch)))
            return s->failed;
    }
    return SAW_OK;
}

saw_status saw_stitcher_pull(saw_stitcher *s, float *const *planar, int64_t n)
{
    const layout *l = &s->l;
    if (n < 0 || n > saw_stitcher_ready(s))
        return saw_fail(s->ctx, SAW_ERR_ARGUMENT, "%lld samples were pulled where %lld are ready",
                        (long long)n, (long long)saw_stitcher_ready(s));
    if (!n)
        return SAW_OK;
    advance(s, s->first);
    const float *sum = s->sum + s->at;
    for (int r = 0; r < l->rows; r++) {
        const float *from = s->output + r * l->output + s->at;
        for (int64_t i = 0; i < n; i++)
            planar[r][i] = sum[i] != 0 ? from[i] / sum[i] : 0;
    }
    advance(s, s->base + n);
    return SAW_OK;
}
