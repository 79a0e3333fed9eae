/*
 * test_bands.c - band tables against those of the reference implementations, read from the golden
 * cases' meta.json.
 */
#include "support/test.h"

#include "dsp/bands.h"

#include <jansson.h>

enum { ROOM = 128 };

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

static json_t *meta(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/meta.json", SAW_TEST_GOLDEN, name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

static int number(json_t *root, const char *key)
{
    json_t *value = json_object_get(json_object_get(root, "arch"), key);
    assert_true(json_is_integer(value));
    return (int)json_integer_value(value);
}

/* [[first, end], ...] */
static void hold_pairs(json_t *want, const saw_band *got, int count)
{
    assert_int_equal(json_array_size(want), count);
    for (int b = 0; b < count; b++) {
        json_t *pair = json_array_get(want, (size_t)b);
        assert_int_equal(got[b].first, json_integer_value(json_array_get(pair, 0)));
        assert_int_equal(got[b].first + got[b].width, json_integer_value(json_array_get(pair, 1)));
    }
}

static void test_mel(void **state)
{
    (void)state;
    const char *cases[] = {"mel_band_roformer_stereo1", "mel_band_roformer_mono2"};
    for (int i = 0; i < 2; i++) {
        json_t *root = meta(cases[i]), *widths = json_object_get(root, "mel_num_freqs_per_band");
        int bands = number(root, "num_bands"), n_fft = number(root, "stft_n_fft");
        int channels =
            json_is_true(json_object_get(json_object_get(root, "arch"), "stereo")) ? 2 : 1;
        saw_band got[ROOM];
        assert_int_equal(saw_bands_mel(ctx, number(root, "sample_rate"), n_fft, bands, got),
                         SAW_OK);
        json_int_t sum = 0, pairs = 0;
        for (int b = 0; b < bands; b++) {
            assert_int_equal(got[b].width, json_integer_value(json_array_get(widths, (size_t)b)));
            for (int row = got[b].first * channels; row < (got[b].first + got[b].width) * channels;
                 row++, pairs++)
                sum += row;
        }
        assert_int_equal(sum, json_integer_value(json_object_get(root, "mel_freq_indices_sum")));
        assert_int_equal(pairs,
                         json_integer_value(json_object_get(root, "mel_freq_indices_count")));
        json_decref(root);
    }
    saw_band got[ROOM];
    int pairs = 0;
    assert_int_equal(saw_bands_mel(ctx, 44100, 4096, 60, got), SAW_OK);
    for (int b = 0; b < 60; b++)
        pairs += got[b].width;
    assert_int_equal(pairs, 3957);
    assert_int_equal(saw_bands_mel(ctx, 44100, 256, 120, got),
                     SAW_ERR_SHAPE); /* narrower than a bin */
    assert_int_equal(saw_bands_mel(ctx, 0, 256, 12, got), SAW_ERR_SHAPE);
}

static void test_musical(void **state)
{
    (void)state;
    const char *cases[] = {"bandit_musical", "bandit_v2", "banquet_film", "banquet_vdbo"};
    for (int i = 0; i < 4; i++) {
        json_t *root = meta(cases[i]);
        int bands = number(root, "n_bands");
        saw_band got[ROOM];
        assert_int_equal(
            saw_bands_musical(ctx, number(root, "fs"), number(root, "n_fft"), bands, got), SAW_OK);
        hold_pairs(json_object_get(root, "band_specs"), got, bands);
        json_decref(root);
    }
    /* The published 64-band models; 44.1 and 48 kHz give the same bins. */
    static const int some[][3] = {{0, 0, 3},  {1, 1, 3},    {6, 1, 4},       {8, 2, 4},
                                  {10, 2, 5}, {32, 30, 39}, {62, 823, 1024}, {63, 918, 1025}};
    for (int rate = 44100; rate <= 48000; rate += 3900) {
        saw_band got[ROOM];
        assert_int_equal(saw_bands_musical(ctx, rate, 2048, 64, got), SAW_OK);
        for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
            assert_int_equal(got[some[i][0]].first, some[i][1]);
            assert_int_equal(got[some[i][0]].first + got[some[i][0]].width, some[i][2]);
        }
    }
}

static int zones_of(json_t *list, saw_band_zone *zones)
{
    int n = (int)json_array_size(list);
    for (int i = 0; i < n; i++) {
        json_t *pair = json_array_get(list, (size_t)i);
        zones[i] = (saw_band_zone){json_number_value(json_array_get(pair, 0)),
                                   json_number_value(json_array_get(pair, 1))};
    }
    return n;
}

static const saw_band_zone v7[] = {
    {1000, 100}, {4000, 250}, {8000, 500}, {16000, 1000}, {20000, 2000}};
static const saw_band_zone drums[] = {
    {1000, 50}, {2000, 100}, {4000, 250}, {8000, 500}, {16000, 1000}};
static const saw_band_zone bass[] = {
    {500, 50}, {1000, 100}, {4000, 500}, {8000, 1000}, {16000, 2000}};

static void test_amanteur(void **state)
{
    (void)state;
    const char *cases[] = {"bsrnn_amanteur", "bsrnn_amanteur_mono_gru", "bsrnn_crlandsc"};
    saw_band got[ROOM];
    saw_band_zone zones[8];
    int count;
    for (int i = 0; i < 3; i++) {
        json_t *root = meta(cases[i]);
        int n = zones_of(json_object_get(json_object_get(root, "arch"), "bandsplits"), zones);
        assert_int_equal(saw_bands_zones(ctx, SAW_ZONES_BELOW, number(root, "sr"),
                                         number(root, "n_fft"), zones, n, got, ROOM, &count),
                         SAW_OK);
        hold_pairs(json_object_get(root, "bands"), got, count);
        json_decref(root);
    }
    assert_int_equal(saw_bands_zones(ctx, SAW_ZONES_BELOW, 44100, 2048, v7, 5, got, ROOM, &count),
                     SAW_OK);
    assert_int_equal(count, 41);
    static const int first[] = {0, 5, 10, 14, 19, 24, 28, 33, 38, 42, 47, 59};
    for (int b = 0; b < 12; b++)
        assert_int_equal(got[b].first, first[b]);
    assert_int_equal(got[39].first, 836);
    assert_int_equal(got[40].first, 929);
    saw_bands_zones(ctx, SAW_ZONES_BELOW, 44100, 2048, bass, 5, got, ROOM, &count);
    assert_int_equal(count, 30);
    saw_bands_zones(ctx, SAW_ZONES_BELOW, 44100, 2048, drums, 5, got, ROOM, &count);
    assert_int_equal(count, 55);
}

static void test_magron(void **state)
{
    (void)state;
    const char *cases[] = {"bsrnn_magron", "bsrnn_magron_opt"};
    for (int i = 0; i < 2; i++) {
        json_t *root = meta(cases[i]), *widths = json_object_get(root, "band_widths");
        saw_band got[ROOM];
        int count, at = 0; /* the first is for vocals: no 2 kHz bands at n_fft 1024 */
        assert_int_equal(saw_bands_zones(ctx, SAW_ZONES_WIDTHS, 44100, number(root, "n_fft"),
                                         i ? drums : v7, 5, got, ROOM, &count),
                         SAW_OK);
        assert_int_equal(count, json_array_size(widths));
        for (int b = 0; b < count; b++) {
            assert_int_equal(got[b].first, at);
            assert_int_equal(got[b].width, json_integer_value(json_array_get(widths, (size_t)b)));
            at += got[b].width;
        }
        json_decref(root);
    }
}

static void test_rounded(void **state)
{
    (void)state;
    json_t *root = meta("bandit_vox7");
    saw_band got[ROOM];
    int count;
    assert_int_equal(saw_bands_zones(ctx, SAW_ZONES_ROUNDED, 44100, 2048, v7, 5, got, ROOM, &count),
                     SAW_OK);
    hold_pairs(json_object_get(root, "band_specs"), got, count);
    json_decref(root);
}

static void test_wrong_zones(void **state)
{
    (void)state;
    saw_band got[ROOM];
    int count;
    const saw_band_zone falling[] = {{1000, 100}, {500, 100}}, still[] = {{1000, 0}},
                        fine[] = {{1000, 1}};
    for (int rule = SAW_ZONES_BELOW; rule <= SAW_ZONES_ROUNDED; rule++) {
        assert_int_equal(saw_bands_zones(ctx, rule, 44100, 2048, falling, 2, got, ROOM, &count),
                         SAW_ERR_SHAPE);
        assert_int_equal(saw_bands_zones(ctx, rule, 44100, 2048, still, 1, got, ROOM, &count),
                         SAW_ERR_SHAPE);
        assert_int_equal(saw_bands_zones(ctx, rule, 44100, 2048, v7, 5, got, 20, &count),
                         SAW_ERR_SHAPE);
        assert_int_equal(count, 0);
    }
    assert_int_equal(saw_bands_zones(ctx, SAW_ZONES_BELOW, 44100, 2048, fine, 1, got, ROOM, &count),
                     SAW_ERR_SHAPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mel),      cmocka_unit_test(test_musical),
        cmocka_unit_test(test_amanteur), cmocka_unit_test(test_magron),
        cmocka_unit_test(test_rounded),  cmocka_unit_test(test_wrong_zones),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
