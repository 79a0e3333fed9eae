/*
 * test_metrics.c - ratios and scores in closed form, and against numpy and MSST
 * (tests/golden/metrics).
 */
#include "support/audio.h"
#include "support/test.h"

#include "dsp/metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static void test_closed_form(void **state)
{
    (void)state;
    /* sine and cosine over whole periods are orthogonal: with e = g r + d q, SI-SDR is 20 log10(g /
       d), SDR is -10 log10((1 - g)^2 + d^2). */
    enum { N = 4410 };
    static float r[N], e[N], zero[N];
    for (int i = 0; i < N; i++) {
        double t = 2 * M_PI * 100 * i / 44100;
        r[i] = (float)sin(t);
        e[i] = (float)(0.5 * sin(t) + 0.05 * cos(t));
    }
    saw_sdr_sums s = {0}, halves = {0}, silent = {0}, same = {0};
    saw_sdr_add(&s, r, e, N);
    assert_true(fabs(saw_si_sdr_db(&s) - 20) < 1e-5);
    assert_true(fabs(saw_sdr_db(&s, 0) + 10 * log10(0.2525)) < 1e-5);
    saw_sdr_add(&halves, r, e, 1000);
    saw_sdr_add(&halves, r + 1000, e + 1000, N - 1000);
    assert_true(halves.error == s.error && halves.product == s.product);
    saw_sdr_add(&same, r, r, N);
    assert_true(isinf(saw_sdr_db(&same, 0)) && saw_sdr_db(&same, 0) > 0);
    assert_true(saw_si_sdr_db(&same) > 140);
    saw_sdr_add(&silent, zero, e, N);
    assert_true(isinf(saw_sdr_db(&silent, 0)) && saw_sdr_db(&silent, 0) < 0);
    assert_true(isnan(saw_si_sdr_db(&silent)));
    silent = (saw_sdr_sums){0};
    saw_sdr_add(&silent, r, zero, N);
    assert_true(saw_sdr_db(&silent, 0) == 0);
    assert_true(isnan(saw_si_sdr_db(&silent)));
}

static void hold(const char *pair, const char *what, double got, json_t *want, double tolerance)
{
    double number =
        json_is_string(want) ? strtod(json_string_value(want), NULL) : json_number_value(want);
    bool equal = isnan(number)   ? isnan(got)
                 : isinf(number) ? got == number
                                 : fabs(got - number) < tolerance;
    if (!equal)
        fail_msg("%s %s: %.9f, wanted %.9f", pair, what, got, number);
}

/* numpy's ratios, and MSST's scores in double and in float32. */
static void test_golden(void **state)
{
    (void)state;
    json_t *root = json_load_file(SAW_TEST_GOLDEN "/metrics/metrics.json", 0, NULL), *pair;
    assert_non_null(root);
    saw_context *ctx, *alone;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_context_open(&alone, &(saw_options){.threads = 1}), SAW_OK);
    const char *name;
    int cases = 0;
    json_object_foreach(json_object_get(root, "pairs"), name, pair)
    {
        json_t *values = json_object_get(pair, "values"),
               *floats = json_object_get(pair, "msst_float32");
        int64_t n, n_estimate;
        int channels;
        const char *folder = SAW_TEST_GOLDEN "/metrics";
        float *r = test_read_audio(folder, json_string_value(json_object_get(pair, "reference")),
                                   &channels, &n);
        float *e = test_read_audio(folder, json_string_value(json_object_get(pair, "estimate")),
                                   &channels, &n_estimate);
        assert_int_equal(channels, 2);
        assert_int_equal(n, n_estimate);
        saw_sdr_sums both = {0};
        for (int c = 0; c < 2; c++) {
            saw_sdr_sums one = {0};
            saw_sdr_add(&one, r + c * n, e + c * n, n);
            saw_sdr_add(&both, r + c * n, e + c * n, n);
            hold(name, "SNR", saw_sdr_db(&one, 0),
                 json_array_get(json_object_get(values, "snr_per_channel"), (size_t)c), 1e-6);
            hold(name, "SI-SDR of a channel", saw_si_sdr_db(&one),
                 json_array_get(json_object_get(values, "si_sdr_per_channel"), (size_t)c), 1e-6);
        }
        hold(name, "SDR", saw_sdr_db(&both, 0), json_object_get(values, "sdr_global"), 1e-6);
        hold(name, "MSST's SDR", saw_sdr_db(&both, 1e-8), json_object_get(values, "msst_sdr"),
             1e-6);
        hold(name, "SI-SDR", saw_si_sdr_db(&both), json_object_get(values, "si_sdr_flat"), 1e-6);
        const float *reference[] = {r, r + n}, *estimate[] = {e, e + n};
        saw_signals s = {reference, estimate, 2, n};
        double l1, bleedless, fullness, again[3];
        assert_int_equal(saw_l1_freq(ctx, &s, &l1), SAW_OK);
        assert_int_equal(saw_bleed_full(ctx, &s, &bleedless, &fullness), SAW_OK);
        hold(name, "L1-frequency", l1, json_object_get(values, "msst_l1_freq"), 1e-5);
        hold(name, "bleedless", bleedless, json_object_get(values, "msst_bleedless"), 1e-5);
        hold(name, "fullness", fullness, json_object_get(values, "msst_fullness"), 1e-5);
        hold(name, "L1-frequency", l1, json_object_get(floats, "msst_l1_freq"), 0.005);
        hold(name, "bleedless", bleedless, json_object_get(floats, "msst_bleedless"), 0.005);
        hold(name, "fullness", fullness, json_object_get(floats, "msst_fullness"), 0.005);
        assert_int_equal(saw_l1_freq(alone, &s, &again[0]), SAW_OK);
        assert_int_equal(saw_bleed_full(alone, &s, &again[1], &again[2]), SAW_OK);
        assert_true(again[0] == l1 && again[1] == bleedless && again[2] == fullness);
        free(r);
        free(e);
        cases++;
    }
    assert_int_equal(cases, 6);
    saw_context_close(alone);
    saw_context_close(ctx);
    json_decref(root);
}

/* Constants: without a window only bin 0 of the STFT is not zero, and the magnitudes of equal or
 * silent signals do not differ. */
static void test_scores(void **state)
{
    (void)state;
    enum { N = 20480 };
    static float r[N], e[N], zero[N];
    for (int i = 0; i < N; i++) {
        r[i] = 0.25f;
        e[i] = 0.75f;
    }
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    const float *reference[] = {r}, *estimate[] = {e}, *silent[] = {zero};
    double score, other;
    saw_signals s = {reference, estimate, 1, N};
    assert_int_equal(saw_l1_freq(ctx, &s, &score), SAW_OK);
    assert_true(fabs(score - 100 / (1 + 10 * 0.5 * 2048 / 1025)) < 1e-9);
    assert_int_equal(saw_bleed_full(ctx, &s, &score, &other), SAW_OK);
    /* 20 log10 of 3 more wherever it is not below the floor */
    assert_true(score > 100 / (1 + 9.55) - 1e-3 && score < 100 && other == 100);
    s.estimate = reference;
    assert_int_equal(saw_bleed_full(ctx, &s, &score, &other), SAW_OK);
    assert_true(score == 100 && other == 100);
    assert_int_equal(saw_l1_freq(ctx, &s, &score), SAW_OK);
    assert_true(score == 100);
    s.reference = s.estimate = silent;
    assert_int_equal(saw_bleed_full(ctx, &s, &score, &other), SAW_OK);
    assert_true(score == 100 && other == 100);
    s.samples = 1024;
    assert_int_equal(saw_l1_freq(ctx, &s, &score), SAW_ERR_SHAPE);
    s.samples = 1;
    assert_int_equal(saw_bleed_full(ctx, &s, &score, &other), SAW_OK);
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_closed_form),
                                       cmocka_unit_test(test_scores),
                                       cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
