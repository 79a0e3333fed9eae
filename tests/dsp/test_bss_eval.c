/*
 * test_bss_eval.c - BSSEval version 4 where its value is known in closed form, and against museval
 * (tests/golden/metrics).
 */
#include "support/audio.h"
#include "support/test.h"

#include "dsp/bss_eval.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static saw_context *open_context(int threads)
{
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = threads}), SAW_OK);
    return ctx;
}

/* White noise: word i of a key, in [-1, 1). */
static float noise(uint64_t key, int64_t i)
{
    uint32_t word[4];
    saw_philox(key, 0, (uint64_t)i, word);
    return (float)((int32_t)word[0] / 2147483648.0);
}

/* ---- closed form ----------------------------------------------------------------------------- */

enum { N = 40000, WINDOW = 10000, TAPS = 64, WINDOWS = N / WINDOW };

static void test_statistics(void **state)
{
    (void)state;
    double odd[] = {3, NAN, -INFINITY, 1, NAN}, even[] = {4, 1, 2, 3}, none[] = {NAN, NAN},
           infinite[] = {INFINITY, INFINITY};
    assert_true(saw_median(odd, 5) == 1);
    assert_true(saw_median(even, 4) == 2.5);
    assert_true(saw_median(infinite, 2) == INFINITY);
    assert_true(isnan(saw_median(none, 2)) && isnan(saw_median(NULL, 0)));
    assert_int_equal(saw_bss_windows(99, 100), 1);
    assert_int_equal(saw_bss_windows(100, 100), 1);
    assert_int_equal(saw_bss_windows(199, 100), 1);
    assert_int_equal(saw_bss_windows(200, 100), 2);
}

/* Independent noises a and b, each in its own source: e = filtered a + leak b + new noise n. The
 * three errors are orthogonal but for chance of the order 1 / sqrt(N), and
 *     ISR = |a|^2 / |a - h a|^2, SIR = |h a|^2 / |leak b|^2, SAR = |h a + leak b|^2 / |n|^2
 * for white noise: 1 / ((1 - h0)^2 + h5^2), (h0^2 + h5^2) / leak^2, (h0^2 + h5^2 + leak^2) / new^2.
 * A window knows nothing of the samples before it, and the filter rings on after it: what the
 * delayed tap misses and adds there are artefacts too. */
static void test_closed_form(void **state)
{
    (void)state;
    const double h0 = 0.9, h5 = -0.2, leak = 0.1, fresh = 0.01;
    static float a[N], b[N], e[N];
    for (int i = 0; i < N; i++) {
        a[i] = noise(1, i);
        b[i] = noise(2, i);
    }
    for (int i = 0; i < N; i++)
        e[i] = (float)(h0 * a[i] + (i < 5 ? 0 : h5 * a[i - 5]) + leak * b[i] + fresh * noise(3, i));
    const float *reference[] = {a, b}, *estimate[] = {e, b};
    saw_context *ctx = open_context(2);
    saw_bss_ratios out[2 * WINDOWS];
    saw_bss_input in = {2, 1, N, WINDOW, TAPS, reference, estimate};
    assert_int_equal(saw_bss_eval(ctx, &in, out), SAW_OK);
    double h = h0 * h0 + h5 * h5;
    for (int w = 0; w < WINDOWS; w++) {
        const saw_bss_ratios *r = &out[w], *same = &out[WINDOWS + w];
        double edges = 0, artefacts;
        for (int i = 1; i <= 5; i++) {
            double before = w ? h5 * a[w * WINDOW - i] : 0, behind = h5 * a[(w + 1) * WINDOW - i];
            edges += before * before + behind * behind;
        }
        artefacts = fresh * fresh + edges / (WINDOW / 3.0); /* |a|^2 is 1/3 a sample */
        double isr = -10 * log10((1 - h0) * (1 - h0) + h5 * h5),
               sir = 10 * log10(h / (leak * leak)), sar = 10 * log10((h + leak * leak) / artefacts),
               sdr = -10 * log10((1 - h0) * (1 - h0) + h5 * h5 + leak * leak + fresh * fresh);
        if (!(fabs(r->sdr_db - sdr) < 0.1 && fabs(r->isr_db - isr) < 0.1 &&
              fabs(r->sir_db - sir) < 0.1 && fabs(r->sar_db - sar) < 0.2))
            fail_msg("window %d: SDR %.3f %.3f, ISR %.3f %.3f, SIR %.3f %.3f, SAR %.3f %.3f", w,
                     r->sdr_db, sdr, r->isr_db, isr, r->sir_db, sir, r->sar_db, sar);
        assert_true(same->sdr_db == INFINITY);
        assert_true(same->isr_db > 120 && same->sir_db > 120 && same->sar_db > 120);
    }
    /* without filters the SDR has the same bits, and the others have no value */
    saw_bss_ratios plain[2 * WINDOWS];
    in.taps = 0;
    assert_int_equal(saw_bss_eval(ctx, &in, plain), SAW_OK);
    for (int w = 0; w < 2 * WINDOWS; w++) {
        assert_true(fabs(plain[w].sdr_db - out[w].sdr_db) < 1e-9 ||
                    plain[w].sdr_db == out[w].sdr_db);
        assert_true(isnan(plain[w].isr_db) && isnan(plain[w].sir_db) && isnan(plain[w].sar_db));
    }
    saw_context_close(ctx);
}

/* Mono in two channels, and a silent channel: the equations are singular, the projections are not.
 * The same sound in one channel has the same ratios. */
static void test_singular(void **state)
{
    (void)state;
    static float a[N], b[N], e[N], f[N], zero[N];
    for (int i = 0; i < N; i++) {
        a[i] = noise(1, i) + (i ? 0.5f * noise(1, i - 1) : 0);
        b[i] = noise(2, i);
        e[i] = 0.8f * a[i] + 0.1f * b[i] + 0.02f * noise(3, i);
        f[i] = 0.9f * b[i] + 0.05f * a[i] + 0.02f * noise(4, i);
    }
    const float *reference[] = {a, b}, *estimate[] = {e, f};
    const float *reference2[] = {a, a, zero, b}, *estimate2[] = {e, e, zero, f};
    saw_context *ctx = open_context(2);
    saw_bss_ratios mono[2 * WINDOWS], stereo[2 * WINDOWS];
    saw_bss_input in = {2, 1, N, WINDOW, TAPS, reference, estimate},
                  in2 = {2, 2, N, WINDOW, TAPS, reference2, estimate2};
    assert_int_equal(saw_bss_eval(ctx, &in, mono), SAW_OK);
    assert_int_equal(saw_bss_eval(ctx, &in2, stereo), SAW_OK);
    for (int i = 0; i < 2 * WINDOWS; i++) {
        assert_true(fabs(mono[i].sdr_db - stereo[i].sdr_db) < 1e-9);
        assert_true(fabs(mono[i].isr_db - stereo[i].isr_db) < 1e-3);
        assert_true(fabs(mono[i].sir_db - stereo[i].sir_db) < 1e-3);
        assert_true(fabs(mono[i].sar_db - stereo[i].sar_db) < 1e-3);
    }
    saw_context_close(ctx);
}

static void test_refused(void **state)
{
    (void)state;
    static float a[N], e[N], zero[N], minus[N];
    for (int i = 0; i < N; i++) {
        a[i] = noise(1, i);
        e[i] = noise(2, i);
        minus[i] = -a[i];
    }
    saw_context *ctx = open_context(1);
    saw_bss_ratios out[2 * WINDOWS];
    const float *good[] = {a, e}, *silent[] = {a, zero}, *cancels[] = {a, minus};
    saw_bss_input in = {2, 1, N, WINDOW, TAPS, silent, good};
    assert_int_equal(saw_bss_eval(ctx, &in, out), SAW_ERR_ARGUMENT);
    assert_string_equal(saw_context_error(ctx), "the reference of source 2 is silent: BSSEval has "
                                                "no value for it, leave it out");
    in = (saw_bss_input){2, 1, N, WINDOW, TAPS, good, silent};
    assert_int_equal(saw_bss_eval(ctx, &in, out), SAW_ERR_ARGUMENT);
    assert_non_null(strstr(saw_context_error(ctx), "the estimate of source 2 is silent"));
    in = (saw_bss_input){1, 2, N, WINDOW, TAPS, cancels, good}; /* left + right is 0 */
    assert_int_equal(saw_bss_eval(ctx, &in, out), SAW_ERR_ARGUMENT);
    in = (saw_bss_input){1, 1, N, 0, TAPS, good, good};
    assert_int_equal(saw_bss_eval(ctx, &in, out), SAW_ERR_ARGUMENT);
    saw_context_close(ctx);
}

/* ---- museval --------------------------------------------------------------------------------- */

enum { SETS = 8 };

typedef struct set {
    int sources;
    int64_t samples;
    float *reference[SETS], *estimate[SETS]; /* [2][samples] */
} set;

static char *folder = SAW_TEST_GOLDEN "/metrics";

static void read_set(json_t *root, json_t *order, set *s)
{
    size_t i;
    json_t *name;
    *s = (set){0};
    json_array_foreach(order, i, name)
    {
        json_t *pair = json_object_get(json_object_get(root, "pairs"), json_string_value(name));
        const char *reference = json_string_value(json_object_get(pair, "reference")),
                   *estimate = json_string_value(json_object_get(pair, "estimate"));
        int channels;
        s->reference[i] = test_read_audio(folder, reference, &channels, &s->samples);
        assert_int_equal(channels, 2);
        s->estimate[i] = test_read_audio(folder, estimate, &channels, &s->samples);
        s->sources++;
    }
}

static void free_set(set *s)
{
    for (int i = 0; i < s->sources; i++) {
        free(s->reference[i]);
        free(s->estimate[i]);
    }
}

static saw_status evaluate(saw_context *ctx, const set *s, saw_bss_ratios *out)
{
    const float *reference[2 * SETS], *estimate[2 * SETS];
    for (int i = 0; i < 2 * s->sources; i++) {
        reference[i] = s->reference[i / 2] + i % 2 * s->samples;
        estimate[i] = s->estimate[i / 2] + i % 2 * s->samples;
    }
    saw_bss_input in = {s->sources, 2, s->samples, 44100, SAW_BSS_TAPS, reference, estimate};
    return saw_bss_eval(ctx, &in, out);
}

static double number(json_t *value)
{
    return json_is_string(value) ? strtod(json_string_value(value), NULL)
                                 : json_number_value(value);
}

/* The ratios of one kind against museval's, and their medians; returns the largest difference. */
static double hold(const char *set_name, json_t *want, const char *kind, size_t offset, int sources,
                   const saw_bss_ratios *got, int64_t windows)
{
    double worst = 0;
    char medians[16];
    snprintf(medians, sizeof medians, "%s_median", kind);
    for (int s = 0; s < sources; s++) {
        double values[8], wanted;
        for (int64_t w = 0; w <= windows; w++) {
            double value;
            if (w < windows) {
                value = *(const double *)((const char *)&got[s * windows + w] + offset);
                values[w] = value;
                wanted = number(json_array_get(
                    json_array_get(json_object_get(want, kind), (size_t)s), (size_t)w));
            } else {
                value = saw_median(values, windows);
                wanted = number(json_array_get(json_object_get(want, medians), (size_t)s));
            }
            double difference = fabs(value - wanted);
            if (isnan(value) && isnan(wanted))
                continue;
            if (!(difference < 0.01))
                fail_msg("%s %s of source %d, window %d: %.6f, wanted %.6f", set_name, kind, s,
                         (int)w, value, wanted);
            worst = fmax(worst, difference);
        }
    }
    return worst;
}

static void test_museval(void **state)
{
    (void)state;
    json_t *root = json_load_file(SAW_TEST_GOLDEN "/metrics/metrics.json", 0, NULL), *want;
    assert_non_null(root);
    const char *name;
    int cases = 0, refused = 0;
    saw_context *ctx = open_context(2), *alone = open_context(1);
    json_object_foreach(json_object_get(root, "museval"), name, want)
    {
        set s;
        saw_bss_ratios out[SETS * 3], again[SETS * 3];
        read_set(root, json_object_get(want, "order"), &s);
        bool reference = strstr(name, "partly_silent_reference"),
             estimate = strstr(name, "partly_silent_estimate");
        for (int c = 0; (reference || estimate) && c < 2; c++)
            memset((reference ? s.reference : s.estimate)[2] + c * s.samples + 44100, 0,
                   44100 * sizeof(float));
        cases++;
        if (json_object_get(want, "refused")) {
            assert_int_equal(evaluate(ctx, &s, out), SAW_ERR_ARGUMENT);
            assert_non_null(strstr(saw_context_error(ctx), "of source 3 is silent"));
            refused++;
        } else {
            assert_int_equal(saw_bss_windows(s.samples, 44100), 3);
            assert_int_equal(evaluate(ctx, &s, out), SAW_OK);
            print_message(
                "%-32s SDR %.1e  ISR %.1e  SIR %.1e  SAR %.1e dB from museval\n", name,
                hold(name, want, "SDR", offsetof(saw_bss_ratios, sdr_db), s.sources, out, 3),
                hold(name, want, "ISR", offsetof(saw_bss_ratios, isr_db), s.sources, out, 3),
                hold(name, want, "SIR", offsetof(saw_bss_ratios, sir_db), s.sources, out, 3),
                hold(name, want, "SAR", offsetof(saw_bss_ratios, sar_db), s.sources, out, 3));
            if (s.sources == 2) { /* any number of threads gives the same bits */
                assert_int_equal(evaluate(alone, &s, again), SAW_OK);
                assert_memory_equal(out, again, 2 * 3 * sizeof *out);
            }
        }
        free_set(&s);
    }
    assert_int_equal(cases, 6);
    assert_int_equal(refused, 2);
    saw_context_close(alone);
    saw_context_close(ctx);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_closed_form),
        cmocka_unit_test(test_singular), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_museval)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
