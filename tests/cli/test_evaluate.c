/*
 * test_evaluate.c - folders of references and estimates: what is paired, summed, left out, and that
 * the scores are those of museval and MSST (tests/golden/metrics).
 */
#include "support/test.h"

#include "io/audio.h"
#include "run/evaluate.h"

#include <jansson.h>
#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WARNINGS = 16 };

static char *folder, warnings[WARNINGS][512];
static int warning_count;
static saw_context *ctx;

static void keep_warning(void *user, int level, const char *line)
{
    (void)user;
    if (level == SAW_LOG_WARN && warning_count < WARNINGS)
        snprintf(warnings[warning_count++], sizeof *warnings, "%s", line);
}

static int enter(void **state)
{
    (void)state;
    folder = test_temp_folder();
    warning_count = 0;
    assert_int_equal(chdir(folder), 0);
    return saw_context_open(&ctx, &(saw_options){.threads = 2, .log = keep_warning});
}

static int leave(void **state)
{
    (void)state;
    saw_context_close(ctx);
    test_leave_folder(folder);
    return 0;
}

/* A golden file under another name. */
static void place(const char *file, const char *path)
{
    char from[512], folders[512];
    snprintf(from, sizeof from, SAW_TEST_GOLDEN "/metrics/%s", file);
    snprintf(folders, sizeof folders, "%s", path);
    *strrchr(folders, '/') = 0;
    assert_int_equal(saw_make_folders(ctx, folders), SAW_OK);
    assert_int_equal(symlink(from, path), 0);
}

static const char *const stems[][2] = {{"vocals", "p1_vocals_leak"},
                                       {"drums", "p2_drums_noise"},
                                       {"bass", "p3_bass_gain"},
                                       {"other", "p4_other_delay"}};

static void place_song(const char *name)
{
    char file[128], path[128];
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s.ref.flac", stems[i][1]);
        snprintf(path, sizeof path, "ref/%s/%s.flac", name, stems[i][0]);
        place(file, path);
        snprintf(file, sizeof file, "%s.est.flac", stems[i][1]);
        snprintf(path, sizeof path, "est/%s/%s.flac", name, stems[i][0]);
        place(file, path);
    }
}

static void write_wav(const char *path, int rate_hz, int channels, sf_count_t frames, float level)
{
    SF_INFO info = {
        .samplerate = rate_hz, .channels = channels, .format = SF_FORMAT_WAV | SF_FORMAT_FLOAT};
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    float *x = malloc((size_t)(frames * channels) * sizeof *x);
    assert_non_null(f);
    for (sf_count_t i = 0; i < frames * channels; i++)
        x[i] = level * (float)sin(0.01 * (double)i);
    assert_int_equal(sf_writef_float(f, x, frames), frames);
    sf_close(f);
    free(x);
}

static saw_evaluation *open_evaluation(const char *const *sums, int n_sums)
{
    saw_evaluation *v;
    saw_evaluation_options o = {.reference = "ref",
                                .estimate = "est/",
                                .sums = sums,
                                .n_sums = n_sums,
                                .metrics = SAW_METRIC_ALL};
    if (saw_evaluation_open(ctx, &o, &v))
        fail_msg("%s", saw_context_error(ctx));
    return v;
}

static const saw_stem_scores *row_of(const saw_stem_scores *rows, int count, const char *stem)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(rows[i].stem, stem))
            return &rows[i];
    fail_msg("there is no row of %s", stem);
    return NULL;
}

static void hold(const saw_stem_scores *row, saw_metric metric, double want)
{
    double got = row->score[metric];
    if (!(isfinite(want) ? fabs(got - want) < 0.01 : isnan(want) ? isnan(got) : got == want))
        fail_msg("%s of %s: %.6f, wanted %.6f", saw_metric_name(metric), row->stem, got, want);
}

static bool warned(const char *says)
{
    for (int i = 0; i < warning_count; i++)
        if (strstr(warnings[i], says))
            return true;
    return false;
}

static double value(json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void test_scores(void **state)
{
    (void)state;
    static const struct {
        saw_metric metric;
        const char *key;
    } own[] = {{SAW_METRIC_SDR, "msst_sdr"},
               {SAW_METRIC_SI_SDR, "si_sdr_flat"},
               {SAW_METRIC_L1_FREQ, "msst_l1_freq"},
               {SAW_METRIC_BLEEDLESS, "msst_bleedless"},
               {SAW_METRIC_FULLNESS, "msst_fullness"}},
      joint[] = {{SAW_METRIC_CHUNK_SDR, "SDR_median"},
                 {SAW_METRIC_ISR, "ISR_median"},
                 {SAW_METRIC_SIR, "SIR_median"},
                 {SAW_METRIC_SAR, "SAR_median"}};
    json_t *root = json_load_file(SAW_TEST_GOLDEN "/metrics/metrics.json", 0, NULL);
    json_t *museval = json_object_get(json_object_get(root, "museval"), "joint_4");
    assert_non_null(museval);
    place_song("a/song");
    place("p5_silent_reference.est.flac", "ref/a/song/mixture.flac");
    saw_evaluation *v = open_evaluation(NULL, 0);
    const saw_stem_scores *rows;
    int count;
    assert_int_equal(saw_evaluation_songs(v), 1);
    assert_string_equal(saw_evaluation_song(v, 0), "a/song");
    assert_int_equal(saw_evaluation_run(v, 0, &rows, &count), SAW_OK);
    assert_int_equal(count, 4);
    for (int i = 0; i < 4; i++) {
        const saw_stem_scores *row = row_of(rows, count, stems[i][0]);
        json_t *pair =
            json_object_get(json_object_get(json_object_get(root, "pairs"), stems[i][1]), "values");
        json_t *snr = json_object_get(pair, "snr_per_channel");
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            hold(row, own[k].metric, value(pair, own[k].key));
        for (size_t k = 0; k < sizeof joint / sizeof *joint; k++)
            hold(row, joint[k].metric,
                 json_number_value(
                     json_array_get(json_object_get(museval, joint[k].key), (size_t)i)));
        hold(row, SAW_METRIC_SNR,
             (json_number_value(json_array_get(snr, 0)) +
              json_number_value(json_array_get(snr, 1))) /
                 2);
        assert_int_equal(row->windows, 3);
        assert_int_equal(row->windows_scored, 3);
    }
    assert_int_equal(saw_evaluation_problems(v), 0);
    saw_evaluation_close(v);
    json_decref(root);
}

/* A sum is made on the side that lacks it, scored with what is not in it, and changes nothing for
 * the others; parts need no estimates then. */
static void test_sums(void **state)
{
    (void)state;
    const char *sums[] = {"accompaniment=drums+bass+other"};
    const saw_stem_scores *rows;
    int count;
    place_song("one");
    saw_evaluation *v = open_evaluation(sums, 1);
    assert_int_equal(saw_evaluation_run(v, 0, &rows, &count), SAW_OK);
    assert_int_equal(count, 5);
    saw_stem_scores all = *row_of(rows, count, "accompaniment"),
                    vocals = *row_of(rows, count, "vocals");
    saw_evaluation_close(v);
    assert_true(isfinite(all.score[SAW_METRIC_SIR]));
    hold(&vocals, SAW_METRIC_SIR, 15.57370096853671);

    /* the same accompaniment as a file beside the vocals alone */
    float *sum[2] = {NULL}, *part[2];
    int64_t n = 154350, got;
    saw_audio_reader *r;
    for (int c = 0; c < 2; c++) {
        sum[c] = calloc((size_t)n, sizeof **sum);
        part[c] = malloc((size_t)n * sizeof **part);
    }
    for (int i = 1; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "est/one/%s.flac", stems[i][0]);
        assert_int_equal(saw_audio_open(ctx, path, &r), SAW_OK);
        assert_int_equal(saw_audio_read(r, part, n, &got), SAW_OK);
        for (int64_t t = 0; t < 2 * n; t++)
            sum[t / n][t % n] += part[t / n][t % n];
        saw_audio_close(r);
        unlink(path);
    }
    saw_audio_writer *w;
    assert_int_equal(saw_audio_create(ctx, "est/one/accompaniment.wav",
                                      &(saw_audio_format){.kind = SAW_AUDIO_WAV}, 2, 44100, NULL,
                                      &w),
                     SAW_OK);
    assert_int_equal(saw_audio_write(w, (const float *const *)sum, n), SAW_OK);
    assert_int_equal(saw_audio_commit(w, NULL), SAW_OK);
    for (int c = 0; c < 2; c++) {
        free(sum[c]);
        free(part[c]);
    }
    v = open_evaluation(sums, 1);
    assert_int_equal(saw_evaluation_run(v, 0, &rows, &count), SAW_OK);
    assert_int_equal(count, 2);
    const saw_stem_scores *filed = row_of(rows, count, "accompaniment");
    for (saw_metric m = 0; m < SAW_METRIC_COUNT; m++)
        assert_true(fabs(filed->score[m] - all.score[m]) < 1e-3);
    assert_int_equal(saw_evaluation_problems(v), 0);
    saw_evaluation_close(v);
}

static void test_silent(void **state)
{
    (void)state;
    place("p1_vocals_leak.ref.flac", "ref/vocals.flac"); /* the folder itself is the song */
    place("p1_vocals_leak.est.flac", "est/vocals.flac");
    place("p5_silent_reference.ref.flac", "ref/drums.flac");
    place("p5_silent_reference.est.flac", "est/drums.flac");
    place("p4_other_delay.ref.flac", "ref/other.flac");
    place("p6_silent_estimate.est.flac", "est/other.flac");
    saw_evaluation *v = open_evaluation(NULL, 0);
    const saw_stem_scores *rows;
    saw_score_summary s;
    int count;
    assert_string_equal(saw_evaluation_song(v, 0), "ref");
    assert_int_equal(saw_evaluation_run(v, 0, &rows, &count), SAW_OK);
    assert_int_equal(count, 3);
    const saw_stem_scores *vocals = row_of(rows, count, "vocals"),
                          *drums = row_of(rows, count, "drums"),
                          *other = row_of(rows, count, "other");
    assert_true(drums->silent_reference && !drums->silent_estimate);
    assert_true(other->silent_estimate && !other->silent_reference);
    hold(vocals, SAW_METRIC_CHUNK_SDR, 15.54880901046198);
    hold(vocals, SAW_METRIC_SIR, INFINITY); /* nobody else is left */
    hold(drums, SAW_METRIC_SDR, -76.98834566226368);
    hold(drums, SAW_METRIC_SNR, -INFINITY);
    hold(drums, SAW_METRIC_SI_SDR, NAN);
    hold(drums, SAW_METRIC_CHUNK_SDR, NAN);
    hold(drums, SAW_METRIC_BLEEDLESS, 0.7011357593056627);
    hold(other, SAW_METRIC_SDR, 0);
    hold(other, SAW_METRIC_SNR, 0);
    hold(other, SAW_METRIC_ISR, NAN);
    hold(other, SAW_METRIC_FULLNESS, 0.6610883915593234);
    assert_int_equal(saw_evaluation_summary(v, NULL, SAW_METRIC_SDR, &s), SAW_OK);
    assert_true(s.rows == 3 && s.counted == 2 && fabs(s.mean - 14.91647 / 2) < 1e-4);
    assert_true(s.mean == s.median);
    assert_int_equal(saw_evaluation_summary(v, NULL, SAW_METRIC_BLEEDLESS, &s), SAW_OK);
    assert_true(s.counted == 3 && s.median == vocals->score[SAW_METRIC_BLEEDLESS]);
    assert_int_equal(saw_evaluation_summary(v, "drums", SAW_METRIC_SNR, &s), SAW_OK);
    assert_true(s.rows == 1 && s.counted == 0 && isnan(s.mean) && isnan(s.median));
    assert_string_equal(saw_evaluation_stem(v, 0), "drums");
    assert_null(saw_evaluation_stem(v, 3));
    saw_evaluation_close(v);
}

static void test_problems(void **state)
{
    (void)state;
    assert_int_equal(saw_make_folders(ctx, "ref/a"), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, "est/a"), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, "est/b"), SAW_OK);
    const char *const names[] = {"good", "rate", "channels", "length", "missing", "twice", "cut"};
    char path[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "ref/a/%s.wav", names[i]);
        write_wav(path, 8000, 1, 8000, 0.5f);
        snprintf(path, sizeof path, "est/a/%s.wav", names[i]);
        if (i != 4)
            write_wav(path, i == 1 ? 16000 : 8000, i == 2 ? 2 : 1, i == 3 ? 7999 : 8000, 0.25f);
    }
    write_wav("ref/a/short.wav", 8000, 1, 500, 0.5f); /* alike, but not as long as the song */
    write_wav("est/a/short.wav", 8000, 1, 500, 0.5f);
    write_wav("est/a/twice.aiff", 8000, 1, 8000, 0.5f);
    write_wav("est/b/stray.wav", 8000, 1, 8000, 0.5f);
    assert_int_equal(truncate("est/a/cut.wav", 5000), 0);
    saw_evaluation *v = open_evaluation(NULL, 0);
    const saw_stem_scores *rows;
    int count;
    assert_int_equal(saw_evaluation_songs(v), 1);
    assert_int_equal(saw_evaluation_problems(v), 3);
    assert_true(warned("ref/a/missing.wav: left out, its estimate est/a/missing.* is missing"));
    assert_true(warned("stray.wav: left out, its reference ref/b/stray.* is missing"));
    assert_true(warned("left out, another file of the folder is the same stem"));
    assert_int_equal(saw_evaluation_run(v, 0, &rows, &count), SAW_OK);
    assert_true(warned("16000 Hz, but ref/a/rate.wav has 8000"));
    assert_true(warned("2 channels, but ref/a/channels.wav has 1"));
    assert_true(warned("7999 samples, but ref/a/length.wav has 8000"));
    assert_true(warned("ref/a/short.wav has 500 samples"));
    assert_true(warned("est/a/cut.wav"));
    assert_int_equal(saw_evaluation_problems(v), 8);
    assert_int_equal(warning_count, 8);
    assert_int_equal(count, 2);
    hold(row_of(rows, count, "good"), SAW_METRIC_SDR, 20 * log10(2));
    saw_evaluation_close(v);
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(saw_make_folders(ctx, "ref/a"), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, "est/b"), SAW_OK);
    saw_evaluation_options o = {"ref", "est", NULL, 0, SAW_METRIC_ALL, NULL, NULL};
    saw_evaluation *v;
    assert_int_equal(saw_evaluation_open(ctx, &o, &v), SAW_ERR_IO);
    assert_non_null(strstr(saw_context_error(ctx), "the folder holds no audio files"));
    write_wav("ref/a/x.wav", 8000, 1, 100, 0.5f);
    write_wav("est/b/x.wav", 8000, 1, 100, 0.5f);
    assert_int_equal(saw_evaluation_open(ctx, &o, &v), SAW_ERR_IO);
    assert_non_null(strstr(saw_context_error(ctx), "est/a/x.wav"));
    const char *const bad[] = {"=a+b", "sum", "sum=", "sum=a++b", "sum=a+"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.sums = &bad[i];
        o.n_sums = 1;
        assert_int_equal(saw_evaluation_open(ctx, &o, &v), SAW_ERR_ARGUMENT);
        assert_null(v);
    }
}

/* ---- failing memory -------------------------------------------------------------------------- */

static void *fail_later(void *user, size_t bytes)
{
    return --*(int *)user < 0 ? NULL : malloc(bytes);
}

static void release(void *user, void *block)
{
    (void)user;
    free(block);
}

static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(saw_make_folders(ctx, "ref"), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, "est"), SAW_OK);
    const char *const names[] = {"a", "b", "c"}, *const sums[] = {"sum=b+c"};
    char path[64];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "ref/%s.wav", names[i]);
        write_wav(path, 2000, 1, 2000, 0.5f / (float)(i + 1));
        snprintf(path, sizeof path, "est/%s.wav", names[i]);
        write_wav(path, 2000, 1, 2000, 0.25f);
    }
    saw_evaluation_options o = {"ref", "est", sums, 1, SAW_METRIC_ALL, NULL, NULL};
    saw_status status = SAW_ERR_MEMORY;
    int n = 0;
    for (; status; n++) {
        int left = n;
        saw_context *poor;
        saw_evaluation *v = NULL;
        const saw_stem_scores *rows;
        int count = 0;
        status = saw_context_open(
            &poor,
            &(saw_options){.threads = 1, .alloc = fail_later, .release = release, .user = &left});
        if (!status)
            status = saw_evaluation_open(poor, &o, &v);
        if (!status)
            status = saw_evaluation_run(v, 0, &rows, &count);
        assert_true(status == SAW_OK || status == SAW_ERR_MEMORY);
        assert_true(status || count == 4);
        saw_evaluation_close(v);
        saw_context_close(poor);
    }
    assert_true(n > 50);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(test_scores),   CASE(test_sums),    CASE(test_silent),
                                       CASE(test_problems), CASE(test_refused), CASE(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
