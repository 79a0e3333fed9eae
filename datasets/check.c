#include "datasets/check.h"
#include "datasets/dataset_private.h"
#include "io/audio.h"

#include <math.h>
#include <string.h>

enum {
    LOW_HZ = 5500,             /* rate of the low band that bleed and duplicates are judged by */
    MOMENTS = 4,               /* in a second */
    MOMENT = LOW_HZ / MOMENTS, /* samples of the low band */
    MAX_LAG = 64,
    LAGS = 2 * MAX_LAG + 1,
    SIGNS = 64,
    CLIP_RUN = 3,
    CLIP_PLACES = 10,
    LEAST_MOMENTS = 8, /* for a judgement */
    MAX_TALLY = 64,
    SHOWN = 2 /* channels that are added up; others count for their own file only */
};
static const double silent_db = -70, not_sum_db = -30, dc_limit = 0.005, length_s = 0.05;
static const double quiet_db = -75, below_db = -10, bleed_correlation = 0.9, bleed_share = 0.05;
static const double duplicate_errors = 0.1;
static const float full_scale = 0.999f;

static const char *const names[SAW_FAULT_KINDS] = {
    "damaged",  "not_sum", "silent", "one_sided", "clipped", "dc",   "rate",
    "channels", "length",  "bleed",  "duplicate", "missing", "alone"};

const char *saw_fault_name(saw_fault_kind kind)
{
    return names[kind];
}

/* The signs of a file, a word for each moment; valid: not silent then. */
typedef struct signs {
    uint64_t *words;
    bool *valid;
    int count, room;
} signs;

/* A file while it is read. */
typedef struct track {
    saw_audio_reader *audio; /* NULL: at its end */
    int stem;
    float *planar; /* [channels][rate]: one second */
    int64_t got, frames;
    double energy[SAW_AUDIO_MAX_CHANNELS], sum[SAW_AUDIO_MAX_CHANNELS];
    int run[SAW_AUDIO_MAX_CHANNELS]; /* of full scale */
    int64_t clips;
    double first_clip_s;
    float low[LOW_HZ];
} track;

/* A stem: the sum of its tracks. */
typedef struct stem {
    const char *name;
    float low[LOW_HZ];
    double moment_energy[MOMENTS];
} stem;

/* Stem b in stem a: the moments in which a is nothing but b, by delay. */
typedef struct leak {
    int active; /* moments in which b sounds */
    int alike[LAGS];
    double db[LAGS], db_squared[LAGS]; /* sums of gains and of their squares */
} leak;

/* A stem that more than half of the songs have. */
typedef struct usual_stem {
    const char *name;
    int songs;
} usual_stem;

struct saw_check {
    saw_context *ctx;
    saw_check_options o;
    saw_dataset *d;
    char **open_errors; /* [files]; NULL: it could be opened */
    signs *signs;       /* [files] */
    double seconds, seconds_done;
    int common_hz, common_channels;
    usual_stem usual[MAX_TALLY];
    int usual_count;
    saw_fault *faults;
    int fault_count, fault_room;
};

/* A song while it is read. */
typedef struct work {
    saw_check *c;
    const saw_data_song *song;
    track *tracks;
    stem *stems;             /* of them the mixture, where there is one */
    leak *leaks;             /* [stems][stems]: of the second in the first */
    int stem_count, mixture; /* -1: none */
    bool whole;              /* nothing is damaged */
    bool summable;
    float *mix, *sum; /* [SHOWN][rate] */
    double mix_energy, sum_energy, left_energy, product;
} work;

/* ---- faults ---------------------------------------------------------------------------------- */

static saw_status add_fault(saw_check *c, saw_fault_kind kind, const char *song,
                            const char *stem_name, double value, const char *text, ...)
    SAW_PRINTF(6, 7);

static saw_status add_fault(saw_check *c, saw_fault_kind kind, const char *song,
                            const char *stem_name, double value, const char *text, ...)
{
    char sentence[1024];
    va_list ap;
    va_start(ap, text);
    vsnprintf(sentence, sizeof sentence, text, ap);
    va_end(ap);
    if (c->fault_count == c->fault_room) {
        int room = c->fault_room ? 2 * c->fault_room : 32;
        saw_fault *grown = saw_realloc(c->ctx, c->faults, (size_t)room * sizeof *grown);
        if (!grown)
            return SAW_ERR_MEMORY;
        c->faults = grown;
        c->fault_room = room;
    }
    char *owned = saw_strdup(c->ctx, sentence);
    if (!owned)
        return SAW_ERR_MEMORY;
    bool note = kind == SAW_FAULT_MISSING || kind == SAW_FAULT_ALONE;
    c->faults[c->fault_count++] = (saw_fault){kind, note, song, stem_name, value, owned};
    return SAW_OK;
}

static double to_db(double ratio)
{
    return ratio > 0 ? 10 * log10(ratio) : -INFINITY;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- one second of a track ------------------------------------------------------------------- */

static void measure_channel(track *t, int channel, const float *x, int rate_hz)
{
    double energy = 0, sum = 0;
    int run = t->run[channel];
    for (int64_t i = 0; i < t->got; i++) {
        energy += (double)x[i] * x[i];
        sum += x[i];
        run = fabsf(x[i]) >= full_scale ? run + 1 : 0;
        if (run == CLIP_RUN && !t->clips++)
            t->first_clip_s = (double)(t->frames + i) / rate_hz;
    }
    t->run[channel] = run;
    t->energy[channel] += energy;
    t->sum[channel] += sum;
}

/* Means of the channels and of the samples between two points of a grid that is the same for every
 * rate; smoothed (by binomial weights), so that a delay between two points still correlates. */
static void fill_low(track *t, int channels, int rate_hz)
{
    float last = 0;
    for (int k = 0; k < LOW_HZ; k++) {
        int64_t from = (int64_t)k * rate_hz / LOW_HZ, end = (int64_t)(k + 1) * rate_hz / LOW_HZ;
        end = end < t->got ? end : t->got;
        double sum = 0;
        for (int c = 0; c < channels; c++)
            for (int64_t i = from; i < end; i++)
                sum += t->planar[(int64_t)c * rate_hz + i];
        if (from < end)
            last = (float)(sum / (double)((end - from) * channels));
        t->low[k] = from < t->got ? last : 0;
    }
    for (int pass = 0; pass < 4; pass++)
        for (int k = 0; k + 1 < LOW_HZ; k++)
            t->low[k] = 0.5f * (t->low[k] + t->low[k + 1]);
}

static double energy_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static bool sounds(double moment_energy)
{
    return to_db(moment_energy / MOMENT) > quiet_db;
}

static saw_status add_signs(saw_check *c, signs *s, const float *low)
{
    if (s->count + MOMENTS > s->room) {
        int room = s->room ? 2 * s->room : 256;
        uint64_t *words = saw_realloc(c->ctx, s->words, (size_t)room * sizeof *words);
        s->words = words ? words : s->words;
        bool *valid = saw_realloc(c->ctx, s->valid, (size_t)room * sizeof *valid);
        s->valid = valid ? valid : s->valid;
        if (!words || !valid)
            return SAW_ERR_MEMORY;
        s->room = room;
    }
    for (int m = 0; m < MOMENTS; m++, low += MOMENT) {
        uint64_t word = 0;
        for (int k = 0; k < SIGNS; k++)
            word |= (uint64_t)(low[k * (MOMENT / SIGNS)] > 0) << k;
        s->valid[s->count] = sounds(energy_of(low, MOMENT));
        s->words[s->count++] = word;
    }
    return SAW_OK;
}

/* Read the next second of a track; behind its end it is silence. */
static saw_status read_track(work *w, int file, track *t)
{
    saw_check *c = w->c;
    const saw_data_file *f = &c->d->files[file];
    float *planar[SAW_AUDIO_MAX_CHANNELS];
    for (int k = 0; k < f->channels; k++)
        planar[k] = t->planar + (size_t)k * (size_t)f->rate_hz;
    t->got = 0;
    memset(t->planar, 0, (size_t)f->channels * (size_t)f->rate_hz * sizeof *t->planar);
    saw_status status = t->audio ? saw_audio_read(t->audio, planar, f->rate_hz, &t->got) : SAW_OK;
    if (status == SAW_ERR_MEMORY)
        return status;
    if (status) { /* what was read before the damage does not count */
        w->whole = false;
        status = add_fault(c, SAW_FAULT_DAMAGED, w->song->song.name, f->stem, 0, "%s",
                           saw_context_error(c->ctx));
        t->got = 0;
    }
    for (int k = 0; k < f->channels; k++)
        measure_channel(t, k, planar[k], f->rate_hz);
    fill_low(t, f->channels, f->rate_hz);
    t->frames += t->got;
    if (t->got < f->rate_hz) {
        saw_audio_close(t->audio);
        t->audio = NULL;
    }
    if (!status && t->got)
        status = add_signs(c, &c->signs[file], t->low);
    return status;
}

/* ---- one second of a song -------------------------------------------------------------------- */

/* The sum of the stems beside the mixture. */
static void compare_sum(work *w)
{
    const saw_data_file *files = w->c->d->files + w->song->first_file;
    size_t rate = (size_t)files[0].rate_hz;
    memset(w->mix, 0, SHOWN * rate * sizeof *w->mix);
    memset(w->sum, 0, SHOWN * rate * sizeof *w->sum);
    for (int i = 0; i < w->song->files; i++) {
        const track *t = &w->tracks[i];
        float *to = t->stem == w->mixture ? w->mix : w->sum;
        for (size_t c = 0; c < SHOWN; c++) {
            const float *from = t->planar + (files[i].channels > 1 ? c * rate : 0);
            for (size_t k = 0; k < rate; k++)
                to[c * rate + k] += from[k];
        }
    }
    for (size_t k = 0; k < SHOWN * rate; k++) {
        double m = w->mix[k], s = w->sum[k];
        w->mix_energy += m * m;
        w->sum_energy += s * s;
        w->left_energy += (m - s) * (m - s);
        w->product += m * s;
    }
}

/* Is a, which is far below b, a constant times b in this moment? */
static void compare_moment(leak *l, const float *a, const float *b)
{
    enum { FIRST = MAX_LAG, COUNT = MOMENT - 2 * MAX_LAG };
    double a_energy = energy_of(a + FIRST, COUNT), b_energy = energy_of(b, COUNT);
    double best = 0, best_gain = 0;
    int best_lag = 0;
    for (int lag = 0; lag < LAGS; lag++) {
        const float *shifted = b + lag;
        float product = 0;
        for (int i = 0; i < COUNT; i++)
            product += a[FIRST + i] * shifted[i];
        double correlation = fabs((double)product) / sqrt(a_energy * b_energy + 1e-30);
        if (correlation > best) {
            best = correlation;
            best_gain = fabs((double)product) / (b_energy + 1e-30);
            best_lag = lag;
        }
        if (lag + 1 < LAGS)
            b_energy += (double)b[lag + COUNT] * b[lag + COUNT] - (double)b[lag] * b[lag];
        b_energy = b_energy > 0 ? b_energy : 0;
    }
    if (best < bleed_correlation)
        return;
    double gain_db = 2 * to_db(best_gain);
    l->alike[best_lag]++;
    l->db[best_lag] += gain_db;
    l->db_squared[best_lag] += gain_db * gain_db;
}

static void compare_stems(work *w)
{
    for (int m = 0; m < MOMENTS; m++)
        for (int a = 0; a < w->stem_count; a++)
            for (int b = 0; b < w->stem_count; b++) {
                leak *l = &w->leaks[a * w->stem_count + b];
                const float *x = w->stems[a].low + m * MOMENT, *y = w->stems[b].low + m * MOMENT;
                double x_energy = w->stems[a].moment_energy[m];
                double y_energy = w->stems[b].moment_energy[m];
                if (a == b || a == w->mixture || b == w->mixture || !sounds(y_energy))
                    continue;
                l->active++;
                if (sounds(x_energy) && to_db(x_energy / y_energy) <= below_db)
                    compare_moment(l, x, y);
            }
}

static saw_status read_second(work *w, bool *more)
{
    saw_status status = SAW_OK;
    for (int s = 0; s < w->stem_count; s++)
        memset(w->stems[s].low, 0, sizeof w->stems[s].low);
    *more = false;
    for (int i = 0; !status && i < w->song->files; i++) {
        track *t = &w->tracks[i];
        if (!t->planar)
            continue;
        status = read_track(w, w->song->first_file + i, t);
        *more |= t->audio != NULL;
        for (int k = 0; k < LOW_HZ; k++)
            w->stems[t->stem].low[k] += t->low[k];
    }
    for (int s = 0; s < w->stem_count; s++)
        for (int m = 0; m < MOMENTS; m++)
            w->stems[s].moment_energy[m] = energy_of(w->stems[s].low + m * MOMENT, MOMENT);
    if (!status) {
        if (w->summable)
            compare_sum(w);
        compare_stems(w);
    }
    return status;
}

/* ---- judgement of a song --------------------------------------------------------------------- */

static saw_status judge_track(work *w, int i)
{
    saw_check *c = w->c;
    const track *t = &w->tracks[i];
    const saw_data_file *f = &c->d->files[w->song->first_file + i];
    const char *song = w->song->song.name, *name = base_name(f->path);
    saw_status status = SAW_OK;
    int wanted_hz = c->o.rate_hz ? c->o.rate_hz : c->common_hz;
    double worst_mean = 0, quietest = INFINITY, loudest = 0;
    for (int k = 0; k < f->channels; k++) {
        double mean = t->frames ? t->sum[k] / (double)t->frames : 0;
        worst_mean = fabs(mean) > fabs(worst_mean) ? mean : worst_mean;
        quietest = t->energy[k] < quietest ? t->energy[k] : quietest;
        loudest = t->energy[k] > loudest ? t->energy[k] : loudest;
    }
    double samples = (double)(t->frames ? t->frames : 1);
    double quietest_db = to_db(quietest / samples), loudest_db = to_db(loudest / samples);
    if (f->rate_hz != wanted_hz)
        status =
            add_fault(c, SAW_FAULT_RATE, song, f->stem, f->rate_hz, "%s has %d Hz, %s %d Hz", name,
                      f->rate_hz, c->o.rate_hz ? "wanted are" : "most files have", wanted_hz);
    if (!status && f->channels != c->common_channels)
        status = add_fault(c, SAW_FAULT_CHANNELS, song, f->stem, f->channels,
                           "%s has %d channel%s, most files have %d", name, f->channels,
                           f->channels > 1 ? "s" : "", c->common_channels);
    if (!status && t->clips >= CLIP_PLACES)
        status = add_fault(c, SAW_FAULT_CLIPPED, song, f->stem, (double)t->clips,
                           "%s is clipped in %lld places, first at %.3f s", name,
                           (long long)t->clips, t->first_clip_s);
    if (!status && fabs(worst_mean) > dc_limit)
        status = add_fault(c, SAW_FAULT_DC, song, f->stem, worst_mean,
                           "%s has a DC offset of %.4f of full scale", name, worst_mean);
    if (!status && f->channels > 1 && quietest_db < silent_db && loudest_db >= silent_db)
        status = add_fault(c, SAW_FAULT_ONE_SIDED, song, f->stem, quietest_db,
                           "%s has a channel that is silent", name);
    return status;
}

static saw_status judge_silence(work *w)
{
    saw_status status = SAW_OK;
    for (int s = 0; !status && s < w->stem_count; s++) {
        double loudest = -INFINITY;
        for (int i = 0; i < w->song->files; i++) {
            const track *t = &w->tracks[i];
            int channels = w->c->d->files[w->song->first_file + i].channels;
            for (int k = 0; t->stem == s && t->frames && k < channels; k++) {
                double level = to_db(t->energy[k] / (double)t->frames);
                loudest = level > loudest ? level : loudest;
            }
        }
        if (loudest < silent_db)
            status = add_fault(w->c, SAW_FAULT_SILENT, w->song->song.name, w->stems[s].name,
                               loudest, "%s is silent (%.1f dB RMS)", w->stems[s].name, loudest);
    }
    return status;
}

static saw_status judge_length(work *w)
{
    const saw_data_file *files = w->c->d->files + w->song->first_file;
    int shortest = 0, longest = 0;
    double seconds[2] = {0};
    for (int i = 0; i < w->song->files; i++) {
        double s = (double)w->tracks[i].frames / files[i].rate_hz;
        if (!i || s < seconds[0])
            seconds[0] = s, shortest = i;
        if (!i || s > seconds[1])
            seconds[1] = s, longest = i;
    }
    if (seconds[1] - seconds[0] <= length_s)
        return SAW_OK;
    return add_fault(w->c, SAW_FAULT_LENGTH, w->song->song.name, NULL, seconds[1] - seconds[0],
                     "%s is %.3f s long, %s %.3f s", base_name(files[shortest].path), seconds[0],
                     base_name(files[longest].path), seconds[1]);
}

static saw_status judge_sum(work *w)
{
    double left = to_db(w->left_energy / w->mix_energy);
    double best = to_db((w->mix_energy - w->product * w->product / w->sum_energy) / w->mix_energy);
    double gain = 2 * to_db(fabs(w->product / w->sum_energy));
    if (!(w->mix_energy > 0) || left <= not_sum_db)
        return SAW_OK;
    if (w->sum_energy > 0 && best < left - 10)
        return add_fault(w->c, SAW_FAULT_NOT_SUM, w->song->song.name, NULL, left,
                         "the mixture is not the sum of the stems: %.1f dB of it are left over, "
                         "but only %.1f dB when the sum gets %+.2f dB",
                         left, best, gain);
    return add_fault(w->c, SAW_FAULT_NOT_SUM, w->song->song.name, NULL, left,
                     "the mixture is not the sum of the stems: %.1f dB of it are left over", left);
}

static saw_status judge_leak(work *w, int a, int b)
{
    const leak *l = &w->leaks[a * w->stem_count + b];
    int best = 0, best_lag = 0;
    double mean = 0;
    for (int lag = 0; lag < LAGS; lag++) { /* a delay may fall between two samples */
        int count = 0;
        double sum = 0, squares = 0;
        for (int k = lag; k <= lag + 1 && k < LAGS; k++) {
            count += l->alike[k];
            sum += l->db[k];
            squares += l->db_squared[k];
        }
        double spread = count ? squares / count - sum / count * sum / count : 0;
        if (count > best && spread < 9) { /* a deviation of 3 dB */
            best = count;
            best_lag = l->alike[lag] >= count - l->alike[lag] ? lag : lag + 1;
            mean = sum / count;
        }
    }
    if (best < LEAST_MOMENTS || best < bleed_share * l->active)
        return SAW_OK;
    return add_fault(w->c, SAW_FAULT_BLEED, w->song->song.name, w->stems[a].name, mean,
                     "%s holds %s at %.1f dB where it is quiet (%d %% of the time that %s sounds, "
                     "%+.1f ms)",
                     w->stems[a].name, w->stems[b].name, mean, 100 * best / l->active,
                     w->stems[b].name, 1000.0 * (MAX_LAG - best_lag) / LOW_HZ);
}

static bool has_stem(const saw_check *c, const saw_data_song *g, const char *name)
{
    for (int k = g->first_file; k < g->first_file + g->files; k++)
        if (!strcmp(c->d->files[k].stem, name))
            return true;
    return false;
}

/* Stems that more than half of the songs have, and this one not. */
static saw_status judge_missing(work *w)
{
    const saw_check *c = w->c;
    saw_status status = SAW_OK;
    for (int i = 0; !status && i < c->usual_count; i++)
        if (!has_stem(c, w->song, c->usual[i].name))
            status = add_fault(w->c, SAW_FAULT_MISSING, w->song->song.name, c->usual[i].name,
                               c->usual[i].songs, "there is no %s, which %d of %d songs have",
                               c->usual[i].name, c->usual[i].songs, c->d->song_count);
    return status;
}

static saw_status judge_song(work *w)
{
    const char *layout = w->c->d->layout->name, *song = w->song->song.name;
    int stems = w->stem_count - (w->mixture >= 0);
    saw_status status = judge_missing(w);
    for (int i = 0; !status && i < w->song->files; i++)
        if (w->tracks[i].planar)
            status = judge_track(w, i);
    if (!status && !stems)
        status = add_fault(w->c, SAW_FAULT_ALONE, song, NULL, 0,
                           "there is a mixture, but no stem, so nothing to learn from");
    if (!status && stems == 1 && w->mixture < 0 && strcmp(layout, "folder") &&
        strcmp(layout, "csv"))
        status = add_fault(w->c, SAW_FAULT_ALONE, song, w->stems[0].name, 0,
                           "there is only %s, so nothing to separate it from", w->stems[0].name);
    if (status || !w->whole)
        return status;
    status = judge_silence(w);
    if (!status)
        status = judge_length(w);
    if (!status && w->summable)
        status = judge_sum(w);
    for (int a = 0; !status && a < w->stem_count; a++)
        for (int b = 0; !status && b < w->stem_count; b++)
            status = judge_leak(w, a, b);
    return status;
}

/* ---- a song ---------------------------------------------------------------------------------- */

enum { MAX_TRACKS = 256 };

static saw_status open_tracks(work *w)
{
    saw_check *c = w->c;
    saw_status status = SAW_OK;
    for (int i = 0; !status && i < w->song->files; i++) {
        const saw_data_file *f = &c->d->files[w->song->first_file + i];
        track *t = &w->tracks[i];
        if (!i || strcmp(f->stem, f[-1].stem)) {
            w->stems[w->stem_count].name = f->stem;
            w->mixture = strcmp(f->stem, "mixture") ? w->mixture : w->stem_count;
            w->stem_count++;
        }
        t->stem = w->stem_count - 1;
        const char *why = c->open_errors[w->song->first_file + i];
        if (!why && (status = saw_audio_open(c->ctx, f->path, &t->audio)))
            why = saw_context_error(c->ctx);
        if (status == SAW_ERR_MEMORY)
            return status;
        if (why) {
            w->whole = false;
            status = add_fault(c, SAW_FAULT_DAMAGED, w->song->song.name, f->stem, 0, "%s", why);
            continue;
        }
        t->planar = saw_calloc(c->ctx, (size_t)f->channels * (size_t)f->rate_hz, sizeof *t->planar);
        status = t->planar ? SAW_OK : SAW_ERR_MEMORY;
    }
    return status;
}

static saw_status open_work(work *w)
{
    saw_check *c = w->c;
    const saw_data_file *files = c->d->files + w->song->first_file;
    size_t count = (size_t)w->song->files;
    w->tracks = saw_calloc(c->ctx, count, sizeof *w->tracks);
    w->stems = saw_calloc(c->ctx, count, sizeof *w->stems);
    if (!w->tracks || !w->stems)
        return SAW_ERR_MEMORY;
    saw_status status = open_tracks(w);
    if (status)
        return status;
    w->summable = w->whole && w->mixture >= 0 && w->stem_count > 2;
    for (size_t i = 1; i < count; i++)
        w->summable &= files[i].rate_hz == files[0].rate_hz;
    w->leaks = saw_calloc(c->ctx, (size_t)(w->stem_count * w->stem_count), sizeof *w->leaks);
    if (w->summable) {
        w->mix = saw_calloc(c->ctx, SHOWN * (size_t)files[0].rate_hz, sizeof *w->mix);
        w->sum = saw_calloc(c->ctx, SHOWN * (size_t)files[0].rate_hz, sizeof *w->sum);
    }
    return w->leaks && (!w->summable || (w->mix && w->sum)) ? SAW_OK : SAW_ERR_MEMORY;
}

static void close_work(work *w)
{
    for (int i = 0; w->tracks && i < w->song->files; i++) {
        saw_audio_close(w->tracks[i].audio);
        saw_free(w->c->ctx, w->tracks[i].planar);
    }
    saw_free(w->c->ctx, w->tracks);
    saw_free(w->c->ctx, w->stems);
    saw_free(w->c->ctx, w->leaks);
    saw_free(w->c->ctx, w->mix);
    saw_free(w->c->ctx, w->sum);
}

static saw_status check_song(saw_check *c, int number)
{
    work w = {.c = c, .song = &c->d->songs[number], .mixture = -1, .whole = true};
    if (w.song->files > MAX_TRACKS)
        return add_fault(c, SAW_FAULT_DAMAGED, w.song->song.name, NULL, w.song->files,
                         "has %d files, more than %d cannot belong to one song", w.song->files,
                         MAX_TRACKS);
    saw_status status = open_work(&w);
    for (bool more = !status; more && !status;) {
        if (saw_cancelled(c->ctx))
            status = saw_fail(c->ctx, SAW_ERR_CANCELLED, "cancelled while checking %s",
                              w.song->song.name);
        else
            status = read_second(&w, &more);
        c->seconds_done += 1;
        if (c->o.progress)
            c->o.progress(c->o.user, number, c->seconds_done, c->seconds);
    }
    if (!status)
        status = judge_song(&w);
    close_work(&w);
    return status;
}

/* ---- duplicates ------------------------------------------------------------------------------ */

static bool are_equal(const signs *a, const signs *b)
{
    int moments = 0, wrong = 0, valid_a = 0, valid_b = 0;
    int common = a->count < b->count ? a->count : b->count;
    for (int i = 0; i < common; i++) {
        if (a->valid[i] != b->valid[i])
            continue;
        if (a->valid[i]) {
            wrong += __builtin_popcountll(a->words[i] ^ b->words[i]);
            moments++;
        }
        if (moments >= 4 * LEAST_MOMENTS && wrong > 0.25 * SIGNS * moments &&
            wrong < 0.75 * SIGNS * moments)
            return false;
    }
    for (int i = 0; i < a->count; i++)
        valid_a += a->valid[i];
    for (int i = 0; i < b->count; i++)
        valid_b += b->valid[i];
    int longer = valid_a > valid_b ? valid_a : valid_b;
    return moments >= LEAST_MOMENTS && 2 * moments >= longer &&
           (wrong < duplicate_errors * SIGNS * moments ||
            wrong > (1 - duplicate_errors) * SIGNS * moments);
}

static saw_status compare_songs(saw_check *c, const saw_data_song *a, const saw_data_song *b)
{
    const saw_data_file *first_a = NULL, *first_b = NULL;
    saw_status status = SAW_OK;
    int count = 0;
    for (int i = a->first_file; !status && i < a->first_file + a->files; i++)
        for (int k = a == b ? i + 1 : b->first_file; !status && k < b->first_file + b->files; k++) {
            const saw_data_file *x = &c->d->files[i], *y = &c->d->files[k];
            /* one stem alone may be a song's whole mixture */
            if ((a == b && (!strcmp(x->stem, "mixture") || !strcmp(y->stem, "mixture"))) ||
                !are_equal(&c->signs[i], &c->signs[k]))
                continue;
            if (a == b)
                status =
                    add_fault(c, SAW_FAULT_DUPLICATE, a->song.name, x->stem, 1,
                              "%s is the same audio as %s", base_name(y->path), base_name(x->path));
            first_a = first_a ? first_a : x;
            first_b = first_b ? first_b : y;
            count++;
        }
    if (status || a == b || !count)
        return status;
    return add_fault(c, SAW_FAULT_DUPLICATE, b->song.name, first_b->stem, count,
                     "%s is the same audio as %s of %s%s", first_b->stem, first_a->stem,
                     a->song.name, count > 1 ? ", and so are other files" : "");
}

static saw_status check_duplicates(saw_check *c)
{
    saw_status status = SAW_OK;
    for (int a = 0; !status && a < c->d->song_count; a++) {
        if (saw_cancelled(c->ctx))
            return saw_fail(c->ctx, SAW_ERR_CANCELLED, "cancelled while looking for duplicates");
        for (int b = a; !status && b < c->d->song_count; b++)
            status = compare_songs(c, &c->d->songs[a], &c->d->songs[b]);
    }
    return status;
}

/* ---- open and close -------------------------------------------------------------------------- */

static saw_status probe(saw_check *c, int i)
{
    saw_data_file *f = &c->d->files[i];
    saw_audio_reader *r;
    saw_status status = saw_audio_open(c->ctx, f->path, &r);
    if (status == SAW_ERR_MEMORY || status == SAW_ERR_CANCELLED)
        return status;
    if (status) {
        c->open_errors[i] = saw_strdup(c->ctx, saw_context_error(c->ctx));
        return c->open_errors[i] ? SAW_OK : SAW_ERR_MEMORY;
    }
    const saw_audio_info *info = saw_audio_reader_info(r);
    f->channels = info->channels;
    f->rate_hz = info->rate_hz;
    f->frames = info->frames > 0 ? info->frames : 0;
    saw_audio_close(r);
    return SAW_OK;
}

/* How often there is what; of more than MAX_TALLY different values only the first count. */
typedef struct tally {
    int value[MAX_TALLY], times[MAX_TALLY], count;
} tally;

static void count_value(tally *t, int value)
{
    int i = 0;
    while (i < t->count && t->value[i] != value)
        i++;
    if (i == MAX_TALLY)
        return;
    t->value[i] = value;
    t->times[i]++;
    t->count += i == t->count;
}

static int most_common(const tally *t)
{
    int best = 0;
    for (int i = 1; i < t->count; i++)
        best = t->times[i] > t->times[best] ? i : best;
    return t->value[best];
}

/* What most files and songs have. */
static void find_usual(saw_check *c)
{
    tally rates = {0}, channels = {0};
    usual_stem all[MAX_TALLY];
    int count = 0;
    for (int i = 0; i < c->d->found.count; i++)
        if (c->d->files[i].rate_hz) {
            count_value(&rates, c->d->files[i].rate_hz);
            count_value(&channels, c->d->files[i].channels);
        }
    c->common_hz = most_common(&rates);
    c->common_channels = most_common(&channels);
    for (int s = 0; s < c->d->song_count; s++) {
        const saw_data_song *g = &c->d->songs[s];
        for (int k = g->first_file; k < g->first_file + g->files; k++) {
            const char *name = c->d->files[k].stem;
            int i = 0;
            if ((k > g->first_file && !strcmp(name, c->d->files[k - 1].stem)) ||
                !strcmp(name, "mixture"))
                continue;
            while (i < count && strcmp(all[i].name, name))
                i++;
            if (i == MAX_TALLY)
                continue;
            if (i == count)
                all[count++] = (usual_stem){.name = name};
            all[i].songs++;
        }
    }
    for (int i = 0; i < count; i++)
        if (2 * all[i].songs > c->d->song_count)
            c->usual[c->usual_count++] = all[i];
}

saw_status saw_check_open(saw_context *ctx, const char *path, const saw_check_options *options,
                          saw_check **out)
{
    *out = NULL;
    saw_check *c = saw_calloc(ctx, 1, sizeof *c);
    if (!c)
        return SAW_ERR_MEMORY;
    c->ctx = ctx;
    c->o = *options;
    const saw_dataset_options layout = {.layout = options->layout};
    saw_status status = saw_dataset_find(ctx, path, &layout, &c->d);
    size_t count = status ? 0 : (size_t)c->d->found.count;
    if (!status) {
        c->open_errors = saw_calloc(ctx, count, sizeof *c->open_errors);
        c->signs = saw_calloc(ctx, count, sizeof *c->signs);
        status = c->open_errors && c->signs ? SAW_OK : SAW_ERR_MEMORY;
    }
    for (size_t i = 0; !status && i < count; i++)
        status = probe(c, (int)i);
    for (int i = 0; !status && i < c->d->song_count; i++) {
        const saw_data_song *g = &c->d->songs[i];
        double longest = 0;
        for (int k = g->first_file; k < g->first_file + g->files; k++) {
            const saw_data_file *f = &c->d->files[k];
            double seconds = f->rate_hz ? (double)f->frames / f->rate_hz : 0;
            longest = seconds > longest ? seconds : longest;
        }
        c->seconds += longest;
    }
    if (status) {
        saw_check_close(c);
        return status;
    }
    find_usual(c);
    *out = c;
    return SAW_OK;
}

void saw_check_close(saw_check *c)
{
    if (!c)
        return;
    for (int i = 0; c->d && i < c->d->found.count; i++) {
        if (c->open_errors)
            saw_free(c->ctx, c->open_errors[i]);
        if (c->signs) {
            saw_free(c->ctx, c->signs[i].words);
            saw_free(c->ctx, c->signs[i].valid);
        }
    }
    for (int i = 0; i < c->fault_count; i++)
        saw_free(c->ctx, (void *)c->faults[i].text);
    saw_free(c->ctx, c->faults);
    saw_free(c->ctx, c->open_errors);
    saw_free(c->ctx, c->signs);
    saw_dataset_close(c->d);
    saw_free(c->ctx, c);
}

const char *saw_check_layout(const saw_check *c)
{
    return c->d->layout->name;
}

int saw_check_songs(const saw_check *c)
{
    return c->d->song_count;
}

const char *saw_check_song(const saw_check *c, int song)
{
    return c->d->songs[song].song.name;
}

double saw_check_seconds(const saw_check *c)
{
    return c->seconds;
}

saw_status saw_check_run(saw_check *c, int song, int *first)
{
    *first = c->fault_count;
    return song < c->d->song_count ? check_song(c, song) : check_duplicates(c);
}

int saw_check_faults(const saw_check *c)
{
    return c->fault_count;
}

const saw_fault *saw_check_fault(const saw_check *c, int i)
{
    return &c->faults[i];
}
