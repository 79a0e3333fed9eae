/*
 * test_stft.c - the transform against torch and torchaudio (golden data), and by its properties:
 * linear pairs are adjoint, the inverse restores, ranges give the bits of the whole, float agrees
 * with double.
 */
#include "support/formula.h"
#include "support/npy.h"
#include "support/test.h"

#include "dsp/stft.h"

#include <math.h>
#include <stdlib.h>

enum { CHANNELS = 2, RATE = 44100, SAMPLES = 6000, PROBES = 64 };

typedef struct setting {
    const char *name;
    saw_stft_options o;
} setting;

#define HANN SAW_WINDOW_HANN
static const setting golden_settings[] = {
    {"c0", {2048, 441, 2048, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"c1", {2048, 512, 2048, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"c2", {2048, 512, 2048, true, SAW_STFT_REFLECT, SAW_STFT_NORM_SQRT_NFFT, HANN}},
    {"c3", {1024, 256, 800, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"c4", {512, 160, 512, true, SAW_STFT_ZEROS, SAW_STFT_NORM_NONE, HANN}},
    {"c5", {4096, 1024, 4096, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"c6", {1024, 256, 800, true, SAW_STFT_REFLECT, SAW_STFT_NORM_SQRT_NFFT, HANN}},
    {"c7", {1024, 256, 1024, true, SAW_STFT_REFLECT, SAW_STFT_NORM_SQRT_NFFT, SAW_WINDOW_ONES}},
    {"c8", {512, 128, 512, false, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"ta_const", {1024, 256, 1024, true, SAW_STFT_ZEROS, SAW_STFT_NORM_WINDOW, HANN}},
    {"ta_reflect", {1024, 256, 1024, true, SAW_STFT_REFLECT, SAW_STFT_NORM_WINDOW, HANN}},
};
/* Lengths that are no power of two, an odd one, a hop that leaves gaps, zeros and no centre. */
static const setting other_settings[] = {
    {"510", {510, 100, 510, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"882", {882, 441, 882, true, SAW_STFT_REFLECT, SAW_STFT_NORM_SQRT_NFFT, HANN}},
    {"1534", {1534, 512, 1200, true, SAW_STFT_REFLECT, SAW_STFT_NORM_WINDOW, HANN}},
    {"135", {135, 20, 120, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, HANN}},
    {"64 sparse", {64, 100, 64, true, SAW_STFT_ZEROS, SAW_STFT_NORM_NONE, SAW_WINDOW_ONES}},
    {"256 plain", {256, 64, 200, false, SAW_STFT_ZEROS, SAW_STFT_NORM_NONE, HANN}},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static saw_context *ctx;

static int open_context(void **state)
{
    (void)state;
    return saw_context_open(&ctx, NULL);
}

static int close_context(void **state)
{
    (void)state;
    saw_context_close(ctx);
    return 0;
}

static saw_stft *open_stft(const saw_stft_options *o)
{
    saw_stft *s;
    assert_int_equal(saw_stft_open(ctx, o, &s), SAW_OK);
    return s;
}

static void *room(size_t count, size_t size)
{
    void *p = saw_calloc(ctx, count, size);
    assert_non_null(p);
    return p;
}

/* count values of a name, as float and as double. */
static void values(const char *name, int64_t count, float **f, double **d)
{
    *f = room((size_t)count, sizeof **f);
    *d = room((size_t)count, sizeof **d);
    for (int64_t i = 0; i < count; i++)
        (*d)[i] = (*f)[i] = (float)test_value(name, i);
}

static double distance(const double *got, const double *want, int64_t n)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    return size > 0 ? sqrt(error / size) : sqrt(error);
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- golden ---------------------------------------------------------------------------------- */

/* Hold values (in C order of the golden layout) against row `row` of <what>, <what>_l2 and
 * <what>_probe. */
static void hold(npz *z, const setting *c, const char *what, int row, const double *got, int64_t n,
                 double tolerance)
{
    char name[64];
    double picked[PROBES], size = sqrt(dot(got, got, n)), probe = 0;
    for (int j = 0; j < PROBES; j++)
        picked[j] = got[j * (n - 1) / (PROBES - 1)];
    snprintf(name, sizeof name, "probe.%s.%s", c->name, what);
    for (int64_t i = 0; i < n; i++)
        probe += got[i] * test_value(name, i);
    double off = distance(picked, npy_f64(npz_get(z, what)) + row * PROBES, PROBES);
    snprintf(name, sizeof name, "%s_l2", what);
    double want_size = npy_f64(npz_get(z, name))[row];
    snprintf(name, sizeof name, "%s_probe", what);
    double want_probe = npy_f64(npz_get(z, name))[row];
    double size_off = fabs(size - want_size) / want_size,
           probe_off = fabs(probe - want_probe) / want_size;
    if (!(off < tolerance && size_off < tolerance && probe_off < tolerance))
        fail_msg("%s %s: values off by %g, size by %g, probe by %g (allowed %g)", c->name, what,
                 off, size_off, probe_off, tolerance);
}

/* [T,K,C,2] -> [C,K,T,2], the golden layout. */
static double *golden_layout(const double *spec, int64_t frames, int64_t bins)
{
    double *out = room((size_t)(CHANNELS * bins * frames * 2), sizeof *out);
    for (int64_t t = 0; t < frames; t++)
        for (int64_t k = 0; k < bins; k++)
            for (int64_t c = 0; c < CHANNELS; c++)
                for (int64_t r = 0; r < 2; r++)
                    out[((c * bins + k) * frames + t) * 2 + r] =
                        spec[((t * bins + k) * CHANNELS + c) * 2 + r];
    return out;
}

static void test_compact(void **state)
{
    (void)state;
    npz *z = npz_open(SAW_TEST_GOLDEN "/dsp/golden.npz");
    assert_non_null(z);
    for (int row = 0; row < (int)COUNT(golden_settings); row++) {
        const setting *c = &golden_settings[row];
        saw_stft *s = open_stft(&c->o);
        int64_t bins = saw_stft_bins(s), frames = saw_stft_frames(s, SAMPLES),
                stride = bins * CHANNELS * 2;
        int64_t count = frames * stride, most = saw_stft_samples(s, frames);
        assert_int_equal(saw_stft_check(ctx, s, SAMPLES), SAW_OK);
        void *scratch = room(1, saw_stft_scratch_bytes(s, SAW_F64));
        double *x = room(SAMPLES, sizeof *x), *spec = room((size_t)count, sizeof *spec);
        double *back = room(CHANNELS * SAMPLES, sizeof *back);
        float *x32 = room(SAMPLES, sizeof *x32), *spec32 = room((size_t)count, sizeof *spec32);
        float *back32 = room(SAMPLES, sizeof *back32);
        double *widened = room((size_t)count, sizeof *widened),
               *wide_back = room(CHANNELS * SAMPLES, 8);

        for (int ch = 0; ch < CHANNELS; ch++) {
            for (int i = 0; i < SAMPLES; i++)
                x[i] = x32[i] = test_input("", ch, i, RATE);
            saw_stft64_forward(s, x, SAMPLES, 0, frames, spec + 2 * ch, stride, 2 * CHANNELS,
                               scratch);
            saw_stft_forward(s, x32, SAMPLES, 0, frames, spec32 + 2 * ch, stride, 2 * CHANNELS,
                             scratch);
        }
        for (int64_t i = 0; i < count; i++)
            widened[i] = spec32[i];
        double *got = golden_layout(spec, frames, bins),
               *got32 = golden_layout(widened, frames, bins);
        hold(z, c, "stft", row, got, count, 1e-12);
        hold(z, c, "stft", row, got32, count, 2e-6);
        saw_free(ctx, got);
        saw_free(ctx, got32);

        char mask[32];
        snprintf(mask, sizeof mask, "mask.%s", c->name);
        for (int64_t t = 0; t < frames; t++)
            for (int64_t k = 0; k < bins; k++)
                for (int64_t ch = 0; ch < CHANNELS; ch++) {
                    int64_t at = ((ch * bins + k) * frames + t) * 2;
                    double *v = spec + ((t * bins + k) * CHANNELS + ch) * 2, re = v[0], im = v[1];
                    double mr = (float)test_value(mask, at), mi = (float)test_value(mask, at + 1);
                    v[0] = re * mr - im * mi;
                    v[1] = re * mi + im * mr;
                }
        for (int64_t i = 0; i < count; i++)
            spec32[i] = (float)spec[i];
        for (int pass = 0; c->o.center && pass < 2; pass++) {
            int64_t length = pass ? SAMPLES : most;
            for (int ch = 0; ch < CHANNELS; ch++) {
                saw_stft64_inverse(s, spec + 2 * ch, frames, stride, 2 * CHANNELS, 0, length,
                                   back + ch * length, scratch);
                saw_stft_inverse(s, spec32 + 2 * ch, frames, stride, 2 * CHANNELS, 0, length,
                                 back32, scratch);
                for (int64_t i = 0; i < length; i++)
                    wide_back[ch * length + i] = back32[i];
            }
            const char *what = pass ? "istft_length" : "istft_nolength";
            hold(z, c, what, row, back, CHANNELS * length, 1e-12);
            hold(z, c, what, row, wide_back, CHANNELS * length, 2e-6);
        }
        void *all[] = {scratch, x, spec, back, x32, spec32, back32, widened, wide_back};
        for (size_t i = 0; i < COUNT(all); i++)
            saw_free(ctx, all[i]);
        saw_stft_close(s);
    }
    npz_close(z);
}

/* The large set: torch 1.13 in float32, whole arrays, complex64 (channel, bin, frame). Its input is
   the float32 round trip of c0, whose own error is below 2e-7. */
static void test_large(void **state)
{
    (void)state;
    if (!*SAW_GOLDEN_DIR) {
        print_message("skipped: 8 cases (no SAW_GOLDEN_DIR)\n");
        skip();
    }
    npz *z = npz_open(SAW_GOLDEN_DIR "/dsp_stft/stft.npz");
    assert_non_null(z);
    const float *input = npy_f32(npz_get(z, "c0_roundtrip"));
    int cases = 0;
    for (size_t row = 0; row < COUNT(golden_settings); row++) {
        const setting *c = &golden_settings[row];
        char name[64];
        snprintf(name, sizeof name, "%s_stft", c->name);
        npy *want = npz_get(z, name);
        if (!want)
            continue;
        cases++;
        saw_stft *s = open_stft(&c->o);
        int64_t bins = saw_stft_bins(s), frames = saw_stft_frames(s, SAMPLES);
        assert_int_equal(want->dims[1], bins);
        assert_int_equal(want->dims[2], frames);
        void *scratch = room(1, saw_stft_scratch_bytes(s, SAW_F32));
        float *spec = room((size_t)(want->count), sizeof *spec),
              *back = room(CHANNELS * SAMPLES, 4);
        for (int ch = 0; ch < CHANNELS; ch++) /* straight into the golden layout, by strides */
            saw_stft_forward(s, input + ch * SAMPLES, SAMPLES, 0, frames,
                             spec + ch * bins * frames * 2, 2, 2 * frames, scratch);
        size_t count = (size_t)(CHANNELS * bins * frames * 2);
        assert_true(test_relative_l2(spec, npy_f32(want), count) < 2e-6);

        bool masked = strncmp(c->name, "ta_", 3) != 0;
        snprintf(name, sizeof name, masked ? "%s_modspec" : "%s_stft", c->name);
        const float *mod = npy_f32(npz_get(z, name));
        for (int ch = 0; ch < CHANNELS; ch++)
            saw_stft_inverse(s, mod + ch * bins * frames * 2, frames, 2, 2 * frames, 0, SAMPLES,
                             back + ch * SAMPLES, scratch);
        snprintf(name, sizeof name, "%s_istft_length", c->name);
        assert_true(test_relative_l2(back, npy_f32(npz_get(z, name)), CHANNELS * SAMPLES) < 2e-6);
        saw_free(ctx, scratch);
        saw_free(ctx, spec);
        saw_free(ctx, back);
        saw_stft_close(s);
    }
    assert_int_equal(cases, 8);
    npz_close(z);
}

/* ---- properties ------------------------------------------------------------------------------ */

typedef void property(const setting *c, const saw_stft *s, int64_t samples, int64_t frames,
                      void *scratch);

static void for_all_settings(property *check, int64_t samples)
{
    for (size_t i = 0; i < COUNT(golden_settings) + COUNT(other_settings); i++) {
        const setting *c = i < COUNT(golden_settings) ? &golden_settings[i]
                                                      : &other_settings[i - COUNT(golden_settings)];
        saw_stft *s = open_stft(&c->o);
        void *scratch = room(1, saw_stft_scratch_bytes(s, SAW_F64));
        check(c, s, samples, saw_stft_frames(s, samples), scratch);
        saw_free(ctx, scratch);
        saw_stft_close(s);
    }
}

static void check_adjoint(const setting *c, const saw_stft *s, int64_t samples, int64_t frames,
                          void *scratch)
{
    int64_t bins = saw_stft_bins(s), stride = 2 * bins, count = frames * stride;
    float *unused[2];
    double *x, *g;
    values("x", samples, &unused[0], &x);
    values("g", count, &unused[1], &g);
    double *ax = room((size_t)count, sizeof *ax), *tg = room((size_t)samples, sizeof *tg);
    saw_stft64_forward(s, x, samples, 0, frames, ax, stride, 2, scratch);
    saw_stft64_forward_adjoint(s, g, stride, 2, samples, 0, samples, tg, scratch);
    double scale = sqrt(dot(ax, ax, count) * dot(g, g, count));
    double off = fabs(dot(ax, g, count) - dot(x, tg, samples)) / scale;
    if (!(off < 1e-12))
        fail_msg("%s forward: not adjoint, off by %g", c->name, off);

    memset(ax, 0, (size_t)count * sizeof *ax);
    saw_stft64_inverse(s, g, frames, stride, 2, 0, samples, tg, scratch);
    saw_stft64_inverse_adjoint(s, x, samples, frames, 0, frames, ax, stride, 2, scratch);
    scale = sqrt(dot(tg, tg, samples) * dot(x, x, samples));
    off = fabs(dot(tg, x, samples) - dot(g, ax, count)) / scale;
    if (!(off < 1e-12))
        fail_msg("%s inverse: not adjoint, off by %g", c->name, off);
    void *all[] = {unused[0], unused[1], x, g, ax, tg};
    for (size_t i = 0; i < COUNT(all); i++)
        saw_free(ctx, all[i]);
}

static void test_adjoint(void **state)
{
    (void)state;
    for_all_settings(check_adjoint, 5003);
}

static void check_reconstruction(const setting *c, const saw_stft *s, int64_t samples,
                                 int64_t frames, void *scratch)
{
    if (c->o.hop > c->o.n_fft)
        return;
    int64_t bins = saw_stft_bins(s), stride = 2 * bins, pad = c->o.center ? c->o.n_fft / 2 : 0;
    int64_t whole =
        (frames - 1) * c->o.hop + c->o.n_fft - pad; /* the samples that a frame reaches */
    float *x;
    double *x64;
    values("x", samples, &x, &x64);
    double *spec64 = room((size_t)(frames * stride), 8), *back64 = room((size_t)samples, 8);
    float *spec = room((size_t)(frames * stride), 4), *back = room((size_t)samples, 4);
    saw_stft64_forward(s, x64, samples, 0, frames, spec64, stride, 2, scratch);
    saw_stft64_inverse(s, spec64, frames, stride, 2, 0, samples, back64, scratch);
    saw_stft_forward(s, x, samples, 0, frames, spec, stride, 2, scratch);
    saw_stft_inverse(s, spec, frames, stride, 2, 0, samples, back, scratch);
    /* Next to an end without padding, or that the last hop leaves uncovered, the window sum is all
     * but zero. */
    int64_t first = c->o.center ? 0 : c->o.n_fft / 4;
    int64_t n = (whole < samples ? whole : samples) - (c->o.n_fft / 4) - first;
    double off = distance(back64 + first, x64 + first, n);
    double off32 = test_relative_l2(back + first, x + first, (size_t)n);
    if (!(off < 1e-12 && off32 < 2e-6))
        fail_msg("%s: not restored, off by %g in double, by %g in float", c->name, off, off32);
    for (int64_t i = whole; i < samples; i++)
        assert_true(back[i] == 0 && back64[i] == 0);
    void *all[] = {x, x64, spec64, back64, spec, back};
    for (size_t i = 0; i < COUNT(all); i++)
        saw_free(ctx, all[i]);
}

static void test_reconstruction(void **state)
{
    (void)state;
    for_all_settings(check_reconstruction, 6003);
}

/* Ranges of step 1, 7, ... against the whole: equal bits, and nothing written beside the range. */
static void check_ranges(const setting *c, const saw_stft *s, int64_t samples, int64_t frames,
                         void *scratch)
{
    int64_t bins = saw_stft_bins(s), stride = 2 * bins, count = frames * stride;
    float *x, *g, *part = room((size_t)(count + 1), 4), *whole = room((size_t)count, 4);
    float *part_x = room((size_t)(samples + 1), 4), *whole_x = room((size_t)samples, 4);
    double *unused[2];
    values("x", samples, &x, &unused[0]);
    values("g", count, &g, &unused[1]);

    saw_stft_forward(s, x, samples, 0, frames, whole, stride, 2, scratch);
    for (int64_t t = 0, n; t < frames; t += n) {
        n = t + 3 < frames ? 1 + t % 3 : frames - t;
        part[(t + n) * stride] = 77;
        saw_stft_forward(s, x, samples, t, n, part + t * stride, stride, 2, scratch);
        assert_true(part[(t + n) * stride] == 77);
    }
    assert_memory_equal(part, whole, (size_t)count * 4);

    memset(whole, 0, (size_t)count * 4);
    memset(part, 0, (size_t)count * 4);
    saw_stft_inverse_adjoint(s, x, samples, frames, 0, frames, whole, stride, 2, scratch);
    for (int64_t t = 0; t < frames; t++)
        saw_stft_inverse_adjoint(s, x, samples, frames, t, 1, part + t * stride, stride, 2,
                                 scratch);
    assert_memory_equal(part, whole, (size_t)count * 4);

    for (int adjoint = 0; adjoint < 2; adjoint++) {
        memset(whole_x, 0, (size_t)samples * 4);
        memset(part_x, 0, (size_t)samples * 4);
        if (adjoint)
            saw_stft_forward_adjoint(s, g, stride, 2, samples, 0, samples, whole_x, scratch);
        else
            saw_stft_inverse(s, g, frames, stride, 2, 0, samples, whole_x, scratch);
        for (int64_t i = 0, n, step = 1; i < samples; i += n, step = step * 7 % 997) {
            n = i + step < samples ? step : samples - i;
            part_x[i + n] = adjoint ? 0 : 77;
            if (adjoint)
                saw_stft_forward_adjoint(s, g, stride, 2, samples, i, n, part_x + i, scratch);
            else
                saw_stft_inverse(s, g, frames, stride, 2, i, n, part_x + i, scratch);
            assert_true(part_x[i + n] == (adjoint ? 0 : 77));
        }
        if (memcmp(part_x, whole_x, (size_t)samples * 4))
            fail_msg("%s: %s depends on the range", c->name,
                     adjoint ? "forward_adjoint" : "inverse");
    }
    void *all[] = {x, g, part, whole, part_x, whole_x, unused[0], unused[1]};
    for (size_t i = 0; i < COUNT(all); i++)
        saw_free(ctx, all[i]);
}

static void test_ranges(void **state)
{
    (void)state;
    for_all_settings(check_ranges, 5003);
}

/* The adjoints add to what is there, and float follows double. */
/* The frames over a range of samples, one by one, are the adjoint there. */
static void test_frame_adjoint(void **state)
{
    (void)state;
    enum { LONGEST = 21, ROOM = 32 * 12 };
    static const saw_stft_options small[] = {
        {8, 3, 8, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, SAW_WINDOW_ONES},
        {9, 2, 9, true, SAW_STFT_REFLECT, SAW_STFT_NORM_NONE, SAW_WINDOW_ONES},
        {8, 11, 6, true, SAW_STFT_ZEROS, SAW_STFT_NORM_NONE, HANN},
        {8, 5, 8, false, SAW_STFT_ZEROS, SAW_STFT_NORM_NONE, SAW_WINDOW_ONES},
    };
    float *g32;
    double *g;
    values("g", ROOM, &g32, &g);
    for (size_t i = 0; i < COUNT(small); i++) {
        saw_stft *s = open_stft(&small[i]);
        int64_t stride = 2 * saw_stft_bins(s), first, end;
        void *scratch = room(1, saw_stft_scratch_bytes(s, SAW_F64));
        for (int64_t samples = 9; samples <= LONGEST; samples++)
            for (int64_t at = 0; at < samples; at++)
                for (int64_t n = 1; n <= samples - at; n++) {
                    double want[LONGEST] = {0}, got[LONGEST] = {0};
                    float got32[LONGEST] = {0};
                    saw_stft64_forward_adjoint(s, g, stride, 2, samples, at, n, want, scratch);
                    saw_stft_frames_over(s, samples, at, n, &first, &end);
                    assert_true(first >= 0 && end <= saw_stft_frames(s, samples));
                    for (int64_t t = first; t < end; t++) {
                        saw_stft64_frame_adjoint(s, g + t * stride, 2, samples, t, at, n, got,
                                                 scratch);
                        saw_stft_frame_adjoint(s, g32 + t * stride, 2, samples, t, at, n, got32,
                                               scratch);
                    }
                    for (int64_t k = 0; k < n; k++)
                        if (!(fabs(got[k] - want[k]) < 1e-13 && fabs(got32[k] - want[k]) < 1e-5))
                            fail_msg("setting %zu, samples [%lld, %lld) of %lld: %g and %g, not %g",
                                     i, (long long)at, (long long)(at + n), (long long)samples,
                                     got[k], (double)got32[k], want[k]);
                }
        saw_free(ctx, scratch);
        saw_stft_close(s);
    }
    saw_free(ctx, g);
    saw_free(ctx, g32);
}

static void check_float_adjoints(const setting *c, const saw_stft *s, int64_t samples,
                                 int64_t frames, void *scratch)
{
    int64_t bins = saw_stft_bins(s), stride = 2 * bins, count = frames * stride;
    float *x, *g, *dx, *dg;
    double *x64, *g64, *dx64, *dg64;
    values("x", samples, &x, &x64);
    values("g", count, &g, &g64);
    values("dx", samples, &dx, &dx64);
    values("dg", count, &dg, &dg64);
    saw_stft_forward_adjoint(s, g, stride, 2, samples, 0, samples, dx, scratch);
    saw_stft64_forward_adjoint(s, g64, stride, 2, samples, 0, samples, dx64, scratch);
    saw_stft_inverse_adjoint(s, x, samples, frames, 0, frames, dg, stride, 2, scratch);
    saw_stft64_inverse_adjoint(s, x64, samples, frames, 0, frames, dg64, stride, 2, scratch);
    double *wide = room((size_t)(count > samples ? count : samples), 8);
    for (int64_t i = 0; i < samples; i++)
        wide[i] = dx[i];
    double off_x = distance(wide, dx64, samples);
    for (int64_t i = 0; i < count; i++)
        wide[i] = dg[i];
    double off_g = distance(wide, dg64, count);
    if (!(off_x < 1e-6 && off_g < 1e-6))
        fail_msg("%s: float adjoints off by %g, %g", c->name, off_x, off_g);
    void *all[] = {x, g, dx, dg, x64, g64, dx64, dg64, wide};
    for (size_t i = 0; i < COUNT(all); i++)
        saw_free(ctx, all[i]);
}

static void test_float_adjoints(void **state)
{
    (void)state;
    for_all_settings(check_float_adjoints, 5003);
}

/* ---- threads and guards ---------------------------------------------------------------------- */

typedef struct shared {
    const saw_stft *s;
    const float *x;
    float *out;
    char *scratch;
    size_t scratch_bytes;
    int64_t stride;
} shared;

static void one_frame(void *arg, int64_t item, int thread)
{
    shared *a = arg;
    saw_stft_forward(a->s, a->x, SAMPLES, item, 1, a->out + item * a->stride, a->stride, 2,
                     a->scratch + (size_t)thread * a->scratch_bytes);
}

static void test_threads(void **state)
{
    (void)state;
    saw_context *many;
    assert_int_equal(saw_context_open(&many, &(saw_options){.threads = 4}), SAW_OK);
    saw_stft *s = open_stft(&(saw_stft_options){.n_fft = 882, .hop = 37, .center = true});
    int64_t frames = saw_stft_frames(s, SAMPLES), stride = 2 * saw_stft_bins(s);
    float *x, *alone = room((size_t)(frames * stride), 4),
              *together = room((size_t)(frames * stride), 4);
    double *unused;
    values("x", SAMPLES, &x, &unused);
    size_t bytes = saw_stft_scratch_bytes(s, SAW_F32);
    char *scratch = room(4, bytes);
    saw_stft_forward(s, x, SAMPLES, 0, frames, alone, stride, 2, scratch);
    saw_parallel(many, frames, one_frame, &(shared){s, x, together, scratch, bytes, stride});
    assert_memory_equal(alone, together, (size_t)(frames * stride) * 4);
    void *all[] = {x, alone, together, unused, scratch};
    for (size_t i = 0; i < COUNT(all); i++)
        saw_free(ctx, all[i]);
    saw_stft_close(s);
    saw_context_close(many);
}

static void test_guards(void **state)
{
    (void)state;
    saw_stft *s;
    const saw_stft_options wrong[] = {{.n_fft = 0, .hop = 1},
                                      {.n_fft = 512, .hop = 0},
                                      {.n_fft = 512, .hop = 128, .win_length = 513},
                                      {.n_fft = 512, .hop = 128, .win_length = -1},
                                      {.n_fft = 1 << 30, .hop = 128}};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(saw_stft_open(ctx, &wrong[i], &s), SAW_ERR_ARGUMENT);
        assert_null(s);
    }
    s = open_stft(&(saw_stft_options){.n_fft = 512, .hop = 128, .center = true});
    assert_int_equal(saw_stft_get_options(s)->win_length, 512);
    assert_int_equal(saw_stft_check(ctx, s, 256), SAW_ERR_SHAPE);
    assert_non_null(strstr(saw_context_error(ctx), "reflect"));
    assert_int_equal(saw_stft_check(ctx, s, 257), SAW_OK);
    assert_int_equal(saw_stft_frames(s, 0), 0);
    assert_int_equal(saw_stft_frames(s, 1280), 11);
    assert_int_equal(saw_stft_samples(s, 11), 1280);
    saw_stft_close(s);
    s = open_stft(&(saw_stft_options){.n_fft = 512, .hop = 128});
    assert_int_equal(saw_stft_check(ctx, s, 511), SAW_ERR_SHAPE);
    assert_int_equal(saw_stft_check(ctx, s, 512), SAW_OK);
    assert_int_equal(saw_stft_frames(s, 512), 1);
    saw_stft_close(s);
    saw_stft_close(NULL);
}

/* An allocator that fails at one call. */
static int calls_left;

static void *failing_alloc(void *user, size_t bytes)
{
    (void)user;
    return calls_left-- == 0 ? NULL : malloc(bytes);
}

static void plain_free(void *user, void *block)
{
    (void)user;
    free(block);
}

static void test_no_memory(void **state)
{
    (void)state;
    saw_context *poor;
    calls_left = -1;
    assert_int_equal(
        saw_context_open(
            &poor, &(saw_options){.threads = 1, .alloc = failing_alloc, .release = plain_free}),
        SAW_OK);
    int at = 0;
    for (saw_status status = SAW_ERR_MEMORY; status; at++) {
        saw_stft *s;
        calls_left = at;
        status = saw_stft_open(poor, &(saw_stft_options){.n_fft = 64, .hop = 16}, &s);
        assert_true(status == SAW_OK ? s != NULL : status == SAW_ERR_MEMORY && s == NULL);
        saw_stft_close(s);
        assert_int_equal(saw_context_memory(poor).now_bytes, 0);
    }
    assert_true(at > 1);
    saw_context_close(poor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compact),   cmocka_unit_test(test_large),
        cmocka_unit_test(test_adjoint),   cmocka_unit_test(test_reconstruction),
        cmocka_unit_test(test_ranges),    cmocka_unit_test(test_float_adjoints),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_guards),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_frame_adjoint),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
