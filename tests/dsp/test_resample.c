/* test_resample.c - the resampler against closed forms: alignment, lengths, there and back, cuts,
 * no allocation. */
#include "dsp/resample.h"
#include "support/test.h"

#include <math.h>
#include <stdlib.h>

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

/* Sum of 200 sines from low to 0.45 of low_hz at sample i of rate_hz; fades over 20 ms at both ends
 * of `frames`. */
static void sines(float *out, int64_t frames, int rate_hz, int low_hz, double phase)
{
    double *sum = calloc((size_t)frames, sizeof *sum);
    for (int k = 1; k <= 200; k++) {
        double w = 2 * M_PI * 0.45 * low_hz * k / 200 / rate_hz;
        for (int64_t i = 0; i < frames; i++)
            sum[i] += sin(w * (double)i + phase * k * k);
    }
    double fade = 0.02 * rate_hz;
    for (int64_t i = 0; i < frames; i++) {
        double edge = fmin((double)i, (double)(frames - 1 - i));
        double gain = edge < fade ? 0.5 - 0.5 * cos(M_PI * edge / fade) : 1;
        out[i] = (float)(sum[i] * gain / 30);
    }
    free(sum);
}

/* Whole signals through pieces of these sizes; returns the frames that came out. */
static int64_t convert(const float *const *in, int64_t frames, int in_hz, int out_hz, int channels,
                       float *const *out, int64_t room, int64_t total, int64_t in_piece,
                       int64_t out_piece)
{
    saw_resample *r;
    assert_int_equal(saw_resample_open(ctx, in_hz, out_hz, channels, SAW_RESAMPLE_BEST, &r),
                     SAW_OK);
    uint64_t calls = saw_context_memory(ctx).calls;
    int64_t taken = 0, given = 0, used, got = 1;
    bool ended = false;
    while (!ended || got) {
        const float *from[64];
        float *to[64];
        int64_t n = frames - taken < in_piece ? frames - taken : in_piece;
        int64_t m = room - given < out_piece ? room - given : out_piece;
        for (int c = 0; c < channels; c++) {
            from[c] = in[c] + taken;
            to[c] = out[c] + given;
        }
        assert_int_equal(saw_resample_run(r, ended ? NULL : from, n, &used, to, m, &got), SAW_OK);
        taken += used;
        given += got;
        if (!ended && taken == frames && got < m) {
            saw_resample_end(r, total);
            ended = true;
            got = 1;
        }
    }
    assert_true(saw_context_memory(ctx).calls == calls);
    saw_resample_close(r);
    return given;
}

static void there_and_back(void **state)
{
    (void)state;
    static const int pairs[][2] = {{44100, 48000}, {96000, 44100}, {22050, 44100},
                                   {48000, 44100}, {8000, 44100},  {44100, 16000}};
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        int a = pairs[p][0], b = pairs[p][1], low = a < b ? a : b;
        int64_t n = 2 * a + 77, m = saw_resample_frames(n, a, b);
        assert_int_equal(m, llround((double)n * b / a));
        float *x = calloc((size_t)n, sizeof *x), *z = calloc((size_t)n + 1, sizeof *z);
        float *y = calloc((size_t)m + 1, sizeof *y), *want = calloc((size_t)m, sizeof *want);
        sines(x, n, a, low, 0.7);
        assert_int_equal(convert((const float *const[]){x}, n, a, b, 1, (float *const[]){y}, m + 1,
                                 -1, 1000, 777),
                         m);
        assert_int_equal(convert((const float *const[]){y}, m, b, a, 1, (float *const[]){z}, n + 1,
                                 n, 1000, 777),
                         n);
        double back_db = test_snr_db(z, x, (size_t)n);
        sines(want, m, b, low, 0.7); /* the same sound, written at the other rate */
        int64_t skip = b / 20;       /* the fades' own ends differ by part of a frame */
        double one_way_db = test_snr_db(y + skip, want + skip, (size_t)(m - 2 * skip));
        print_message("%d -> %d Hz: one way %.1f dB, there and back %.1f dB, whole length\n", a, b,
                      one_way_db, back_db);
        assert_true(one_way_db > 100);
        assert_true(back_db > 100);
        free(x);
        free(y);
        free(z);
        free(want);
    }
}

static void cuts_change_no_bit(void **state)
{
    (void)state;
    enum { N = 20000, M = 21769 };
    float *x = calloc(3 * N, sizeof *x), *y = calloc(3 * M, sizeof *y);
    float *z = calloc(3 * M, sizeof *z);
    const float *in[3] = {x, x + N, x + 2 * N};
    float *one[3] = {y, y + M, y + 2 * M}, *other[3] = {z, z + M, z + 2 * M};
    for (int c = 0; c < 3; c++)
        sines(x + c * N, N, 44100, 44100, c);
    assert_int_equal(convert(in, N, 44100, 48000, 3, one, M, -1, N, M), M);
    static const int64_t pieces[][2] = {{1, M}, {N, 1}, {333, 4097}, {1025, 1023}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(convert(in, N, 44100, 48000, 3, other, M, -1, pieces[i][0], pieces[i][1]),
                         M);
        assert_memory_equal(y, z, sizeof *y * 3 * M);
    }
    /* every channel on its own gives the same sound */
    for (int c = 0; c < 3; c++) {
        convert(in + c, N, 44100, 48000, 1, other, M, -1, N, M);
        assert_true(test_snr_db(z, one[c], M) > 130);
    }
    /* equal rates copy */
    assert_int_equal(convert(in, N, 48000, 48000, 3, other, M, -1, 999, 333), N);
    for (int c = 0; c < 3; c++)
        assert_memory_equal(other[c], in[c], sizeof *x * N);
    free(x);
    free(y);
    free(z);
}

static void short_inputs_have_exact_lengths(void **state)
{
    (void)state;
    float x[64] = {1}, y[4096];
    static const int rates[][2] = {{44100, 48000}, {48000, 44100}, {1000, 48000}, {48000, 1000}};
    for (int p = 0; p < 4; p++)
        for (int64_t n = 0; n < 64; n++) {
            int64_t want = llround((double)n * rates[p][1] / rates[p][0]);
            assert_int_equal(convert((const float *const[]){x}, n, rates[p][0], rates[p][1], 1,
                                     (float *const[]){y}, 4096, -1, 7, 5),
                             want);
        }
    assert_int_equal(convert((const float *const[]){x}, 10, 44100, 48000, 1, (float *const[]){y},
                             4096, 3000, 7, 5),
                     3000);
    assert_int_equal(saw_resample_frames(INT64_C(1) << 52, 44100, 48000),
                     INT64_C(4901877145437275));
}

static void wrong_arguments(void **state)
{
    (void)state;
    saw_resample *r;
    assert_int_equal(saw_resample_open(ctx, 1000, 768000, 1, SAW_RESAMPLE_BEST, &r),
                     SAW_ERR_UNSUPPORTED);
    assert_int_equal(saw_resample_open(ctx, 0, 44100, 1, SAW_RESAMPLE_BEST, &r), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_resample_open(ctx, 1, 1, 65, SAW_RESAMPLE_BEST, &r), SAW_ERR_ARGUMENT);
    saw_resample_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(cuts_change_no_bit),
        cmocka_unit_test(short_inputs_have_exact_lengths),
        cmocka_unit_test(wrong_arguments),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
