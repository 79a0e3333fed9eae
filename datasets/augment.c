#include "datasets/augment.h"

#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>
#ifdef SAW_RUBBERBAND
#include <rubberband/rubberband-c.h>
#endif

typedef struct effect_call {
    saw_context *ctx;
    int rate_hz, channels;
    double amount;
    saw_dice dice; /* for what the effect draws beside its amount */
    float *x;      /* [channels][n] */
    int64_t n;
} effect_call;

typedef saw_status effect(effect_call *e);

static double from_db(double db)
{
    return pow(10, db / 20);
}

/* ---- simple ones ----------------------------------------------------------------------------- */

static saw_status scale(effect_call *e, double by)
{
    for (int64_t i = 0; i < e->channels * e->n; i++)
        e->x[i] *= (float)by;
    return SAW_OK;
}

static saw_status apply_polarity(effect_call *e)
{
    return scale(e, -1);
}

static saw_status apply_gain(effect_call *e)
{
    return scale(e, from_db(e->amount));
}

static saw_status apply_mute(effect_call *e)
{
    return scale(e, 0);
}

static saw_status apply_swap(effect_call *e)
{
    for (int a = 0, b = e->channels - 1; a < b; a++, b--)
        for (int64_t i = 0; i < e->n; i++) {
            float keep = e->x[a * e->n + i];
            e->x[a * e->n + i] = e->x[b * e->n + i];
            e->x[b * e->n + i] = keep;
        }
    return SAW_OK;
}

static saw_status apply_saturation(effect_call *e)
{
    float g = (float)from_db(e->amount);
    for (int64_t i = 0; i < e->channels * e->n; i++)
        e->x[i] = tanhf(g * e->x[i]) / g;
    return SAW_OK;
}

/* ---- equalizer: three second-order sections (R. Bristow-Johnson's cookbook) ------------------ */

typedef struct section {
    double b0, b1, b2, a1, a2;
} section;

/* Normalised by a0. */
static section section_of(double b0, double b1, double b2, double a0, double a1, double a2)
{
    return (section){b0 / a0, b1 / a0, b2 / a0, a1 / a0, a2 / a0};
}

static section bell(double w, double q, double db)
{
    double a = pow(10, db / 40), alpha = sin(w) / (2 * q), c = -2 * cos(w);
    return section_of(1 + alpha * a, c, 1 - alpha * a, 1 + alpha / a, c, 1 - alpha / a);
}

/* side 1: low shelf, -1: high shelf; slope 1. */
static section shelf(double w, double side, double db)
{
    double a = pow(10, db / 40), c = side * cos(w), k = sqrt(2 * a) * sin(w);
    return section_of(a * (a + 1 - (a - 1) * c + k), side * 2 * a * (a - 1 - (a + 1) * c),
                      a * (a + 1 - (a - 1) * c - k), a + 1 + (a - 1) * c + k,
                      side * -2 * (a - 1 + (a + 1) * c), a + 1 + (a - 1) * c - k);
}

static void filter(section s, float *x, int64_t n)
{
    double z1 = 0, z2 = 0;
    for (int64_t i = 0; i < n; i++) {
        double in = x[i], out = s.b0 * in + z1;
        z1 = s.b1 * in - s.a1 * out + z2;
        z2 = s.b2 * in - s.a2 * out;
        x[i] = (float)out;
    }
}

/* Every octave of a range is equally likely; in radians per sample. */
static double throw_frequency(effect_call *e, double low_hz, double high_hz)
{
    double hz = low_hz * pow(high_hz / low_hz, saw_throw(&e->dice)), most = 0.4 * e->rate_hz;
    return 2 * M_PI * (hz < most ? hz : most) / e->rate_hz;
}

static saw_status apply_eq(effect_call *e, double low, double high)
{
    double gain[3], w[3] = {throw_frequency(e, 60, 300), throw_frequency(e, 300, 5000),
                            throw_frequency(e, 5000, 12000)};
    double q = saw_throw_in(&e->dice, 0.5, 2);
    gain[0] = e->amount;
    gain[1] = saw_throw_in(&e->dice, low, high);
    gain[2] = saw_throw_in(&e->dice, low, high);
    const section sections[3] = {shelf(w[0], 1, gain[0]), bell(w[1], q, gain[1]),
                                 shelf(w[2], -1, gain[2])};
    for (int c = 0; c < e->channels; c++)
        for (int k = 0; k < 3; k++)
            filter(sections[k], e->x + c * e->n, e->n);
    return SAW_OK;
}

/* ---- reverb ---------------------------------------------------------------------------------- */

/*
 * A feedback delay network (J.-M. Jot, 1991): LINES delays whose outputs, damped, go back into all
 * of them through the reflection 1 - 2/LINES. A line of d seconds has the gain 10^(-3 d / T60), so
 * that everything has fallen by 60 dB after T60.
 */
enum { LINES = 8 };

static double energy(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static saw_status apply_reverb(effect_call *e)
{
    static const double delay_ms[LINES] = {29.7, 37.1, 41.1, 43.7, 53.0, 59.9, 67.7, 73.1};
    double t60 = saw_throw_in(&e->dice, 0.3, 1.5), size = saw_throw_in(&e->dice, 0.7, 1.3);
    int length[LINES], total = 0;
    float gain[LINES], *line[LINES];
    for (int k = 0; k < LINES; k++) {
        length[k] = (int)(size * delay_ms[k] * e->rate_hz / 1000) + 1;
        gain[k] = (float)pow(10, -3.0 * length[k] / (t60 * e->rate_hz));
        total += length[k];
    }
    float *lines = saw_calloc(e->ctx, (size_t)total, sizeof *lines);
    float *wet = saw_calloc(e->ctx, (size_t)(e->channels * e->n), sizeof *wet);
    if (lines && wet) {
        int at[LINES] = {0};
        line[0] = lines;
        for (int k = 1; k < LINES; k++)
            line[k] = line[k - 1] + length[k - 1];
        for (int64_t i = 0; i < e->n; i++) {
            float out[LINES], sum = 0;
            for (int k = 0; k < LINES; k++) {
                out[k] = line[k][at[k]];
                sum += out[k];
                /* neighbours in a channel have opposite signs, so that channels differ */
                wet[k % e->channels * e->n + i] += k / e->channels % 2 ? -out[k] : out[k];
            }
            for (int k = 0; k < LINES; k++) {
                float back = out[k] - 2.0f / LINES * sum;
                line[k][at[k]] = gain[k] * back + e->x[k % e->channels * e->n + i];
                at[k] = at[k] + 1 < length[k] ? at[k] + 1 : 0;
            }
        }
        double dry_energy = energy(e->x, e->channels * e->n);
        double wet_energy = energy(wet, e->channels * e->n);
        float g = wet_energy > 0 ? (float)(from_db(e->amount) * sqrt(dry_energy / wet_energy)) : 0;
        for (int64_t i = 0; i < e->channels * e->n; i++)
            e->x[i] += g * wet[i];
    }
    bool failed = !lines || !wet;
    saw_free(e->ctx, lines);
    saw_free(e->ctx, wet);
    return failed ? SAW_ERR_MEMORY : SAW_OK;
}

/* ---- codec ----------------------------------------------------------------------------------- */

typedef struct memory_file {
    saw_buffer bytes;
    sf_count_t at;
} memory_file;

static sf_count_t memory_length(void *user)
{
    return (sf_count_t)((memory_file *)user)->bytes.size;
}

static sf_count_t memory_tell(void *user)
{
    return ((memory_file *)user)->at;
}

static sf_count_t memory_seek(sf_count_t offset, int whence, void *user)
{
    memory_file *m = user;
    sf_count_t from = whence == SEEK_CUR ? m->at : whence == SEEK_END ? memory_length(m) : 0;
    return from + offset < 0 ? -1 : (m->at = from + offset);
}

static sf_count_t memory_read(void *to, sf_count_t n, void *user)
{
    memory_file *m = user;
    sf_count_t left = memory_length(m) - m->at;
    n = left < n ? (left > 0 ? left : 0) : n;
    if (n > 0)
        memcpy(to, m->bytes.data + m->at, (size_t)n);
    m->at += n;
    return n;
}

/* Headers are written again at the end, with the length in them. */
static sf_count_t memory_write(const void *from, sf_count_t n, void *user)
{
    memory_file *m = user;
    sf_count_t over = memory_length(m) - m->at;
    over = over < 0 ? 0 : over < n ? over : n;
    if (over)
        memcpy(m->bytes.data + m->at, from, (size_t)over);
    saw_buffer_add(&m->bytes, (const char *)from + over, (size_t)(n - over));
    m->at += n;
    return m->bytes.failed ? 0 : n;
}

static SF_VIRTUAL_IO memory_io = {memory_length, memory_seek, memory_read, memory_write,
                                  memory_tell};

static bool is_mp3_rate(int hz)
{
    static const int rates[] = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        if (rates[i] == hz)
            return true;
    return false;
}

/* Interleaved there and back through m; false when the library cannot. */
static bool through_codec(effect_call *e, memory_file *m, bool mp3, float *interleaved)
{
    SF_INFO info = {.samplerate = e->rate_hz,
                    .channels = e->channels,
                    .format = mp3 ? SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III
                                  : SF_FORMAT_OGG | SF_FORMAT_VORBIS};
    SNDFILE *f = sf_open_virtual(&memory_io, SFM_WRITE, &info, m);
    if (!f)
        return false;
    double quality = e->amount, compression = 1 - e->amount;
    if (mp3)
        sf_command(f, SFC_SET_COMPRESSION_LEVEL, &compression, sizeof compression);
    else
        sf_command(f, SFC_SET_VBR_ENCODING_QUALITY, &quality, sizeof quality);
    bool good = true;
    for (int64_t i = 0; good && i < e->n; i += 4096) { /* the Vorbis encoder's stack is limited */
        sf_count_t k = e->n - i < 4096 ? e->n - i : 4096;
        good = sf_writef_float(f, interleaved + i * e->channels, k) == k;
    }
    sf_close(f);
    m->at = 0;
    info = (SF_INFO){0};
    f = good && !m->bytes.failed ? sf_open_virtual(&memory_io, SFM_READ, &info, m) : NULL;
    if (!f)
        return false;
    good = info.channels == e->channels;
    sf_count_t got = good ? sf_readf_float(f, interleaved, e->n) : 0;
    memset(interleaved + got * e->channels, 0,
           (size_t)((e->n - got) * e->channels) * sizeof *interleaved);
    sf_close(f);
    return good;
}

static saw_status apply_codec(effect_call *e)
{
    bool mp3 = saw_throw(&e->dice) < 0.5 && e->channels <= 2 && is_mp3_rate(e->rate_hz);
    memory_file m = {.bytes = {.ctx = e->ctx}};
    float *interleaved = saw_calloc(e->ctx, (size_t)(e->channels * e->n), sizeof *interleaved);
    if (!interleaved)
        return SAW_ERR_MEMORY;
    for (int c = 0; c < e->channels; c++)
        for (int64_t i = 0; i < e->n; i++)
            interleaved[i * e->channels + c] = e->x[c * e->n + i];
    bool good = through_codec(e, &m, mp3, interleaved);
    for (int c = 0; good && c < e->channels; c++)
        for (int64_t i = 0; i < e->n; i++)
            e->x[c * e->n + i] = interleaved[i * e->channels + c];
    bool failed = m.bytes.failed;
    saw_buffer_free(&m.bytes);
    saw_free(e->ctx, interleaved);
    if (good)
        return SAW_OK;
    return failed ? SAW_ERR_MEMORY
                  : saw_fail(e->ctx, SAW_ERR_UNSUPPORTED,
                             "libsndfile cannot encode %d channels at %d Hz as %s; leave codec out "
                             "of the augmentations",
                             e->channels, e->rate_hz, mp3 ? "MP3" : "Vorbis");
}

/* ---- the table ------------------------------------------------------------------------------- */

typedef struct row {
    const char *name, *unit, *help;
    double chance, low, high, least, most;
    effect *apply; /* NULL: the sampler does it, or apply_eq */
} row;

static const row rows[SAW_AUGMENT_COUNT] = {
    [SAW_AUGMENT_LAYER] = {"layer", "dB", "a second chunk of the same stem is added", 0.1, -6, 0,
                           -60, 20, NULL},
    [SAW_AUGMENT_MIXUP] = {"mixup", "dB", "a second song is added to the whole item", 0.05, -6, 0,
                           -60, 20, NULL},
    [SAW_AUGMENT_TIME] = {"time", "factor", "as long again, in tune", 0.1, 0.9, 1.1, 0.5, 2, NULL},
    [SAW_AUGMENT_PITCH] = {"pitch", "semitones", "higher or lower, at the same tempo", 0.1, -2, 2,
                           -12, 12, NULL},
    [SAW_AUGMENT_POLARITY] = {"polarity", "", "the sign is turned", 0.5, 0, 0, 0, 0,
                              apply_polarity},
    [SAW_AUGMENT_SWAP] = {"swap", "", "the channels in reverse order", 0.5, 0, 0, 0, 0, apply_swap},
    [SAW_AUGMENT_EQ] = {"eq", "dB", "gains of a low shelf, a bell and a high shelf", 0.2, -6, 6,
                        -24, 24, NULL},
    [SAW_AUGMENT_SATURATION] = {"saturation", "dB", "drive into tanh", 0.1, 0, 12, 0, 40,
                                apply_saturation},
    [SAW_AUGMENT_REVERB] = {"reverb", "dB", "level of a tail of 0.3 to 1.5 s", 0.1, -20, -8, -60, 0,
                            apply_reverb},
    [SAW_AUGMENT_CODEC] = {"codec", "quality", "through Vorbis or MP3 and back", 0.05, 0, 0.6, 0, 1,
                           apply_codec},
    [SAW_AUGMENT_GAIN] = {"gain", "dB", "louder or softer", 1, -6, 6, -60, 40, apply_gain},
    [SAW_AUGMENT_MUTE] = {"mute", "", "silence", 0.05, 0, 0, 0, 0, apply_mute},
    [SAW_AUGMENT_BLEED] = {"bleed", "dB", "another source of the item leaks in", 0.1, -40, -20,
                           -100, 0, NULL},
};

const char *saw_augment_name(saw_augment_kind kind)
{
    return rows[kind].name;
}

const char *saw_augment_unit(saw_augment_kind kind)
{
    return rows[kind].unit;
}

const char *saw_augment_help(saw_augment_kind kind)
{
    return rows[kind].help;
}

/* ---- parsing --------------------------------------------------------------------------------- */

static saw_status unknown_kind(saw_context *ctx, const char *name)
{
    saw_buffer names = {.ctx = ctx};
    for (int k = 0; k < SAW_AUGMENT_COUNT; k++)
        saw_buffer_printf(&names, "%s%s", k ? ", " : "", rows[k].name);
    saw_status status =
        names.failed ? SAW_ERR_MEMORY
                     : saw_fail(ctx, SAW_ERR_ARGUMENT, "there is no augmentation %s: there are %s",
                                name, names.data);
    saw_buffer_free(&names);
    return status;
}

/* "low..high" or one number for both. */
static bool parse_range(char *text, double *low, double *high)
{
    char *dots = strstr(text, "..");
    if (dots)
        *dots = 0;
    if (!saw_parse_double(text, low))
        return false;
    *high = *low;
    return !dots || saw_parse_double(dots + 2, high);
}

saw_status saw_augment_parse(saw_context *ctx, const char *text, saw_augment *out)
{
    char copy[128];
    *out = (saw_augment){0};
    if (strlen(text) >= sizeof copy)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "the augmentation %.40s... is too long", text);
    strcpy(copy, text);
    char *chance = strchr(copy, '@'), *range = strchr(copy, '='), *name = strchr(copy, '/');
    if (chance)
        *chance++ = 0;
    if (range)
        *range++ = 0;
    if (name)
        *name++ = 0;
    size_t stem_length = name ? strlen(copy) : 0;
    name = name ? name : copy;
    int kind = 0;
    while (kind < SAW_AUGMENT_COUNT && strcmp(rows[kind].name, name))
        kind++;
    if (kind == SAW_AUGMENT_COUNT)
        return unknown_kind(ctx, name);
    const row *r = &rows[kind];
    *out = (saw_augment){kind, r->chance, r->low, r->high, ""};
    if (stem_length >= sizeof out->stem)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: the stem's name is too long", text);
    memcpy(out->stem, copy, stem_length);
    if ((chance && !saw_parse_double(chance, &out->chance)) || !(out->chance >= 0) ||
        !(out->chance <= 1))
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: the chance behind @ is a number from 0 to 1",
                        text);
    if (range && (!*r->unit || !parse_range(range, &out->low, &out->high) ||
                  !(out->low >= r->least) || !(out->high <= r->most) || !(out->low <= out->high))) {
        if (!*r->unit)
            return saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: %s has no amount", text, name);
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "%s: the amount of %s is low..high, within %g to %g (%s)", text, name,
                        r->least, r->most, r->unit);
    }
#ifndef SAW_RUBBERBAND
    if (kind == SAW_AUGMENT_TIME || kind == SAW_AUGMENT_PITCH)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "%s: this program was built without Rubber Band; leave %s out", text, name);
#endif
    return SAW_OK;
}

/* ---- doing ----------------------------------------------------------------------------------- */

static const saw_augment *find(const saw_augment_chain *chain, saw_augment_kind kind,
                               const char *stem)
{
    for (int i = chain->count; i-- > 0;) {
        const saw_augment *a = &chain->entries[i];
        if (a->kind == kind && (!*a->stem || (stem && !strcmp(a->stem, stem))))
            return a;
    }
    return NULL;
}

enum { PURPOSES = 16 }; /* of the sampler itself; behind them those of the kinds */

bool saw_augment_happens(const saw_augment_chain *chain, saw_augment_kind kind, const char *stem,
                         saw_dice *at, double *amount)
{
    const saw_augment *a = find(chain, kind, stem);
    at->purpose = (uint8_t)(PURPOSES + kind);
    at->drawn = 0;
    if (!a || saw_throw(at) >= a->chance)
        return false;
    *amount = saw_throw_in(at, a->low, a->high);
    return true;
}

saw_status saw_augment_source(saw_context *ctx, const saw_augment_chain *chain, const char *stem,
                              saw_dice at, float *x, int64_t n)
{
    saw_status status = SAW_OK;
    for (saw_augment_kind k = SAW_AUGMENT_POLARITY; !status && k <= SAW_AUGMENT_MUTE; k++) {
        effect_call e = {ctx, chain->rate_hz, chain->channels, 0, at, x, n};
        if (!saw_augment_happens(chain, k, stem, &e.dice, &e.amount))
            continue;
        const saw_augment *a = find(chain, k, stem);
        status = k == SAW_AUGMENT_EQ ? apply_eq(&e, a->low, a->high) : rows[k].apply(&e);
    }
    return status;
}

#ifdef SAW_RUBBERBAND
enum { STRETCH_BLOCK = 4096 };

saw_status saw_augment_stretch(saw_context *ctx, const saw_augment_chain *chain, const float *in,
                               int64_t n_in, double semitones, float *out, int64_t n)
{
    const float *from[SAW_AUGMENT_MAX_CHANNELS];
    float *to[SAW_AUGMENT_MAX_CHANNELS];
    /* the faster engine shifts the phase of steady tones at every onset it believes to hear */
    RubberBandState rb =
        rubberband_new((unsigned)chain->rate_hz, (unsigned)chain->channels,
                       RubberBandOptionProcessOffline | RubberBandOptionEngineFiner |
                           RubberBandOptionThreadingNever | RubberBandOptionChannelsTogether,
                       (double)n / (double)n_in, pow(2, semitones / 12));
    if (!rb)
        return saw_fail(ctx, SAW_ERR_MEMORY, "out of memory");
    rubberband_set_expected_input_duration(rb, (unsigned)n_in);
    rubberband_set_max_process_size(rb, STRETCH_BLOCK);
    memset(out, 0, (size_t)(chain->channels * n) * sizeof *out);
    int64_t done = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < n_in; i += STRETCH_BLOCK) {
            unsigned k = (unsigned)(n_in - i < STRETCH_BLOCK ? n_in - i : STRETCH_BLOCK);
            int last = i + k == n_in, ready;
            for (int c = 0; c < chain->channels; c++)
                from[c] = in + c * n_in + i;
            if (pass == 0) {
                rubberband_study(rb, from, k, last);
                continue;
            }
            rubberband_process(rb, from, k, last);
            while (done < n && (ready = rubberband_available(rb)) > 0) {
                for (int c = 0; c < chain->channels; c++)
                    to[c] = out + c * n + done;
                int64_t want = n - done < ready ? n - done : ready;
                done += rubberband_retrieve(rb, to, (unsigned)want);
            }
        }
    rubberband_delete(rb);
    return SAW_OK;
}
#else
saw_status saw_augment_stretch(saw_context *ctx, const saw_augment_chain *chain, const float *in,
                               int64_t n_in, double semitones, float *out, int64_t n)
{
    (void)chain, (void)in, (void)n_in, (void)semitones, (void)out, (void)n;
    return saw_fail(ctx, SAW_ERR_UNSUPPORTED, "this program was built without Rubber Band");
}
#endif
