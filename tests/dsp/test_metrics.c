/*
 * test_metrics.c - SDR and SI-SDR in closed form, and against numpy, torchmetrics and MSST (large
 * golden set).
 */
#include "support/test.h"

#include "dsp/metrics.h"

#include <jansson.h>
#include <math.h>
#include <sndfile.h>
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

/* [2][n] samples of a file named in the JSON. */
static float *read_planar(json_t *name, int64_t *n)
{
    char path[512];
    SF_INFO info = {0};
    snprintf(path, sizeof path, "%s/metrics/%s", SAW_GOLDEN_DIR, json_string_value(name));
    SNDFILE *f = sf_open(path, SFM_READ, &info);
    assert_non_null(f);
    assert_int_equal(info.channels, 2);
    *n = info.frames;
    float *mixed = malloc((size_t)*n * 2 * sizeof(float)),
          *out = malloc((size_t)*n * 2 * sizeof(float));
    assert_int_equal(sf_readf_float(f, mixed, *n), *n);
    sf_close(f);
    for (int64_t i = 0; i < *n; i++) {
        out[i] = mixed[2 * i];
        out[*n + i] = mixed[2 * i + 1];
    }
    free(mixed);
    return out;
}

static void hold(const char *pair, const char *what, double got, json_t *want)
{
    double number =
        json_is_string(want) ? strtod(json_string_value(want), NULL) : json_number_value(want);
    bool equal = isnan(number)   ? isnan(got)
                 : isinf(number) ? got == number
                                 : fabs(got - number) < 1e-6;
    if (!equal)
        fail_msg("%s %s: %.9f, wanted %.9f", pair, what, got, number);
}

static void test_large(void **state)
{
    (void)state;
    if (!*SAW_GOLDEN_DIR) {
        print_message("skipped: 6 cases (no SAW_GOLDEN_DIR)\n");
        skip();
    }
    json_t *root = json_load_file(SAW_GOLDEN_DIR "/metrics/metrics.json", 0, NULL), *pair;
    assert_non_null(root);
    const char *name;
    int cases = 0;
    json_object_foreach(json_object_get(root, "pairs"), name, pair)
    {
        json_t *values = json_object_get(pair, "values");
        int64_t n, n_estimate;
        float *r = read_planar(json_object_get(pair, "reference"), &n);
        float *e = read_planar(json_object_get(pair, "estimate"), &n_estimate);
        assert_int_equal(n, n_estimate);
        saw_sdr_sums both = {0};
        for (int c = 0; c < 2; c++) {
            saw_sdr_sums one = {0};
            saw_sdr_add(&one, r + c * n, e + c * n, n);
            saw_sdr_add(&both, r + c * n, e + c * n, n);
            hold(name, "SNR", saw_sdr_db(&one, 0),
                 json_array_get(json_object_get(values, "snr_per_channel"), (size_t)c));
            hold(name, "SI-SDR of a channel", saw_si_sdr_db(&one),
                 json_array_get(json_object_get(values, "si_sdr_per_channel"), (size_t)c));
        }
        hold(name, "SDR", saw_sdr_db(&both, 0), json_object_get(values, "sdr_global"));
        hold(name, "MSST's SDR", saw_sdr_db(&both, 1e-8), json_object_get(values, "msst_sdr"));
        hold(name, "SI-SDR", saw_si_sdr_db(&both), json_object_get(values, "si_sdr_flat"));
        free(r);
        free(e);
        cases++;
    }
    assert_int_equal(cases, 6);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_closed_form),
                                       cmocka_unit_test(test_large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
