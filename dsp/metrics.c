#include "dsp/metrics.h"

#include "dsp/stft.h"

#include <math.h>
#include <string.h>

void saw_sdr_add(saw_sdr_sums *s, const float *reference, const float *estimate, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double r = reference[i], e = estimate[i];
        s->reference += r * r;
        s->estimate += e * e;
        s->product += r * e;
        s->error += (r - e) * (r - e);
    }
}

double saw_sdr_db(const saw_sdr_sums *s, double epsilon)
{
    if (s->error == 0 && epsilon == 0)
        return INFINITY;
    return 10 * log10((s->reference + epsilon) / (s->error + epsilon));
}

double saw_si_sdr_db(const saw_sdr_sums *s)
{
    double target = s->product * s->product / s->reference; /* sum (a r)^2 */
    double error = s->estimate - target;
    if (target == 0)
        return NAN;
    return 10 * log10(target / (error < 0 ? 0 : error));
}

/* ---- scores of spectra ----------------------------------------------------------------------- */

enum { BLOCK = 32, HOP = 1024, MELS = 512, LARGEST_NFFT = 4096 };

/* A mel band: weights of bins from `first` on. */
typedef struct mel_band {
    int first, width;
    const double *weight;
} mel_band;

typedef struct block_sums {
    double more, less;
    int64_t more_count, less_count;
} block_sums;

typedef struct scoring {
    const saw_signals *s;
    saw_stft *stft;
    saw_stft_pad pad;
    const mel_band *mel;
    double floor_db[2]; /* of reference and estimate */
    int64_t frames, blocks;
    unsigned char *scratch; /* [threads][scratch_bytes] */
    size_t scratch_bytes;
    double *largest;  /* [blocks][2] mel magnitude of reference and estimate */
    block_sums *sums; /* [blocks] */
} scoring;

/* Where sample i of a centred frame lies; -1: it is zero. */
static int64_t source(const scoring *g, int64_t i)
{
    if (i >= 0 && i < g->s->samples)
        return i;
    if (g->pad == SAW_STFT_ZEROS)
        return -1;
    return i < 0 ? -i : 2 * (g->s->samples - 1) - i;
}

/* Magnitudes [frames of the block][bins] of one channel. */
static void magnitudes(const scoring *g, const float *x, int64_t first, int64_t n, double *out,
                       double *samples, double *spectrum, void *fft)
{
    int n_fft = saw_stft_get_options(g->stft)->n_fft;
    int64_t bins = saw_stft_bins(g->stft), length = (n - 1) * HOP + n_fft;
    for (int64_t i = 0; i < length; i++) {
        int64_t at = source(g, first * HOP + i - n_fft / 2);
        samples[i] = at < 0 ? 0 : x[at];
    }
    for (int64_t t = 0; t < n; t++) {
        saw_stft64_forward(g->stft, samples, length, t, 1, spectrum, 0, 2, fft);
        for (int64_t k = 0; k < bins; k++)
            out[t * bins + k] =
                sqrt(spectrum[2 * k] * spectrum[2 * k] + spectrum[2 * k + 1] * spectrum[2 * k + 1]);
    }
}

static double mel_value(const mel_band *band, const double *magnitude)
{
    double sum = 0;
    for (int k = 0; k < band->width; k++)
        sum += band->weight[k] * magnitude[band->first + k];
    return sum;
}

static void add_difference(block_sums *sums, double d)
{
    if (d > 0) {
        sums->more += d;
        sums->more_count++;
    } else if (d < 0) {
        sums->less += d;
        sums->less_count++;
    }
}

static double decibels(double magnitude, double floor_db)
{
    return fmax(20 * log10(fmax(magnitude, 1e-10)), floor_db);
}

/* A block of frames: the largest mel values (when g->sums is NULL), or the differences. */
static void score_block(void *arg, int64_t item, int thread)
{
    scoring *g = arg;
    int64_t bins = saw_stft_bins(g->stft), first = item * BLOCK,
            n = g->frames - first < BLOCK ? g->frames - first : BLOCK;
    unsigned char *scratch = g->scratch + (size_t)thread * g->scratch_bytes;
    double *samples = (double *)(scratch + saw_stft_scratch_bytes(g->stft, SAW_F64)),
           *spectrum = samples + (BLOCK - 1) * HOP + LARGEST_NFFT, *r = spectrum + 2 * bins,
           *e = r + BLOCK * bins;
    block_sums sums = {0};
    double largest[2] = {0};
    for (int c = 0; c < g->s->channels; c++) {
        magnitudes(g, g->s->reference[c], first, n, r, samples, spectrum, scratch);
        magnitudes(g, g->s->estimate[c], first, n, e, samples, spectrum, scratch);
        for (int64_t i = 0; !g->mel && i < n * bins; i++)
            add_difference(&sums, e[i] - r[i]);
        for (int64_t i = 0; g->mel && i < n * MELS; i++) {
            const mel_band *band = &g->mel[i % MELS];
            double of_r = mel_value(band, r + i / MELS * bins),
                   of_e = mel_value(band, e + i / MELS * bins);
            if (g->sums) {
                add_difference(&sums,
                               decibels(of_e, g->floor_db[1]) - decibels(of_r, g->floor_db[0]));
            } else {
                largest[0] = fmax(largest[0], of_r);
                largest[1] = fmax(largest[1], of_e);
            }
        }
    }
    if (g->sums)
        g->sums[item] = sums;
    else
        memcpy(g->largest + 2 * item, largest, sizeof largest);
}

static saw_status open_scoring(saw_context *ctx, const saw_signals *s, const saw_stft_options *o,
                               scoring *g)
{
    *g = (scoring){.s = s, .pad = o->pad}; /* the padding is done where samples are taken */
    saw_status status = saw_stft_open(ctx, o, &g->stft);
    if (status)
        return status;
    if (o->pad == SAW_STFT_REFLECT && s->samples <= o->n_fft / 2)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "%lld samples are too few for this score: more than %d are needed",
                        (long long)s->samples, o->n_fft / 2);
    g->frames = 1 + s->samples / HOP;
    g->blocks = (g->frames + BLOCK - 1) / BLOCK;
    size_t bins = (size_t)saw_stft_bins(g->stft);
    g->scratch_bytes = saw_stft_scratch_bytes(g->stft, SAW_F64) +
                       ((BLOCK - 1) * HOP + LARGEST_NFFT + (2 + 2 * BLOCK) * bins) * sizeof(double);
    g->scratch_bytes = (g->scratch_bytes + 63) / 64 * 64;
    g->scratch = saw_calloc(ctx, (size_t)saw_threads(ctx), g->scratch_bytes);
    g->largest = saw_calloc(ctx, (size_t)g->blocks * 2, sizeof *g->largest);
    return g->scratch && g->largest ? SAW_OK : SAW_ERR_MEMORY;
}

static void close_scoring(saw_context *ctx, scoring *g)
{
    saw_stft_close(g->stft);
    saw_free(ctx, g->scratch);
    saw_free(ctx, g->largest);
    saw_free(ctx, g->sums);
}

/* The differences of all frames. */
static saw_status sum_differences(saw_context *ctx, scoring *g, block_sums *out)
{
    *out = (block_sums){0};
    g->sums = saw_calloc(ctx, (size_t)g->blocks, sizeof *g->sums);
    if (!g->sums)
        return SAW_ERR_MEMORY;
    saw_parallel(ctx, g->blocks, score_block, g);
    for (int64_t b = 0; b < g->blocks; b++) {
        out->more += g->sums[b].more;
        out->less += g->sums[b].less;
        out->more_count += g->sums[b].more_count;
        out->less_count += g->sums[b].less_count;
    }
    return saw_cancelled(ctx) ? SAW_ERR_CANCELLED : SAW_OK;
}

saw_status saw_l1_freq(saw_context *ctx, const saw_signals *s, double *score)
{
    scoring g;
    block_sums d;
    saw_status status = open_scoring(
        ctx, s,
        &(saw_stft_options){
            .n_fft = 2048, .hop = HOP, .pad = SAW_STFT_REFLECT, .window = SAW_WINDOW_ONES},
        &g);
    if (!status)
        status = sum_differences(ctx, &g, &d);
    if (!status) {
        double count = (double)(s->channels * g.frames * saw_stft_bins(g.stft));
        *score = 100 / (1 + 10 * (d.more - d.less) / count);
    }
    close_scoring(ctx, &g);
    return status;
}

static double mel_to_hz(double mel)
{
    return mel < 15 ? mel * 200 / 3 : 1000 * exp((mel - 15) * log(6.4) / 27);
}

/* Triangles of area 1 (in Hz) between neighbours of 514 points at equal steps of mel from 0 to
 * 22050 Hz; a bin is in two bands at most. */
static void make_mel(mel_band *band, double *weight)
{
    const double rate_hz = 44100;
    double step = (15 + log(rate_hz / 2 / 1000) * 27 / log(6.4)) / (MELS + 1);
    for (int b = 0; b < MELS; b++) {
        double low = mel_to_hz(step * b), middle = mel_to_hz(step * (b + 1)),
               high = mel_to_hz(step * (b + 2));
        band[b] = (mel_band){.weight = weight};
        for (int k = 0; k <= LARGEST_NFFT / 2; k++) {
            double hz = k * rate_hz / LARGEST_NFFT;
            double w = fmin((hz - low) / (middle - low), (high - hz) / (high - middle));
            if (w <= 0)
                continue;
            if (!band[b].width++)
                band[b].first = k;
            *weight++ = w * 2 / (high - low);
        }
    }
}

saw_status saw_bleed_full(saw_context *ctx, const saw_signals *s, double *bleedless,
                          double *fullness)
{
    scoring g;
    block_sums d;
    saw_status status = open_scoring(
        ctx, s,
        &(saw_stft_options){
            .n_fft = LARGEST_NFFT, .hop = HOP, .pad = SAW_STFT_ZEROS, .window = SAW_WINDOW_HANN},
        &g);
    mel_band *mel = saw_calloc(ctx, MELS, sizeof *mel);
    double *weight = saw_calloc(ctx, LARGEST_NFFT + 2, sizeof *weight);
    if (!status && (!mel || !weight))
        status = SAW_ERR_MEMORY;
    if (!status) {
        make_mel(mel, weight);
        g.mel = mel;
        saw_parallel(ctx, g.blocks, score_block, &g);
        for (int i = 0; i < 2; i++) {
            double largest = 0;
            for (int64_t b = 0; b < g.blocks; b++)
                largest = fmax(largest, g.largest[2 * b + i]);
            g.floor_db[i] = decibels(largest, -INFINITY) - 80;
        }
        status = saw_cancelled(ctx) ? SAW_ERR_CANCELLED : sum_differences(ctx, &g, &d);
    }
    if (!status) {
        *bleedless = 100 / (1 + (d.more_count ? d.more / (double)d.more_count : 0));
        *fullness = 100 / (1 - (d.less_count ? d.less / (double)d.less_count : 0));
    }
    close_scoring(ctx, &g);
    saw_free(ctx, mel);
    saw_free(ctx, weight);
    return status;
}
