/*
 * bss_eval.c - the normal equations of all filters, solved by a fast Cholesky factorization.
 *
 * With channel i delayed by a samples as column (a, i), the matrix of the normal equations is block
 * Toeplitz: block (a, b) holds the correlations r_ij[a - b] = sum_t x_i[t] x_j[t + a - b]. Its
 * displacement G - Z G Z' (Z: one block down) is u'u - v'v with u, v of one block row, so that
 * m = channels of all sources rows at a time of the Cholesky factor come from shifting u by one
 * block and turning (u, v) by hyperbolic rotations until v's next block is zero: the generalized
 * Schur algorithm (Kailath, Sayed 1995), O(m n^2) in place of O(n^3). The rotations are applied in
 * the mixed form, which is backward stable (Stewart, Van Dooren 1997).
 *
 * Correlations are summed in the frequency domain over blocks, in their order. A Fourier transform
 * is a frame of an STFT with a window of ones.
 */
#include "dsp/bss_eval.h"

#include "dsp/stft.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME = 8192, BATCH = 8 }; /* of the correlations */

int64_t saw_bss_windows(int64_t samples, int window_samples)
{
    return window_samples < samples ? samples / window_samples : 1;
}

bool saw_bss_silent(const float *const *channel, int channels, int64_t samples)
{
    for (int64_t i = 0; i < samples; i++) {
        double sum = 0;
        for (int c = 0; c < channels; c++)
            sum += channel[c][i];
        if (sum != 0)
            return false;
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double saw_median(double *values, int64_t n)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            values[kept++] = values[i];
    if (!kept)
        return NAN;
    qsort(values, (size_t)kept, sizeof *values, by_value);
    double low = values[(kept - 1) / 2], high = values[kept / 2];
    return low == high ? low : (low + high) / 2; /* both may be infinite */
}

/* ---- Fourier transforms ---------------------------------------------------------------------- */

/* One of n samples; a spectrum is n / 2 + 1 pairs of numbers. */
static saw_status open_transform(saw_context *ctx, int n, saw_stft **out)
{
    return saw_stft_open(ctx, &(saw_stft_options){.n_fft = n, .hop = n, .window = SAW_WINDOW_ONES},
                         out);
}

static void to_spectrum(const saw_stft *s, const double *x, double *spectrum, void *scratch)
{
    saw_stft64_forward(s, x, saw_stft_get_options(s)->n_fft, 0, 1, spectrum, 0, 2, scratch);
}

static void to_samples(const saw_stft *s, const double *spectrum, double *x, void *scratch)
{
    saw_stft64_inverse(s, spectrum, 1, 0, 2, 0, saw_stft_get_options(s)->n_fft, x, scratch);
}

/* sum += a b or, for a correlation, conj(a) b. */
static void add_product(double *sum, const double *a, const double *b, int64_t bins, bool conjugate)
{
    double sign = conjugate ? -1 : 1;
    for (int64_t k = 0; k < bins; k++) {
        double re = a[2 * k], im = sign * a[2 * k + 1];
        sum[2 * k] += re * b[2 * k] - im * b[2 * k + 1];
        sum[2 * k + 1] += re * b[2 * k + 1] + im * b[2 * k];
    }
}

/* x[offset ..) = samples [first, first + n) of a channel, zeros where there are none. */
static void load(const float *channel, int64_t samples, int64_t first, int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = first + i >= 0 && first + i < samples ? channel[first + i] : 0;
}

/* ---- everything of one evaluation ------------------------------------------------------------ */

typedef struct eval {
    saw_context *ctx;
    const saw_bss_input *in;
    int m, taps; /* channels of all sources; taps of a filter */
    saw_bss_ratios *out;
    int64_t windows;
    /* Correlations of lag -(taps-1) .. taps-1: of references i and j at [i][j], of reference i and
     * estimate j at [i][m + j]. As spectra first; the lower triangle of the references is unused.
     */
    saw_stft *frame;
    int64_t block;      /* samples of a correlation's block */
    int64_t first;      /* of the batch that is added now */
    double *spectra;    /* [m][2 m][bins * 2] */
    double *transforms; /* [BATCH][3 m][bins * 2]: blocks of references, then references and
                           estimates with taps - 1 samples more on both sides */
    double *lags;       /* [m][2 m][2 taps - 1] */
    /* Filters in the frequency domain: from all references [output][input], and from those of the
     * output's own source [output][input of the source]. */
    saw_stft *window;
    double *all, *own;
    unsigned char *scratch; /* [threads][scratch_bytes] */
    size_t scratch_bytes;
    saw_status status;
} eval;

static int64_t spectrum_size(const saw_stft *s)
{
    return 2 * saw_stft_bins(s);
}

/* ---- correlations ---------------------------------------------------------------------------- */

static void transform_block(void *arg, int64_t item, int thread)
{
    eval *v = arg;
    const saw_bss_input *in = v->in;
    int64_t size = spectrum_size(v->frame), at = (v->first + item / (3 * v->m)) * v->block;
    int signal = (int)(item % (3 * v->m)), margin = v->taps - 1;
    double *x = (double *)(v->scratch + (size_t)thread * v->scratch_bytes);
    if (signal < v->m) {
        memset(x, 0, FRAME * sizeof *x);
        load(in->reference[signal], in->samples, at, v->block, x + margin);
    } else {
        const float *channel =
            signal < 2 * v->m ? in->reference[signal - v->m] : in->estimate[signal - 2 * v->m];
        load(channel, in->samples, at - margin, FRAME, x);
    }
    to_spectrum(v->frame, x, v->transforms + item * size, x + FRAME);
}

static void add_pair(void *arg, int64_t item, int thread)
{
    (void)thread;
    eval *v = arg;
    int64_t size = spectrum_size(v->frame), i = item / (2 * v->m), j = item % (2 * v->m);
    if (j < i)
        return;
    for (int64_t b = 0; b < BATCH; b++) {
        const double *t = v->transforms + b * 3 * v->m * size;
        add_product(v->spectra + item * size, t + i * size, t + (v->m + j) * size, size / 2, true);
    }
}

static void pair_to_lags(void *arg, int64_t item, int thread)
{
    eval *v = arg;
    int64_t i = item / (2 * v->m), j = item % (2 * v->m), lags = 2 * v->taps - 1;
    double *x = (double *)(v->scratch + (size_t)thread * v->scratch_bytes), *out;
    if (j < i)
        return;
    to_samples(v->frame, v->spectra + item * spectrum_size(v->frame), x, x + FRAME);
    out = v->lags + item * lags;
    for (int k = 1 - v->taps; k < v->taps; k++)
        out[k + v->taps - 1] = x[k < 0 ? k + FRAME : k];
    for (int k = 0; j > i && j < v->m && k < lags; k++)
        v->lags[(j * 2 * v->m + i) * lags + k] = out[lags - 1 - k];
}

static saw_status correlate(eval *v)
{
    int64_t pairs = 2 * v->m * v->m, size = spectrum_size(v->frame);
    v->block = FRAME - 2 * (v->taps - 1);
    v->spectra = saw_calloc(v->ctx, (size_t)(pairs * size), sizeof *v->spectra);
    v->transforms = saw_alloc(v->ctx, (size_t)(BATCH * 3 * v->m * size) * sizeof *v->transforms);
    v->lags = saw_alloc(v->ctx, (size_t)(pairs * (2 * v->taps - 1)) * sizeof *v->lags);
    if (!v->spectra || !v->transforms || !v->lags)
        return SAW_ERR_MEMORY;
    for (v->first = 0; v->first * v->block < v->in->samples; v->first += BATCH) {
        saw_parallel(v->ctx, BATCH * 3 * v->m, transform_block, v);
        saw_parallel(v->ctx, pairs, add_pair, v);
        if (saw_cancelled(v->ctx))
            return SAW_ERR_CANCELLED;
    }
    saw_parallel(v->ctx, pairs, pair_to_lags, v);
    saw_free(v->ctx, v->spectra);
    saw_free(v->ctx, v->transforms);
    v->spectra = v->transforms = NULL;
    return SAW_OK;
}

/* ---- filters --------------------------------------------------------------------------------- */

/* Least squares filters from `m` reference channels, the first of them `input`, to `outputs`
 * estimated channels from `output` on. */
typedef struct problem {
    const eval *v;
    int input, m, output, outputs;
    int64_t n;     /* m * taps */
    double *scale; /* [m] 1 / norm of a channel */
    double *u;     /* [m][n] of the generator, and v [m][n] behind it */
    double *rows;  /* upper triangle of the factor, row p from its diagonal on */
    double *x;     /* [outputs][n] right sides, then filters, tap by tap */
} problem;

static double lag(const problem *p, int i, int j, int64_t k)
{
    const eval *v = p->v;
    return v->lags[((int64_t)(p->input + i) * 2 * v->m + j) * (2 * v->taps - 1) + k + v->taps - 1];
}

static double *factor_row(const problem *p, int64_t row)
{
    return p->rows + row * p->n - row * (row - 1) / 2;
}

/* u = V^-T (first block row), V'V the first block; v = u without its first block. False when the
 * block is not positive definite. */
static bool make_generator(problem *p, double ridge)
{
    int m = p->m;
    for (int i = 0; i < m; i++) {
        double *row = p->u + i * p->n;
        for (int64_t q = 0; q < p->n; q++) {
            int j = (int)(q % m);
            row[q] = p->scale[i] * p->scale[j] * lag(p, i, p->input + j, -(q / m));
        }
        if (p->scale[i] == 0)
            row[i] = 1; /* a channel without sound is nobody's */
        row[i] += ridge;
        for (int k = 0; k < i; k++) {
            const double *above = p->u + k * p->n;
            double factor = above[i];
            for (int64_t q = 0; q < p->n; q++)
                row[q] -= factor * above[q];
        }
        if (!(row[i] > 0))
            return false;
        double over = 1 / sqrt(row[i]);
        for (int64_t q = 0; q < p->n; q++)
            row[q] = q < i ? 0 : row[q] * over;
    }
    memcpy(p->u + m * p->n, p->u, (size_t)(m * p->n) * sizeof *p->u);
    for (int i = 0; i < m; i++)
        memset(p->u + (m + i) * p->n, 0, (size_t)m * sizeof *p->u);
    return true;
}

/* Turn rows u and v, from column q0 on, so that v[q0] = 0. */
static bool rotate(double *u, double *v, int64_t q0, int64_t n)
{
    double s = v[q0] / u[q0], c2 = (1 - s) * (1 + s);
    if (!(c2 > 0))
        return false;
    double c = sqrt(c2), over = 1 / c;
    for (int64_t q = q0; q < n; q++) {
        u[q] = (u[q] - s * v[q]) * over;
        v[q] = c * v[q] - s * u[q];
    }
    v[q0] = 0;
    return true;
}

/* The factor of G + ridge I, G scaled to ones on its diagonal. False: not positive definite. */
static bool factorize(problem *p, double ridge)
{
    int m = p->m;
    double *u = p->u, *v = p->u + m * p->n;
    if (!make_generator(p, ridge))
        return false;
    for (int64_t block = 0; block < p->n; block += m) {
        for (int i = 0; block && i < m; i++)
            memmove(u + i * p->n + block, u + i * p->n + block - m,
                    (size_t)(p->n - block) * sizeof *u);
        for (int i = 0; block && i < m; i++)
            for (int k = 0; k < m; k++)
                if (!rotate(u + i * p->n, v + k * p->n, block + i, p->n))
                    return false;
        for (int i = 0; i < m; i++)
            memcpy(factor_row(p, block + i), u + i * p->n + block + i,
                   (size_t)(p->n - block - i) * sizeof *u);
    }
    return true;
}

/* Right sides to filters: U'z = x, U x = z. */
static void substitute(problem *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        const double *row = factor_row(p, i);
        for (int o = 0; o < p->outputs; o++) {
            double *x = p->x + o * p->n + i;
            x[0] /= row[0];
            for (int64_t q = 1; q < p->n - i; q++)
                x[q] -= row[q] * x[0];
        }
    }
    for (int64_t i = p->n - 1; i >= 0; i--) {
        const double *row = factor_row(p, i);
        for (int o = 0; o < p->outputs; o++) {
            double *x = p->x + o * p->n + i, sum = 0;
            for (int64_t q = 1; q < p->n - i; q++)
                sum += row[q] * x[q];
            x[0] = (x[0] - sum) / row[0];
        }
    }
}

static saw_status solve(problem *p)
{
    const eval *v = p->v;
    saw_context *ctx = v->ctx;
    p->n = (int64_t)p->m * v->taps;
    p->scale = saw_alloc(ctx, (size_t)p->m * sizeof *p->scale);
    p->u = saw_alloc(ctx, (size_t)(2 * p->m * p->n) * sizeof *p->u);
    p->rows = saw_alloc(ctx, (size_t)(p->n * (p->n + 1) / 2) * sizeof *p->rows);
    p->x = saw_alloc(ctx, (size_t)(p->outputs * p->n) * sizeof *p->x);
    if (!p->scale || !p->u || !p->rows || !p->x)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < p->m; i++) {
        double energy = lag(p, i, p->input + i, 0);
        p->scale[i] = energy > 0 ? 1 / sqrt(energy) : 0;
    }
    /* Signals that do not reach all frequencies, or equal ones, make G singular. */
    double ridge = 0;
    while (!factorize(p, ridge)) {
        ridge = ridge > 0 ? 10 * ridge : 1e-14;
        if (ridge > 1e-3)
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "the references have no filters: their samples are too extreme");
        if (saw_cancelled(ctx))
            return SAW_ERR_CANCELLED;
    }
    for (int o = 0; o < p->outputs; o++)
        for (int64_t q = 0; q < p->n; q++)
            p->x[o * p->n + q] =
                p->scale[q % p->m] * lag(p, (int)(q % p->m), v->m + p->output + o, q / p->m);
    substitute(p);
    for (int o = 0; o < p->outputs; o++)
        for (int64_t q = 0; q < p->n; q++)
            p->x[o * p->n + q] *= p->scale[q % p->m];
    return SAW_OK;
}

/* Spectra of the filters, [output][input]. */
static saw_status find_filters(const eval *v, int input, int m, int output, int outputs,
                               double *spectra)
{
    problem p = {.v = v, .input = input, .m = m, .output = output, .outputs = outputs};
    int64_t size = spectrum_size(v->window), n = saw_stft_get_options(v->window)->n_fft;
    saw_status status = solve(&p);
    double *x = (double *)v->scratch;
    for (int64_t f = 0; !status && f < outputs * m; f++) {
        memset(x, 0, (size_t)n * sizeof *x);
        for (int64_t k = 0; k < v->taps; k++)
            x[k] = p.x[f / m * p.n + k * m + f % m];
        to_spectrum(v->window, x, spectra + f * size, x + n);
    }
    saw_free(v->ctx, p.scale);
    saw_free(v->ctx, p.u);
    saw_free(v->ctx, p.rows);
    saw_free(v->ctx, p.x);
    return status;
}

/* ---- windows --------------------------------------------------------------------------------- */

static double ratio_db(double signal, double error)
{
    return error == 0 ? INFINITY : 10 * log10(signal / error);
}

static bool any_silent(const eval *v, const float *const *signals, int64_t first, int64_t n)
{
    const saw_bss_input *in = v->in;
    for (int s = 0; s < in->sources; s++) {
        const float *channel[in->channels];
        for (int c = 0; c < in->channels; c++)
            channel[c] = signals[s * in->channels + c] + first;
        if (saw_bss_silent(channel, in->channels, n))
            return true;
    }
    return false;
}

/* Energies of one source in one window. */
typedef struct energies {
    double image, own, all; /* s, P, Q */
    double error, spatial, interference, artefacts;
} energies;

static void add_energies(energies *e, const float *reference, const float *estimate, int64_t n,
                         const double *own, const double *all, int64_t length)
{
    for (int64_t i = 0; i < length; i++) {
        double s = i < n ? reference[i] : 0, x = i < n ? estimate[i] : 0;
        e->image += s * s;
        e->error += (x - s) * (x - s);
        if (!own)
            continue;
        e->own += own[i] * own[i];
        e->all += all[i] * all[i];
        e->spatial += (own[i] - s) * (own[i] - s);
        e->interference += (all[i] - own[i]) * (all[i] - own[i]);
        e->artefacts += (x - all[i]) * (x - all[i]);
    }
}

/* The scratch holds two buffers of samples, that of the transform, and m + 1 spectra. */
static void score_window(void *arg, int64_t item, int thread)
{
    eval *v = arg;
    const saw_bss_input *in = v->in;
    int64_t first = item * in->window_samples, left = in->samples - first,
            n = left < in->window_samples ? left : in->window_samples;
    int64_t size = v->taps ? spectrum_size(v->window) : 0, length = v->taps ? n + v->taps - 1 : n,
            samples = v->taps ? saw_stft_get_options(v->window)->n_fft : 0;
    double *own = (double *)(v->scratch + (size_t)thread * v->scratch_bytes), *all = own + samples;
    double *fft = all + samples,
           *sum = fft + (v->taps ? saw_stft_scratch_bytes(v->window, SAW_F64) / sizeof *fft : 0),
           *spectra = sum + size;
    bool silent = any_silent(v, in->reference, first, n) || any_silent(v, in->estimate, first, n);
    for (int i = 0; v->taps && !silent && i < v->m; i++) {
        memset(own, 0, (size_t)samples * sizeof *own);
        load(in->reference[i], in->samples, first, n, own);
        to_spectrum(v->window, own, spectra + i * size, fft);
    }
    for (int s = 0; s < in->sources; s++) {
        energies e = {0};
        saw_bss_ratios *out = &v->out[s * v->windows + item];
        *out = (saw_bss_ratios){NAN, NAN, NAN, NAN};
        for (int c = 0; !silent && c < in->channels; c++) {
            int64_t o = s * in->channels + c;
            if (v->taps) {
                memset(sum, 0, (size_t)size * sizeof *sum);
                for (int64_t i = 0; i < in->channels; i++)
                    add_product(sum, spectra + (s * in->channels + i) * size,
                                v->own + (o * in->channels + i) * size, size / 2, false);
                to_samples(v->window, sum, own, fft);
                memset(sum, 0, (size_t)size * sizeof *sum);
                for (int64_t i = 0; i < v->m; i++)
                    add_product(sum, spectra + i * size, v->all + (o * v->m + i) * size, size / 2,
                                false);
                to_samples(v->window, sum, all, fft);
            }
            add_energies(&e, in->reference[o] + first, in->estimate[o] + first, n,
                         v->taps ? own : NULL, all, length);
        }
        if (silent)
            continue;
        out->sdr_db = ratio_db(e.image, e.error);
        if (v->taps) {
            out->isr_db = ratio_db(e.image, e.spatial);
            out->sir_db = ratio_db(e.own, e.interference);
            out->sar_db = ratio_db(e.all, e.artefacts);
        }
    }
}

/* ---- the evaluation -------------------------------------------------------------------------- */

/* The smallest length from `least` on that has no prime factors above 7 and keeps what lies behind
 * so many doubles on a boundary of 64 bytes. */
static int good_length(int least)
{
    static const int primes[] = {2, 3, 5, 7};
    for (int n = (least + 7) / 8 * 8;; n += 8) {
        int rest = n;
        for (size_t i = 0; i < sizeof primes / sizeof *primes; i++)
            while (rest % primes[i] == 0)
                rest /= primes[i];
        if (rest == 1)
            return n;
    }
}

static saw_status check(saw_context *ctx, const saw_bss_input *in)
{
    if (in->sources < 1 || in->channels < 1 || (int64_t)in->sources * in->channels > 64 ||
        in->samples < 1 || in->window_samples < 1 || in->taps < 0 || in->taps > FRAME / 4 ||
        in->window_samples > (1 << 20) - 2 * FRAME)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "BSSEval of %d sources of %d channels in windows of %d samples with "
                        "filters of %d taps makes no sense: at most 64 channels, 2048 taps and "
                        "windows of a million samples are possible",
                        in->sources, in->channels, in->window_samples, in->taps);
    for (int s = 0; s < in->sources; s++) {
        const float *const *r = in->reference + s * in->channels, *const *e = in->estimate +
                                                                              s * in->channels;
        bool silent = saw_bss_silent(r, in->channels, in->samples);
        if (silent || saw_bss_silent(e, in->channels, in->samples))
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "the %s of source %d is silent: BSSEval has no value for it, leave it "
                            "out",
                            silent ? "reference" : "estimate", s + 1);
    }
    return SAW_OK;
}

static saw_status prepare_filters(eval *v)
{
    const saw_bss_input *in = v->in;
    int channels = in->channels;
    int length =
        saw_bss_windows(in->samples, in->window_samples) == 1 && in->samples < in->window_samples
            ? (int)in->samples
            : in->window_samples;
    saw_status status = open_transform(v->ctx, FRAME, &v->frame);
    if (!status)
        status = open_transform(v->ctx, good_length(length + v->taps - 1), &v->window);
    if (status)
        return status;
    int64_t size = spectrum_size(v->window), n = saw_stft_get_options(v->window)->n_fft;
    size_t in_correlations = FRAME * sizeof(double) + saw_stft_scratch_bytes(v->frame, SAW_F64),
           in_windows = (size_t)((v->m + 1) * size + 2 * n) * sizeof(double) +
                        saw_stft_scratch_bytes(v->window, SAW_F64);
    v->scratch_bytes = in_correlations > in_windows ? in_correlations : in_windows;
    v->scratch_bytes = (v->scratch_bytes + 63) / 64 * 64;
    v->scratch = saw_calloc(v->ctx, (size_t)saw_threads(v->ctx), v->scratch_bytes);
    v->all = saw_calloc(v->ctx, (size_t)(v->m * v->m * size), sizeof *v->all);
    v->own = saw_calloc(v->ctx, (size_t)(v->m * channels * size), sizeof *v->own);
    if (!v->scratch || !v->all || !v->own)
        return SAW_ERR_MEMORY;
    status = correlate(v);
    if (!status)
        status = find_filters(v, 0, v->m, 0, v->m, v->all);
    for (int s = 0; s < in->sources && !status; s++)
        status = find_filters(v, s * channels, channels, s * channels, channels,
                              v->own + (int64_t)s * channels * channels * size);
    return status;
}

saw_status saw_bss_eval(saw_context *ctx, const saw_bss_input *in, saw_bss_ratios *out)
{
    saw_status status = check(ctx, in);
    if (status)
        return status;
    eval v = {.ctx = ctx,
              .in = in,
              .m = in->sources * in->channels,
              .taps = in->taps,
              .out = out,
              .windows = saw_bss_windows(in->samples, in->window_samples)};
    if (in->taps)
        status = prepare_filters(&v);
    if (!status) {
        saw_parallel(ctx, v.windows, score_window, &v);
        if (saw_cancelled(ctx))
            status = SAW_ERR_CANCELLED;
    }
    saw_free(ctx, v.spectra);
    saw_free(ctx, v.transforms);
    saw_free(ctx, v.lags);
    saw_free(ctx, v.all);
    saw_free(ctx, v.own);
    saw_free(ctx, v.scratch);
    saw_stft_close(v.frame);
    saw_stft_close(v.window);
    return status;
}
