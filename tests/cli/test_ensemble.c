/*
 * test_ensemble.c - ensembles against closed forms, and blocks against each other.
 */
#include "support/test.h"

#include "run/ensemble.h"
#include "support/formula.h"

#include <math.h>
#include <stdlib.h>

enum { BLOCK = SAW_ENSEMBLE_BLOCK, BLOCKS = 3 };

/* The ensemble of whole signals of BLOCKS blocks, zero outside. */
static float *join(saw_ensemble_kind kind, int models, const double *weights, float *const *x)
{
    saw_context *ctx;
    saw_ensemble *e;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    assert_int_equal(saw_ensemble_open(ctx, kind, models, weights, &e), SAW_OK);
    int64_t context = saw_ensemble_context(e), length = BLOCK + 2 * context;
    float *out = calloc(BLOCK * BLOCKS, sizeof *out),
          *windows = calloc((size_t)(models * length), sizeof *windows);
    const float *in[SAW_ENSEMBLE_MODELS];
    for (int b = 0; b < BLOCKS; b++) {
        for (int m = 0; m < models; m++) {
            in[m] = windows + m * length;
            for (int64_t i = 0; i < length; i++) {
                int64_t at = (int64_t)b * BLOCK + i - context;
                windows[m * length + i] = at >= 0 && at < BLOCK * BLOCKS ? x[m][at] : 0;
            }
        }
        saw_ensemble_run(e, in, out + b * BLOCK);
    }
    free(windows);
    saw_ensemble_close(e);
    saw_context_close(ctx);
    return out;
}

static float *noise(const char *name, double gain)
{
    float *x = malloc(BLOCK * BLOCKS * sizeof *x);
    for (int i = 0; i < BLOCK * BLOCKS; i++)
        x[i] = (float)(gain * test_value(name, i));
    return x;
}

/* Models whose estimates are multiples of one signal: every kind has a factor known beforehand. */
static void test_multiples(void **state)
{
    (void)state;
    static const double gain[] = {0.5, -2, 1, 0.25};
    static const struct {
        saw_ensemble_kind kind;
        int models;
        double weights[4], want;
    } cases[] = {{SAW_MEAN_WAVE, 3, {1, 1, 1}, -0.5 / 3},
                 {SAW_MEAN_WAVE, 3, {1, 0, 3}, 3.5 / 4},
                 {SAW_MEDIAN_WAVE, 3, {1, 1, 1}, 0.5},
                 {SAW_MEDIAN_WAVE, 4, {1, 1, 1, 1}, 0.375},
                 {SAW_MIN_WAVE, 3, {1, 1, 1}, 0.5},
                 {SAW_MAX_WAVE, 3, {1, 1, 1}, -2},
                 /* Magnitudes 0.5, 2, 1, 0.25 with the sign of the mean of the waveforms, which is
                    negative. */
                 {SAW_MEAN_MAG, 3, {1, 1, 1}, -3.5 / 3},
                 {SAW_MEAN_MAG, 3, {2, 0, 2}, 0.75},
                 {SAW_MEDIAN_MAG, 3, {1, 1, 1}, -1},
                 {SAW_MEDIAN_MAG, 4, {1, 1, 1, 1}, -0.75},
                 {SAW_MIN_MAG, 4, {1, 1, 1, 1}, -0.25},
                 {SAW_MAX_MAG, 3, {1, 1, 1}, -2}};
    float *x[4], *unit = noise("unit", 1);
    for (int m = 0; m < 4; m++)
        x[m] = noise("unit", gain[m]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *got = join(cases[i].kind, cases[i].models, cases[i].weights, x);
        float *want = noise("unit", cases[i].want);
        double db = test_snr_db(got, want, BLOCK * BLOCKS);
        if (db < 100)
            fail_msg("case %zu: %.1f dB", i, db);
        free(got);
        free(want);
    }
    free(unit);
    for (int m = 0; m < 4; m++)
        free(x[m]);
}

/* Two tones far apart, one louder in each model: max takes both loud ones, min both soft ones. */
static void test_tones(void **state)
{
    (void)state;
    float *x[2], *max = malloc(BLOCK * BLOCKS * sizeof *max),
                 *min = malloc(BLOCK * BLOCKS * sizeof *min);
    x[0] = malloc(BLOCK * BLOCKS * sizeof **x);
    x[1] = malloc(BLOCK * BLOCKS * sizeof **x);
    for (int i = 0; i < BLOCK * BLOCKS; i++) {
        double a = sin(2 * M_PI * 100.0 * i / 2048), b = sin(2 * M_PI * 700.0 * i / 2048 + 1);
        x[0][i] = (float)(a + 0.25 * b);
        x[1][i] = (float)(0.25 * a + b);
        max[i] = (float)(a + b);
        min[i] = (float)(0.25 * (a + b));
    }
    float *got = join(SAW_MAX_MAG, 2, NULL, x);
    assert_true(test_snr_db(got + 4096, max + 4096, BLOCK * BLOCKS - 8192) > 60);
    free(got);
    got = join(SAW_MIN_MAG, 2, NULL, x);
    assert_true(test_snr_db(got + 4096, min + 4096, BLOCK * BLOCKS - 8192) > 60);
    free(got);
    free(x[0]);
    free(x[1]);
    free(max);
    free(min);
}

static void test_refused(void **state)
{
    (void)state;
    saw_context *ctx;
    saw_ensemble *e;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    assert_int_equal(saw_ensemble_open(ctx, SAW_MEAN_WAVE, 0, NULL, &e), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_ensemble_open(ctx, SAW_MEAN_WAVE, 17, NULL, &e), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_ensemble_open(ctx, SAW_MEAN_WAVE, 2, (double[]){0, 0}, &e),
                     SAW_ERR_ARGUMENT);
    assert_int_equal(saw_ensemble_open(ctx, SAW_MEAN_WAVE, 2, (double[]){1, -1}, &e),
                     SAW_ERR_ARGUMENT);
    assert_int_equal(saw_ensemble_open(ctx, SAW_MEAN_WAVE, 2, (double[]){1, NAN}, &e),
                     SAW_ERR_ARGUMENT);
    saw_ensemble_kind kind;
    assert_true(saw_ensemble_kind_parse("max_mag", &kind) && kind == SAW_MAX_MAG);
    assert_false(saw_ensemble_kind_parse("max", &kind));
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_multiples),
                                       cmocka_unit_test(test_tones),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
