#include "datasets/sampler.h"
#include "datasets/dice.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { AHEAD = 2, TRIES = 12, ERROR_ROOM = 1024, MAX_SOURCES = SAW_DATASET_MAX_STEMS + 1 };
static const double default_gate_db = -60;
static const size_t default_cache_bytes = (size_t)256 << 20;

/* What a throw of the dice is for. */
enum { FOR_KIND, FOR_PLACE, FOR_LAYER, FOR_MIXUP };
enum { WHOLE_ITEM = 255 }; /* as a source */

typedef enum slot_state { EMPTY, MAKING, READY } slot_state;

typedef struct slot {
    slot_state state;
    int64_t step;
    saw_status status; /* of a READY slot */
    char error[ERROR_ROOM];
    float *mix, *stems;
} slot;

/* Songs of the part that have a source, and the seconds of them and those before. */
typedef struct urn {
    int *songs;
    double *until;
    int count;
} urn;

struct saw_sampler {
    saw_context *ctx;
    const saw_dataset *d;
    saw_sampler_options o;
    saw_augment_chain chain; /* its entries are owned */
    int sources, stems, channels;
    size_t chunk_floats;       /* channels * chunk_samples */
    urn urns[MAX_SOURCES + 1]; /* by source; behind the last one: songs that have any */

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t change;
    slot slots[AHEAD];
    int64_t next; /* step to be made next; -1: none was asked for */
    bool quit;

    /* the thread's own */
    saw_context *own;
    saw_dataset_reader *reader;
    float *item, *second; /* [sources][channels][chunk] */
    float *judged, *kept; /* [channels][up to longest]: before it is stretched */
    int64_t longest;
};

/* ---- one item -------------------------------------------------------------------------------- */

typedef struct place {
    int song;
    int64_t start;
} place;

/* How much is read, to become a chunk of how much higher. */
typedef struct shape {
    int64_t samples;
    double semitones;
} shape;

static shape throw_shape(const saw_sampler *s, saw_dice at, const char *stem)
{
    double factor = 1, semitones = 0;
    saw_augment_happens(&s->chain, SAW_AUGMENT_TIME, stem, &at, &factor);
    saw_augment_happens(&s->chain, SAW_AUGMENT_PITCH, stem, &at, &semitones);
    int64_t samples = llround((double)s->o.chunk_samples / factor);
    return (shape){samples > 0 ? samples : 1, semitones};
}

static place throw_place(const saw_sampler *s, const urn *u, int64_t samples, saw_dice *dice)
{
    double at = saw_throw(dice) * u->until[u->count - 1];
    int i = 0;
    while (i < u->count - 1 && at >= u->until[i])
        i++;
    int64_t spare = saw_dataset_song(s->d, u->songs[i])->samples - samples;
    int64_t low = spare < 0 ? spare : 0, high = spare > 0 ? spare : 0;
    return (place){u->songs[i], low + saw_throw_of(dice, high - low + 1)};
}

/* To s->judged. */
static saw_status read_source(saw_sampler *s, place at, int source, int64_t samples)
{
    float *planar[SAW_DATASET_MAX_CHANNELS];
    for (int c = 0; c < s->channels; c++)
        planar[c] = s->judged + c * samples;
    return saw_dataset_read(s->reader, at.song, source, at.start, samples, planar);
}

static saw_status stretch(saw_sampler *s, const float *from, shape as, float *to)
{
    if (as.samples == s->o.chunk_samples && as.semitones == 0) {
        memcpy(to, from, s->chunk_floats * sizeof *to);
        return SAW_OK;
    }
    return saw_augment_stretch(s->own, &s->chain, from, as.samples, as.semitones, to,
                               s->o.chunk_samples);
}

static double rms_db(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum > 0 ? 10 * log10(sum / (double)n) : -INFINITY;
}

/* A chunk of one source, from any song that has it. */
static saw_status draw_source(saw_sampler *s, saw_dice dice, int source, shape as, float *to)
{
    const urn *u = &s->urns[source];
    double loudest = -INFINITY;
    for (int i = 0; u->count && i < TRIES && !(loudest >= s->o.gate_db && i); i++) {
        place at = throw_place(s, u, as.samples, &dice);
        saw_status status = read_source(s, at, source, as.samples);
        if (status)
            return status;
        double db = rms_db(s->judged, s->channels * as.samples);
        if (db > loudest) {
            float *swap = s->kept;
            s->kept = s->judged;
            s->judged = swap;
            loudest = db;
        }
    }
    if (loudest > -INFINITY)
        return stretch(s, s->kept, as, to);
    memset(to, 0, s->chunk_floats * sizeof *to);
    return SAW_OK;
}

/* Chunks of all sources from one song and time. */
static saw_status draw_song(saw_sampler *s, saw_dice dice, shape as, float *to)
{
    int judged = s->o.balance ? (int)saw_throw_of(&dice, s->stems) : SAW_DATASET_MIXTURE;
    if (judged >= 0 && !s->urns[judged].count)
        judged = SAW_DATASET_MIXTURE;
    const urn *u = &s->urns[judged < 0 ? s->sources : judged];
    place loudest = {0};
    double loudest_db = 0;
    saw_status status = SAW_OK;
    for (int i = 0; i < TRIES && !(i && loudest_db >= s->o.gate_db); i++) {
        place at = throw_place(s, u, as.samples, &dice);
        status = read_source(s, at, judged, as.samples);
        if (status)
            return status;
        double db = rms_db(s->judged, s->channels * as.samples);
        if (!i || db > loudest_db) {
            loudest_db = db;
            loudest = at;
        }
    }
    for (int k = 0; !status && k < s->sources; k++) {
        status = read_source(s, loudest, k, as.samples);
        if (!status)
            status = stretch(s, s->judged, as, to + (size_t)k * s->chunk_floats);
    }
    return status;
}

static void add_scaled(float *to, const float *from, double db, size_t n)
{
    float g = (float)pow(10, db / 20);
    for (size_t i = 0; i < n; i++)
        to[i] += g * from[i];
}

static const char *name_of(const saw_sampler *s, int source)
{
    return saw_dataset_stem(s->d, source); /* NULL: the rest */
}

/* What an item is made of, before anything is done to it. */
static saw_status draw_item(saw_sampler *s, saw_dice at, float *x)
{
    size_t n = s->chunk_floats;
    saw_status status = SAW_OK;
    double amount;
    at.source = WHOLE_ITEM;
    at.purpose = FOR_KIND;
    shape whole = throw_shape(s, at, NULL);
    bool aligned = saw_throw(&at) < s->o.aligned;
    at.drawn = 0;
    at.purpose = FOR_PLACE;
    if (aligned)
        status = draw_song(s, at, whole, x);
    for (int k = 0; !status && !aligned && k < s->sources; k++) {
        at.source = (uint8_t)k;
        status = draw_source(s, at, k, throw_shape(s, at, name_of(s, k)), x + (size_t)k * n);
    }
    saw_dice dice = at;
    dice.source = WHOLE_ITEM;
    if (!status && saw_augment_happens(&s->chain, SAW_AUGMENT_MIXUP, NULL, &dice, &amount)) {
        dice.drawn = 0;
        dice.purpose = FOR_MIXUP;
        status = draw_song(s, dice, whole, s->second);
        add_scaled(x, s->second, amount, status ? 0 : (size_t)s->sources * n);
    }
    for (int k = 0; !status && k < s->sources; k++) {
        dice.source = (uint8_t)k;
        if (!saw_augment_happens(&s->chain, SAW_AUGMENT_LAYER, name_of(s, k), &dice, &amount))
            continue;
        dice.drawn = 0;
        dice.purpose = FOR_LAYER;
        status = draw_source(s, dice, k, whole, s->second);
        add_scaled(x + (size_t)k * n, s->second, amount, status ? 0 : n);
    }
    return status;
}

static void bleed(saw_sampler *s, saw_dice at, float *x)
{
    size_t n = s->chunk_floats;
    double amount;
    memcpy(s->second, x, (size_t)s->sources * n * sizeof *x);
    for (int k = 0; s->sources > 1 && k < s->sources; k++) {
        at.source = (uint8_t)k;
        if (!saw_augment_happens(&s->chain, SAW_AUGMENT_BLEED, name_of(s, k), &at, &amount))
            continue;
        int from = (int)saw_throw_of(&at, s->sources - 1);
        from += from >= k;
        add_scaled(x + (size_t)k * n, s->second + (size_t)from * n, amount, n);
    }
}

static saw_status make_item(saw_sampler *s, int64_t step, int item, float *mix, float *stems)
{
    size_t n = s->chunk_floats;
    float *x = s->item;
    saw_dice at = {.seed = s->o.seed, .step = (uint64_t)step, .item = (uint32_t)item};
    saw_status status = draw_item(s, at, x);
    for (int k = 0; !status && k < s->sources; k++) {
        at.source = (uint8_t)k;
        status = saw_augment_source(s->own, &s->chain, name_of(s, k), at, x + (size_t)k * n,
                                    s->o.chunk_samples);
    }
    if (status)
        return status;
    bleed(s, at, x);
    memcpy(stems, x, (size_t)s->stems * n * sizeof *stems);
    memcpy(mix, x, n * sizeof *mix);
    for (int k = 1; k < s->sources; k++)
        for (size_t i = 0; i < n; i++)
            mix[i] += x[(size_t)k * n + i];
    return SAW_OK;
}

static saw_status make_batch(saw_sampler *s, int64_t step, float *mix, float *stems)
{
    saw_status status = SAW_OK;
    for (int i = 0; !status && i < s->o.batch; i++)
        status = make_item(s, step, i, mix + (size_t)i * s->chunk_floats,
                           stems + (size_t)(i * s->stems) * s->chunk_floats);
    return status;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static slot *find_slot(saw_sampler *s, slot_state state)
{
    for (int i = 0; i < AHEAD; i++)
        if (s->slots[i].state == state)
            return &s->slots[i];
    return NULL;
}

static void *run(void *user)
{
    saw_sampler *s = user;
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        slot *to = s->next < 0 ? NULL : find_slot(s, EMPTY);
        if (!to) {
            pthread_cond_wait(&s->change, &s->lock);
            continue;
        }
        int64_t step = to->step = s->next++;
        to->state = MAKING;
        pthread_mutex_unlock(&s->lock);
        saw_status status = make_batch(s, step, to->mix, to->stems);
        pthread_mutex_lock(&s->lock);
        to->state = to->step == step ? READY : EMPTY; /* EMPTY: nobody wants it any more */
        to->status = status;
        if (status)
            snprintf(to->error, sizeof to->error, "%s", saw_context_error(s->own));
        pthread_cond_broadcast(&s->change);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* The slot of a step, which is asked for when nobody has yet. Called with the lock. */
static slot *slot_of(saw_sampler *s, int64_t step)
{
    for (int i = 0; i < AHEAD; i++)
        if (s->slots[i].state != EMPTY && s->slots[i].step == step)
            return &s->slots[i];
    for (int i = 0; i < AHEAD; i++) { /* what is there was made for other steps */
        s->slots[i].step = -1;
        if (s->slots[i].state == READY)
            s->slots[i].state = EMPTY;
    }
    s->next = step;
    pthread_cond_broadcast(&s->change);
    return NULL;
}

/* Wait for a change, but not so long that a cancel goes unnoticed. */
static void wait_a_while(saw_sampler *s)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->change, &s->lock, &until);
}

saw_status saw_sampler_batch(saw_sampler *s, int64_t step, float *mix, float *stems)
{
    if (step < 0)
        return saw_fail(s->ctx, SAW_ERR_ARGUMENT, "there is no step %lld", (long long)step);
    slot *from;
    pthread_mutex_lock(&s->lock);
    while (!(from = slot_of(s, step)) || from->state != READY) {
        if (saw_cancelled(s->ctx)) {
            pthread_mutex_unlock(&s->lock);
            return saw_fail(s->ctx, SAW_ERR_CANCELLED, "cancelled while reading the data set");
        }
        wait_a_while(s);
    }
    pthread_mutex_unlock(&s->lock);
    size_t n = (size_t)s->o.batch * s->chunk_floats * sizeof(float);
    saw_status status = from->status;
    if (status) {
        saw_fail(s->ctx, status, "%s", from->error);
    } else {
        memcpy(mix, from->mix, n);
        memcpy(stems, from->stems, (size_t)s->stems * n);
    }
    pthread_mutex_lock(&s->lock);
    from->state = EMPTY;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ---- open and close -------------------------------------------------------------------------- */

static saw_status fill_urn(saw_sampler *s, int source)
{
    urn *u = &s->urns[source];
    int songs = saw_dataset_songs(s->d);
    u->songs = saw_calloc(s->ctx, (size_t)songs, sizeof *u->songs);
    u->until = saw_calloc(s->ctx, (size_t)songs, sizeof *u->until);
    if (!u->songs || !u->until)
        return SAW_ERR_MEMORY;
    double seconds = 0;
    for (int i = 0; i < songs; i++) {
        const saw_song *g = saw_dataset_song(s->d, i);
        bool has = source == s->sources ? g->has : g->has >> source & 1;
        if (g->part != s->o.part || !has || !g->samples)
            continue;
        seconds += (double)g->samples / saw_dataset_rate_hz(s->d);
        u->songs[u->count] = i;
        u->until[u->count++] = seconds;
    }
    return SAW_OK;
}

static saw_status check_options(saw_context *ctx, const saw_sampler_options *o)
{
    if (o->chunk_samples < 1 || o->chunk_samples > (int64_t)1 << 32 || o->batch < 1 ||
        o->batch > 1 << 20)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "batches of %d chunks of %lld samples make no sense",
                        o->batch, (long long)o->chunk_samples);
    if (!(o->aligned >= 0 && o->aligned <= 1) || !(o->gate_db <= 0))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "a share of %g aligned items makes no sense (0 to 1 does), or a gate of %g "
                        "dB (0 or less)",
                        o->aligned, o->gate_db);
    return SAW_OK;
}

/* Samples that are read for a chunk at most. */
static int64_t longest_of(const saw_sampler *s)
{
    double factor = 1;
    for (int i = 0; i < s->chain.count; i++)
        if (s->chain.entries[i].kind == SAW_AUGMENT_TIME && s->chain.entries[i].low < factor)
            factor = s->chain.entries[i].low;
    return (int64_t)ceil((double)s->o.chunk_samples / factor) + 1;
}

static saw_status allocate(saw_sampler *s)
{
    size_t item, batch;
    if (!saw_mul_size(s->chunk_floats, (size_t)s->sources, &item) ||
        !saw_mul_size(s->chunk_floats * (size_t)s->stems, (size_t)s->o.batch, &batch))
        return saw_fail(s->ctx, SAW_ERR_MEMORY, "the batches are larger than memory can be");
    s->longest = longest_of(s);
    size_t raw = (size_t)s->channels * (size_t)s->longest;
    s->item = saw_calloc(s->ctx, item, sizeof(float));
    s->second = saw_calloc(s->ctx, item, sizeof(float));
    s->judged = saw_calloc(s->ctx, raw, sizeof(float));
    s->kept = saw_calloc(s->ctx, raw, sizeof(float));
    if (!s->item || !s->second || !s->judged || !s->kept)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < AHEAD; i++) {
        s->slots[i].mix = saw_calloc(s->ctx, (size_t)s->o.batch * s->chunk_floats, sizeof(float));
        s->slots[i].stems = saw_calloc(s->ctx, batch, sizeof(float));
        if (!s->slots[i].mix || !s->slots[i].stems)
            return SAW_ERR_MEMORY;
    }
    return SAW_OK;
}

static saw_status copy_chain(saw_sampler *s)
{
    size_t count = (size_t)s->o.n_augment;
    saw_augment *copy = saw_calloc(s->ctx, count, sizeof *copy);
    if (!copy)
        return SAW_ERR_MEMORY;
    if (count)
        memcpy(copy, s->o.augment, count * sizeof *copy);
    s->chain = (saw_augment_chain){copy, (int)count, saw_dataset_rate_hz(s->d), s->channels};
    return SAW_OK;
}

static saw_status start(saw_sampler *s)
{
    saw_status status = check_options(s->ctx, &s->o);
    if (!status)
        status = copy_chain(s);
    for (int k = 0; !status && k <= s->sources; k++)
        status = fill_urn(s, k);
    if (!status && !s->urns[s->sources].count)
        status = saw_fail(s->ctx, SAW_ERR_ARGUMENT, "%s: has no song to draw chunks from",
                          saw_dataset_path(s->d));
    if (!status)
        status = allocate(s);
    if (!status && saw_context_open(&s->own, &(saw_options){.threads = 1}))
        status = saw_fail(s->ctx, SAW_ERR_MEMORY, "out of memory");
    if (!status && saw_dataset_reader_open(s->own, s->d, s->o.cache_bytes, &s->reader))
        status = saw_fail(s->ctx, SAW_ERR_MEMORY, "%s", saw_context_error(s->own));
    if (!status && pthread_create(&s->thread, NULL, run, s))
        status =
            saw_fail(s->ctx, SAW_ERR_MEMORY, "no thread could be started to read the data set");
    s->started = !status;
    return status;
}

saw_status saw_sampler_open(saw_context *ctx, const saw_dataset *d,
                            const saw_sampler_options *options, saw_sampler **out)
{
    *out = NULL;
    saw_sampler *s = saw_calloc(ctx, 1, sizeof *s);
    if (!s)
        return SAW_ERR_MEMORY;
    s->ctx = ctx;
    s->d = d;
    s->o = *options;
    s->o.gate_db = options->gate_db == 0 ? default_gate_db : options->gate_db;
    s->o.cache_bytes = options->cache_bytes ? options->cache_bytes : default_cache_bytes;
    s->sources = saw_dataset_sources(d);
    s->stems = saw_dataset_stems(d);
    s->channels = saw_dataset_channels(d);
    s->chunk_floats = (size_t)s->channels * (size_t)options->chunk_samples;
    s->next = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->change, NULL);
    saw_status status = start(s);
    if (status)
        saw_sampler_close(s);
    else
        *out = s;
    return status;
}

void saw_sampler_close(saw_sampler *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->quit = true;
        pthread_cond_broadcast(&s->change);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    saw_dataset_reader_close(s->reader);
    saw_context_close(s->own);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->change);
    for (int i = 0; i <= s->sources; i++) {
        saw_free(s->ctx, s->urns[i].songs);
        saw_free(s->ctx, s->urns[i].until);
    }
    for (int i = 0; i < AHEAD; i++) {
        saw_free(s->ctx, s->slots[i].mix);
        saw_free(s->ctx, s->slots[i].stems);
    }
    saw_free(s->ctx, (void *)s->chain.entries);
    saw_free(s->ctx, s->item);
    saw_free(s->ctx, s->second);
    saw_free(s->ctx, s->judged);
    saw_free(s->ctx, s->kept);
    saw_free(s->ctx, s);
}

size_t saw_sampler_bytes(const saw_sampler *s)
{
    size_t chunk = s->chunk_floats * sizeof(float), sources = (size_t)s->sources;
    size_t raw = (size_t)s->channels * (size_t)s->longest * sizeof(float);
    size_t batches = AHEAD * (size_t)s->o.batch * chunk * ((size_t)s->stems + 1);
    return s->o.cache_bytes + 2 * raw + 2 * sources * chunk + batches;
}
