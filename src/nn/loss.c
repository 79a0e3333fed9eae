/*
 * loss.c - the table of losses, the reader of a recipe's sum, and its recorder.
 *
 * A row records a loss op for every stem. What the ops give, [B] or [B,C,J] each, is put one after
 * another and averaged: so there is one tree of sums, in a fixed order.
 */
#include "nn/loss.h"

#include "nn/nn.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ------------------------------------------------------------------------------- */

/* What a row gets: y and target [B,C,N] of n stems. It fills values, all of the same dims, and
 * returns the factor that makes their mean the loss. */
typedef struct stems {
    int n;
    const saw_val *y, *target;
    saw_val *values;
} stems;

struct nn_loss_row {
    const char *name, *what;
    double (*record)(saw_graph *g, const nn_loss_term *term, const stems *s);
    nn_loss_option options[NN_LOSS_OPTIONS];
};

static double number(const nn_loss_term *term, int option)
{
    return term->value[option][0];
}

static double waves(saw_graph *g, const stems *s, saw_wave_distance distance, double eps)
{
    for (int i = 0; i < s->n; i++)
        s->values[i] = saw_wave_loss(g, s->y[i], s->target[i], distance, eps);
    return 1;
}

static double l1(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    (void)term;
    return waves(g, s, SAW_WAVE_L1, 0);
}

static double l2(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    (void)term;
    return waves(g, s, SAW_WAVE_L2, 0);
}

static double snr(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return waves(g, s, SAW_WAVE_SNR, number(term, 0));
}

static double si_sdr(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return waves(g, s, SAW_WAVE_SI_SDR, number(term, 0));
}

static double l1snr(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return waves(g, s, SAW_WAVE_L1SNR, number(term, 0));
}

static double l1snr_spectrum(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    const saw_stft *plan = nn_stft_plan(g, &(saw_stft_options){.n_fft = (int)number(term, 1),
                                                               .hop = (int)number(term, 2),
                                                               .center = true,
                                                               .pad = SAW_STFT_ZEROS,
                                                               .norm = SAW_STFT_NORM_WINDOW});
    for (int i = 0; i < s->n; i++)
        s->values[i] =
            saw_wave_loss(g, saw_stft_op(g, s->y[i], plan), saw_stft_op(g, s->target[i], plan),
                          SAW_WAVE_L1SNR, number(term, 0));
    return 1;
}

static double masked(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    for (int i = 0; i < s->n; i++)
        s->values[i] = saw_masked_loss(g, s->y[i], s->target[i], number(term, 0),
                                       (int)number(term, 1), number(term, 2) > 0);
    return 1;
}

/* The transforms of every window; a window shorter than n_fft lies in its middle. */
static double spectra(saw_graph *g, const stems *s, int n, const double *windows, double n_fft,
                      double hop, saw_spectral_distance distance)
{
    const saw_stft *plans[SAW_SPECTRAL_STFTS];
    for (int i = 0; i < n; i++)
        plans[i] = nn_stft_plan(
            g, &(saw_stft_options){.n_fft = (int)(windows[i] > n_fft ? windows[i] : n_fft),
                                   .win_length = (int)windows[i],
                                   .hop = (int)hop,
                                   .center = true});
    for (int i = 0; i < s->n; i++)
        s->values[i] = saw_spectral_loss(g, s->y[i], s->target[i], n, plans, distance);
    return s->values[0] ? (double)saw_dim(g, s->values[0], -1) : 1;
}

static double l1_spectrum(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return spectra(g, s, 1, term->value[0], 0, number(term, 1), SAW_SPECTRAL_PARTS);
}

static double l2_spectrum(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return spectra(g, s, 1, term->value[0], 0, number(term, 1), SAW_SPECTRAL_SQUARES);
}

static double mrstft(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return spectra(g, s, term->count[0], term->value[0], number(term, 1), number(term, 2),
                   SAW_SPECTRAL_MODULUS);
}

static double mrstft_parts(saw_graph *g, const nn_loss_term *term, const stems *s)
{
    return spectra(g, s, term->count[0], term->value[0], number(term, 1), number(term, 2),
                   SAW_SPECTRAL_PARTS);
}

enum { LARGEST_NFFT = 1 << 16 };
#define N_FFT(value)                                                                               \
    {                                                                                              \
        "n_fft", value, "size of the transform and of its Hann window, samples", 2, LARGEST_NFFT,  \
            true, false                                                                            \
    }
#define HOP(value)                                                                                 \
    {                                                                                              \
        "hop", value, "samples from frame to frame", 1, LARGEST_NFFT, true, false                  \
    }
#define EPS(value)                                                                                 \
    {                                                                                              \
        "eps", value, "added to both means, so that silence stays finite", 1e-30, 1, false, false  \
    }
#define MULTI_STFT                                                                                 \
    {                                                                                              \
        {"windows",                                                                                \
         "4096:2048:1024:512:256",                                                                 \
         "lengths of the Hann windows, samples",                                                   \
         2,                                                                                        \
         LARGEST_NFFT,                                                                             \
         true,                                                                                     \
         true},                                                                                    \
            {"n_fft", "2048", "least size of a transform", 2, LARGEST_NFFT, true, false},          \
            HOP("147")                                                                             \
    }

static const nn_loss_row rows[] = {
    {"l1", "mean |y - t|", l1, {{0}}},
    {"l2", "mean (y - t)^2", l2, {{0}}},
    {"l1_spectrum",
     "mean over re and im of |STFT(y - t)|",
     l1_spectrum,
     {N_FFT("2048"), HOP("512"), {0}}},
    {"l2_spectrum",
     "mean over re and im of STFT(y - t)^2",
     l2_spectrum,
     {N_FFT("2048"), HOP("512"), {0}}},
    {"mrstft",
     "sum over windows of the mean modulus |STFT(y - t)|, as the RoFormer trainers have it", mrstft,
     MULTI_STFT},
    {"mrstft_parts", "the same with re and im apart: sum over windows of the mean of |re| and |im|",
     mrstft_parts, MULTI_STFT},
    {"snr", "-10 log10 (mean t^2 / mean (y - t)^2)", snr, {EPS("1e-8"), {0}, {0}}},
    {"si_sdr",
     "-10 log10 (mean (a t)^2 / mean (y - a t)^2), a the factor that fits t to y best",
     si_sdr,
     {EPS("1e-8"), {0}, {0}}},
    {"l1snr", "-20 log10 (mean |t| / mean |y - t|)", l1snr, {EPS("1e-3"), {0}, {0}}},
    {"l1snr_spectrum",
     "the same of the re and im of spectra, as Bandit and Banquet add it to l1snr",
     l1snr_spectrum,
     {EPS("1e-3"), N_FFT("2048"), HOP("512")}},
    {"masked",
     "mean |y - t|^power of each item without what is above its q-quantile",
     masked,
     {{"q", "0.95", "quantile", 1e-6, 1, false, false},
      {"power", "2", "1 or 2", 1, 2, true, false},
      {"coarse", "0", "1: leave out whole items of the batch, not samples", 0, 1, true, false}}},
};
enum { ROWS = sizeof rows / sizeof *rows };

const nn_loss_row *nn_loss_at(int i)
{
    return i >= 0 && i < ROWS ? &rows[i] : NULL;
}

const char *nn_loss_name(const nn_loss_row *row)
{
    return row->name;
}

const char *nn_loss_what(const nn_loss_row *row)
{
    return row->what;
}

const nn_loss_option *nn_loss_option_at(const nn_loss_row *row, int i)
{
    return i >= 0 && i < NN_LOSS_OPTIONS && row->options[i].name ? &row->options[i] : NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

enum { WORD_ROOM = 32 };

typedef struct reader {
    saw_context *ctx;
    const char *text, *at;
} reader;

static saw_status SAW_PRINTF(2, 3) wrong(const reader *r, const char *fmt, ...)
{
    char why[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return saw_fail(r->ctx, SAW_ERR_ARGUMENT, "loss \"%.100s\": %s", r->text, why);
}

static bool take(reader *r, char c)
{
    r->at += strspn(r->at, " \t");
    if (*r->at != c)
        return false;
    r->at++;
    return true;
}

static void take_word(reader *r, char word[WORD_ROOM])
{
    r->at += strspn(r->at, " \t");
    int n = 0;
    for (; isalnum((unsigned char)*r->at) || *r->at == '_'; r->at++)
        if (n < WORD_ROOM - 1)
            word[n++] = *r->at;
    word[n] = 0;
}

static saw_status take_number(reader *r, double *out)
{
    r->at += strspn(r->at, " \t");
    const char *p = r->at;
    p += strspn(p, "0123456789.");
    if (p > r->at && (*p == 'e' || *p == 'E')) {
        p += 1 + (p[1] == '+' || p[1] == '-');
        p += strspn(p, "0123456789");
    }
    char word[WORD_ROOM];
    size_t n = (size_t)(p - r->at);
    if (n >= WORD_ROOM)
        return wrong(r, "a number has more than %d letters", WORD_ROOM - 1);
    memcpy(word, r->at, n);
    word[n] = 0;
    if (!saw_parse_double(word, out))
        return wrong(r, "a number is missing before \"%.20s\"", r->at);
    r->at = p;
    return SAW_OK;
}

static saw_status take_values(reader *r, const nn_loss_option *o, double *values, int *count)
{
    *count = 0;
    do {
        double *v = &values[*count];
        if (*count == (o->list ? NN_LOSS_NUMBERS : 1))
            return wrong(r, "the option %s takes no more than %d numbers", o->name, *count);
        saw_status status = take_number(r, v);
        if (status)
            return status;
        if (!(*v >= o->least && *v <= o->most) || (o->whole && *v != floor(*v)))
            return wrong(r, "the option %s takes %s from %g to %g", o->name,
                         o->whole ? "whole numbers" : "numbers", o->least, o->most);
        ++*count;
    } while (take(r, ':'));
    return SAW_OK;
}

static saw_status unknown(const reader *r, const char *kind, const char *word,
                          const char *const *names, int n)
{
    const char *near = saw_nearest_word(word, names, n);
    if (near)
        return wrong(r, "there is no %s \"%s\"; did you mean \"%s\"?", kind, word, near);
    char all[160] = "";
    for (int i = 0; i < n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", names[i]);
    return wrong(r, "there is no %s \"%s\"; known are %s", kind, word, n ? all : "none");
}

static saw_status take_options(reader *r, nn_loss_term *term)
{
    const nn_loss_option *options = term->row->options;
    const char *names[NN_LOSS_OPTIONS];
    int n = 0;
    for (; n < NN_LOSS_OPTIONS && options[n].name; n++)
        names[n] = options[n].name;
    do {
        char word[WORD_ROOM];
        take_word(r, word);
        int i = 0;
        while (i < n && strcmp(word, names[i]))
            i++;
        if (i == n) {
            char kind[64];
            snprintf(kind, sizeof kind, "option of %s", term->row->name);
            return unknown(r, kind, word, names, n);
        }
        if (!take(r, '='))
            return wrong(r, "the option %s has no value", word);
        saw_status status = take_values(r, &options[i], term->value[i], &term->count[i]);
        if (status)
            return status;
    } while (take(r, ','));
    return take(r, ')') ? SAW_OK : wrong(r, "\")\" is missing before \"%.20s\"", r->at);
}

static const nn_loss_row *find_row(const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

static saw_status take_term(reader *r, nn_loss_term *term)
{
    char word[WORD_ROOM];
    take_word(r, word);
    if (!*word)
        return wrong(r, "the name of a loss is missing before \"%.20s\"", r->at);
    *term = (nn_loss_term){.row = find_row(word), .weight = 1};
    if (!term->row) {
        const char *names[ROWS];
        for (int i = 0; i < ROWS; i++)
            names[i] = rows[i].name;
        return unknown(r, "loss", word, names, ROWS);
    }
    saw_status status = SAW_OK;
    for (int i = 0; i < NN_LOSS_OPTIONS && term->row->options[i].name && !status; i++) {
        const nn_loss_option *o = &term->row->options[i];
        reader defaults = {r->ctx, o->value, o->value};
        status = take_values(&defaults, o, term->value[i], &term->count[i]);
    }
    if (!status && take(r, '('))
        status = take_options(r, term);
    if (!status && take(r, '*'))
        status = take_number(r, &term->weight);
    return status;
}

saw_status nn_loss_parse(saw_context *ctx, const char *text, nn_loss_term terms[NN_LOSS_TERMS],
                         int *n)
{
    reader r = {ctx, text, text};
    *n = 0;
    do {
        if (*n == NN_LOSS_TERMS)
            return wrong(&r, "it has more than %d terms", NN_LOSS_TERMS);
        nn_loss_term *term = &terms[*n];
        saw_status status = take_term(&r, term);
        if (status)
            return status;
        for (int i = 0; i < *n; i++)
            if (terms[i].row == term->row)
                return wrong(&r, "%s is there twice", term->row->name);
        ++*n;
    } while (take(&r, '+'));
    return *r.at ? wrong(&r, "cannot read \"%.20s\"", r.at) : SAW_OK;
}

/* ---- recording ------------------------------------------------------------------------------- */

/* Stem s of the target [B,S,C,N] -> [B,C,N]. */
static saw_val target_of(saw_graph *g, saw_val target, int s)
{
    saw_dims d = saw_dims_val(g, target);
    if (d.n != 4)
        return target;
    saw_val flat = saw_merge_last(g, saw_merge_last(g, target));
    int64_t n = d.d[2] * d.d[3];
    return saw_split_last(g, saw_slice_last(g, flat, s * n, n), d.d[2]);
}

saw_val nn_loss(saw_graph *g, const nn_loss_term *terms, int n, int n_stems, const saw_val *stems_y,
                saw_val target)
{
    saw_dims d = saw_dims_val(g, target);
    if (!(d.n == 4 && d.d[1] == n_stems) && !(d.n == 3 && n_stems == 1))
        return saw_graph_fail(g, SAW_ERR_SHAPE,
                              "the target of a loss of %d stems is not [B,%d,C,N]", n_stems,
                              n_stems);
    saw_context *ctx = saw_graph_context(g);
    saw_val *block = saw_calloc(ctx, 2 * (size_t)n_stems, sizeof *block);
    if (!block)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for %d stems", n_stems);
    stems s = {.n = n_stems, .y = stems_y, .target = block, .values = block + n_stems};
    for (int i = 0; i < n_stems; i++)
        block[i] = target_of(g, target, i);
    saw_val total = 0;
    for (int i = 0; i < n; i++) {
        double factor = terms[i].row->record(g, &terms[i], &s);
        saw_val loss =
            saw_mean_all(g, n_stems > 1 ? saw_concat(g, n_stems, s.values) : s.values[0], factor);
        char name[WORD_ROOM + 8];
        snprintf(name, sizeof name, "loss.%s", terms[i].row->name);
        saw_output(g, name, loss);
        saw_val weighted = saw_scale(g, loss, terms[i].weight);
        total = i ? saw_add(g, total, weighted) : weighted;
    }
    saw_output(g, "loss", total);
    saw_free(ctx, block);
    return total;
}
