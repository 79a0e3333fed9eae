/*
 * stft.c - plans and sizes; the transforms themselves are in stft_real.inc, compiled for float and
 * for double.
 *
 * The normalisation is folded into two copies of the window, one for analysis (w * norm) and one
 * for synthesis (w / (norm n_fft)). The window sum of the inverse has period hop away from the
 * ends: one period is kept, and the few samples that fewer frames reach are summed when they are
 * needed.
 */
#include "dsp/stft.h"

#include <assert.h>
#include <fftw3.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { LARGEST_NFFT = 1 << 20, ALIGN_BYTES = 64 };

struct saw_stft {
    saw_context *ctx;
    saw_stft_options o;
    int64_t pad;                      /* P */
    double *square;                   /* [n_fft] w^2 */
    double *rest;                     /* [hop] 1 / window sum where all frames reach */
    float *analysis, *synthesis;      /* [n_fft] */
    double *analysis64, *synthesis64; /* [n_fft] */
    fftwf_plan r2c, c2r;
    fftw_plan r2c64, c2r64;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Frames [first, last) whose window covers padded sample p, were there frames without end. */
static int64_t first_frame(const saw_stft *s, int64_t p)
{
    return p < s->o.n_fft ? 0 : (p - s->o.n_fft) / s->o.hop + 1;
}

static int64_t last_frame(const saw_stft *s, int64_t p)
{
    return p / s->o.hop + 1;
}

/* 1 / (sum of w^2 over frames [t0, t1) at padded sample p). */
static double over_window_sum(const saw_stft *s, int64_t p, int64_t t0, int64_t t1)
{
    double sum = 0;
    for (int64_t t = t0; t < t1; t++)
        sum += s->square[p - t * s->o.hop];
    return sum < 1e-11 ? 0 : 1 / sum;
}

/* The factor of padded sample p in an inverse of `frames` frames; phase is p mod hop. */
static double inverse_factor(const saw_stft *s, int64_t p, int64_t phase, int64_t frames)
{
    if (p >= s->o.n_fft - 1 && p < frames * s->o.hop)
        return s->rest[phase];
    return over_window_sum(s, p, first_frame(s, p), least(last_frame(s, p), frames));
}

/* Where padded sample p lies in the signal; -1: it is zero. */
static int64_t source_of(const saw_stft *s, int64_t p, int64_t samples)
{
    int64_t i = p - s->pad;
    if (i >= 0 && i < samples)
        return i;
    if (s->o.pad == SAW_STFT_ZEROS)
        return -1;
    return i < 0 ? -i : 2 * (samples - 1) - i;
}

static size_t frame_bytes(const saw_stft *s, size_t real_bytes)
{
    /* holds n_fft samples or n_fft / 2 + 1 pairs */
    size_t n = ((size_t)s->o.n_fft + 2) * real_bytes;
    return (n + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

#define real     float
#define NAME(f)  saw_stft_##f
#define TABLE(t) t
#define FFTW(f)  fftwf_##f
#define LOCAL(f) f##_32
#include "dsp/stft_real.inc"
#undef real
#undef NAME
#undef TABLE
#undef FFTW
#undef LOCAL

#define real     double
#define NAME(f)  saw_stft64_##f
#define TABLE(t) t##64
#define FFTW(f)  fftw_##f
#define LOCAL(f) f##_64
#include "dsp/stft_real.inc"

/* ---- plan ------------------------------------------------------------------------------------ */

/* FFTW's planner is not safe for threads; everything else of it is. */
static pthread_mutex_t planner_lock = PTHREAD_MUTEX_INITIALIZER;

static void close_plans(saw_stft *s)
{
    pthread_mutex_lock(&planner_lock);
    if (s->r2c)
        fftwf_destroy_plan(s->r2c);
    if (s->c2r)
        fftwf_destroy_plan(s->c2r);
    if (s->r2c64)
        fftw_destroy_plan(s->r2c64);
    if (s->c2r64)
        fftw_destroy_plan(s->c2r64);
    pthread_mutex_unlock(&planner_lock);
}

static bool open_plans(saw_stft *s, void *scratch)
{
    int n = s->o.n_fft;
    void *time = scratch, *bins = (char *)scratch + frame_bytes(s, sizeof(double));
    unsigned flags =
        FFTW_ESTIMATE | FFTW_DESTROY_INPUT; /* measuring would make bits depend on the day */
    pthread_mutex_lock(&planner_lock);
    s->r2c = fftwf_plan_dft_r2c_1d(n, time, bins, flags);
    s->c2r = fftwf_plan_dft_c2r_1d(n, bins, time, flags);
    s->r2c64 = fftw_plan_dft_r2c_1d(n, time, bins, flags);
    s->c2r64 = fftw_plan_dft_c2r_1d(n, bins, time, flags);
    pthread_mutex_unlock(&planner_lock);
    return s->r2c && s->c2r && s->r2c64 && s->c2r64;
}

static void fill_tables(saw_stft *s)
{
    int n = s->o.n_fft;
    double *w = s->analysis64, energy = 0, norm = 1;
    saw_window(s->o.window, s->o.win_length, n, w);
    for (int i = 0; i < n; i++)
        energy += s->square[i] = w[i] * w[i];
    if (s->o.norm == SAW_STFT_NORM_SQRT_NFFT)
        norm = 1 / sqrt(n);
    else if (s->o.norm == SAW_STFT_NORM_WINDOW)
        norm = 1 / sqrt(energy);
    for (int i = 0; i < n; i++) {
        s->synthesis64[i] = w[i] / (norm * n);
        s->analysis64[i] = w[i] * norm;
        s->synthesis[i] = (float)s->synthesis64[i];
        s->analysis[i] = (float)s->analysis64[i];
    }
    for (int r = 0; r < s->o.hop; r++) {
        int64_t p =
            r + (int64_t)(n / s->o.hop + 1) * s->o.hop; /* where no frame is missing on the left */
        s->rest[r] = over_window_sum(s, p, first_frame(s, p), last_frame(s, p));
    }
}

saw_status saw_stft_open(saw_context *ctx, const saw_stft_options *options, saw_stft **out)
{
    saw_stft_options o = *options;
    *out = NULL;
    if (!o.win_length)
        o.win_length = o.n_fft;
    if (o.n_fft > LARGEST_NFFT || o.win_length < 2 || o.win_length > o.n_fft || o.hop < 1 ||
        o.hop > LARGEST_NFFT)
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "STFT with n_fft %d, win_length %d, hop %d: need 2 <= win_length <= n_fft <= %d and "
            "1 <= hop <= %d",
            o.n_fft, o.win_length, o.hop, LARGEST_NFFT, LARGEST_NFFT);
    saw_stft *s = saw_calloc(ctx, 1, sizeof *s);
    if (!s)
        return SAW_ERR_MEMORY;
    s->ctx = ctx;
    s->o = o;
    s->pad = o.center ? o.n_fft / 2 : 0;
    size_t n = (size_t)o.n_fft;
    s->square = saw_calloc(ctx, 3 * n + (size_t)o.hop, sizeof(double));
    s->analysis = saw_calloc(ctx, 2 * n, sizeof(float));
    void *scratch = saw_alloc(ctx, saw_stft_scratch_bytes(s, SAW_F64));
    saw_status status = SAW_ERR_MEMORY;
    if (s->square && s->analysis && scratch) {
        s->analysis64 = s->square + n;
        s->synthesis64 = s->analysis64 + n;
        s->rest = s->synthesis64 + n;
        s->synthesis = s->analysis + n;
        fill_tables(s);
        status = open_plans(s, scratch)
                     ? SAW_OK
                     : saw_fail(ctx, SAW_ERR_UNSUPPORTED, "FFTW has no plan for n_fft %d", o.n_fft);
    }
    saw_free(ctx, scratch);
    if (status)
        saw_stft_close(s);
    else
        *out = s;
    return status;
}

void saw_stft_close(saw_stft *s)
{
    if (!s)
        return;
    close_plans(s);
    saw_free(s->ctx, s->square);
    saw_free(s->ctx, s->analysis);
    saw_free(s->ctx, s);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

const saw_stft_options *saw_stft_get_options(const saw_stft *s)
{
    return &s->o;
}

int64_t saw_stft_bins(const saw_stft *s)
{
    return s->o.n_fft / 2 + 1;
}

int64_t saw_stft_frames(const saw_stft *s, int64_t samples)
{
    int64_t room = samples + 2 * s->pad - s->o.n_fft;
    return room < 0 || samples < 1 ? 0 : 1 + room / s->o.hop;
}

int64_t saw_stft_samples(const saw_stft *s, int64_t frames)
{
    return frames < 1 ? 0 : most(0, s->o.n_fft - 2 * s->pad + s->o.hop * (frames - 1));
}

saw_status saw_stft_check(saw_context *ctx, const saw_stft *s, int64_t samples)
{
    bool reflect = s->pad && s->o.pad == SAW_STFT_REFLECT;
    if (reflect && samples <= s->pad)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "%lld samples are too few for an STFT with n_fft %d and reflect padding: "
                        "give more than "
                        "%lld",
                        (long long)samples, s->o.n_fft, (long long)s->pad);
    if (saw_stft_frames(s, samples) < 1)
        return saw_fail(ctx, SAW_ERR_SHAPE, "%lld samples are too few for one STFT frame of %d",
                        (long long)samples, s->o.n_fft);
    return SAW_OK;
}

void saw_stft_frames_over(const saw_stft *s, int64_t samples, int64_t sample0, int64_t n,
                          int64_t *first, int64_t *end)
{
    int64_t last = sample0 + n - 1, frames = saw_stft_frames(s, samples);
    bool reflect = s->pad && s->o.pad == SAW_STFT_REFLECT; /* samples near an end have images */
    *first = reflect && sample0 <= s->pad ? 0 : first_frame(s, sample0 + s->pad);
    *end = reflect && last >= samples - 1 - s->pad ? frames
                                                   : least(frames, last_frame(s, last + s->pad));
}

size_t saw_stft_scratch_bytes(const saw_stft *s, saw_dtype dtype)
{
    return 2 * frame_bytes(s, saw_dtype_bytes(dtype));
}
