/*
 * test_check.c - a clean data set has no faults; each fault that is planted in it is found, under
 * its name, at its place, with its measure, and no other.
 */
#include "datasets/check.h"
#include "support/songs.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HZ = 44100, SECONDS = 6, FRAMES = SECONDS * HZ };

static char *folder;
static saw_context *ctx;

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    return saw_context_open(&ctx, &(saw_options){.threads = 1});
}

static int leave(void **state)
{
    (void)state;
    size_t left = saw_context_memory(ctx).now_bytes;
    saw_context_close(ctx);
    test_leave_folder(folder);
    return left != 0;
}

/* ---- a song of three stems ------------------------------------------------------------------- */

/* Stem s of a song: noise, smoothed so that there is something at low frequencies, in bursts. */
typedef struct part {
    int song, stem;
    double gain;
} part;

static double noise_at(const part *p, int c, int64_t i)
{
    test_sound s = {.noise = (uint64_t)(100 * p->song + 10 * p->stem + c + 1), .gain = 1};
    double sum = 0;
    for (int k = 0; k < 4; k++)
        sum += test_sound_at(&s, HZ, (i + k) / 4);
    return sum / 4;
}

/* The bass rests in the second half of each second, the others always sound. */
static double part_at(const part *p, int c, int64_t i)
{
    bool rests = p->stem == 0 && i % HZ >= HZ / 2;
    return rests ? 0 : 0.25 * p->gain * noise_at(p, c, i);
}

/* The sum of some parts, ended by gain 0. */
static double parts_at(const void *user, int c, int64_t i)
{
    double sum = 0;
    for (const part *p = user; p->gain != 0; p++)
        sum += part_at(p, c, i);
    return sum;
}

static const char *const stem_names[] = {"bass", "drums", "vocals"};

static void write_song(int song)
{
    char path[64];
    const part mix[] = {{song, 0, 1}, {song, 1, 1}, {song, 2, 1}, {0}};
    for (int s = 0; s < 3; s++) {
        const part one[] = {{song, s, 1}, {0}};
        snprintf(path, sizeof path, "set/song%d/%s.wav", song, stem_names[s]);
        test_write_file(path, HZ, 2, FRAMES, parts_at, one);
    }
    snprintf(path, sizeof path, "set/song%d/mixture.wav", song);
    test_write_file(path, HZ, 2, FRAMES, parts_at, mix);
}

static saw_check *check_set(const char *path, const saw_check_options *o)
{
    saw_check *c;
    int first;
    if (saw_check_open(ctx, path, o, &c))
        fail_msg("%s", saw_context_error(ctx));
    for (int i = 0; i <= saw_check_songs(c); i++)
        if (saw_check_run(c, i, &first))
            fail_msg("%s", saw_context_error(ctx));
    return c;
}

static void fail_with_all(const saw_check *c, const char *what)
{
    for (int i = 0; i < saw_check_faults(c); i++) {
        const saw_fault *f = saw_check_fault(c, i);
        print_message("  %s, %s, %s: %s (%g)\n", saw_fault_name(f->kind), f->song,
                      f->stem ? f->stem : "-", f->text, f->value);
    }
    fail_msg("%s: the faults above were found", what);
}

/* Exactly this one fault, and its value within a range. */
static void find_one(const char *what, saw_fault_kind kind, const char *song, const char *stem,
                     double least, double most)
{
    saw_check *c = check_set("set", &(saw_check_options){0});
    const saw_fault *f = saw_check_faults(c) == 1 ? saw_check_fault(c, 0) : NULL;
    bool good = f && f->kind == kind && !strcmp(f->song, song) && !f->stem == !stem &&
                (!stem || !strcmp(f->stem, stem)) && f->value >= least && f->value <= most &&
                !strchr(f->text, '\n');
    if (!good)
        fail_with_all(c, what);
    saw_check_close(c);
}

static void test_clean(void **state)
{
    (void)state;
    write_song(1);
    write_song(2);
    write_song(3);
    saw_check *c = check_set("set", &(saw_check_options){0});
    if (saw_check_faults(c))
        fail_with_all(c, "a clean set");
    assert_int_equal(saw_check_songs(c), 3);
    assert_string_equal(saw_check_layout(c), "musdb");
    assert_true(fabs(saw_check_seconds(c) - 3 * SECONDS) < 1e-6);
    saw_check_close(c);
}

/* ---- planted faults -------------------------------------------------------------------------- */

static void write_two(void)
{
    write_song(1);
    write_song(2);
}

static void test_not_sum(void **state)
{
    (void)state;
    write_two();
    /* the drums are 6 dB too low: 0.5 d of b + d + v, with b half of the time */
    const part soft[] = {{1, 0, 1}, {1, 1, 0.5}, {1, 2, 1}, {0}};
    test_write_file("set/song1/mixture.wav", HZ, 2, FRAMES, parts_at, soft);
    double want = 10 * log10(0.25 / (0.5 + 0.25 + 1));
    find_one("soft drums", SAW_FAULT_NOT_SUM, "song1", NULL, want - 0.1, want + 0.1);
    /* only a gain of 3 dB */
    const part loud[] = {{1, 0, 1.4125}, {1, 1, 1.4125}, {1, 2, 1.4125}, {0}};
    test_write_file("set/song1/mixture.wav", HZ, 2, FRAMES, parts_at, loud);
    saw_check *c = check_set("set", &(saw_check_options){0});
    assert_int_equal(saw_check_faults(c), 1);
    assert_non_null(strstr(saw_check_fault(c, 0)->text, "when the sum gets +3.00 dB"));
    saw_check_close(c);
}

static void test_silent(void **state)
{
    (void)state;
    write_two();
    const part rest[] = {{2, 0, 1}, {2, 1, 1}, {0}}, faint[] = {{2, 2, 1e-4}, {0}};
    test_write_file("set/song2/vocals.wav", HZ, 2, FRAMES, parts_at, faint);
    test_write_file("set/song2/mixture.wav", HZ, 2, FRAMES, parts_at, rest);
    find_one("faint vocals", SAW_FAULT_SILENT, "song2", "vocals", -110, -70);
}

static double left_only(const void *user, int c, int64_t i)
{
    return c ? 0 : parts_at(user, c, i);
}

static void test_one_sided(void **state)
{
    (void)state;
    write_two();
    const part vocals[] = {{1, 2, 1}, {0}};
    test_write_file("set/song1/vocals.wav", HZ, 2, FRAMES, left_only, vocals);
    assert_int_equal(remove("set/song1/mixture.wav"), 0);
    find_one("left only", SAW_FAULT_ONE_SIDED, "song1", "vocals", -INFINITY, -70);
}

static double clipped(const void *user, int c, int64_t i)
{
    double x = 4.5 * parts_at(user, c, i);
    return x > 1 ? 1 : x < -1 ? -1 : x;
}

static void test_clipped(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, 1}, {0}};
    test_write_file("set/song1/drums.flac", HZ, 2, FRAMES, clipped, drums);
    assert_int_equal(remove("set/song1/drums.wav"), 0);
    assert_int_equal(remove("set/song1/mixture.wav"), 0);
    find_one("clipped drums", SAW_FAULT_CLIPPED, "song1", "drums", 10, FRAMES);
}

static double with_dc(const void *user, int c, int64_t i)
{
    return parts_at(user, c, i) + (c ? -0.01 : 0);
}

static void test_dc(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, 1}, {0}};
    test_write_file("set/song1/drums.wav", HZ, 2, FRAMES, with_dc, drums);
    assert_int_equal(remove("set/song1/mixture.wav"), 0);
    find_one("DC", SAW_FAULT_DC, "song1", "drums", -0.011, -0.009);
}

static void test_rates_and_channels(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, 1}, {0}}, bass[] = {{2, 0, 1}, {0}};
    test_write_file("set/song1/drums.wav", 48000, 2, SECONDS * 48000, parts_at, drums);
    find_one("48 kHz", SAW_FAULT_RATE, "song1", "drums", 48000, 48000);
    write_song(1);
    assert_int_equal(remove("set/song2/mixture.wav"), 0);
    test_write_file("set/song2/bass.wav", HZ, 1, FRAMES, parts_at, bass);
    find_one("mono", SAW_FAULT_CHANNELS, "song2", "bass", 1, 1);
    /* all of them when another rate is wanted */
    saw_check *c = check_set("set", &(saw_check_options){.rate_hz = 48000});
    assert_int_equal(saw_check_faults(c), 7 + 1);
    saw_check_close(c);
}

static void test_length(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, 1}, {0}};
    test_write_file("set/song1/drums.wav", HZ, 2, FRAMES - HZ / 10, parts_at, drums);
    saw_check *c = check_set("set", &(saw_check_options){0});
    const saw_fault *f = saw_check_fault(c, 0);
    assert_int_equal(f->kind, SAW_FAULT_LENGTH);
    assert_true(fabs(f->value - 0.1) < 1e-3);
    assert_string_equal(f->text, "drums.wav is 5.900 s long, bass.wav 6.000 s");
    saw_check_close(c);
}

/* In the rests of the bass there is something of the drums, 3 ms late. */
static double leaking(const void *user, int c, int64_t i)
{
    const part drums = {1, 1, pow(10, -30 / 20.0)};
    return parts_at(user, c, i) + (i >= 132 ? part_at(&drums, c, i - 132) : 0);
}

static void test_bleed(void **state)
{
    (void)state;
    write_two();
    const part bass[] = {{1, 0, 1}, {0}};
    test_write_file("set/song1/bass.wav", HZ, 2, FRAMES, leaking, bass);
    find_one("bleed", SAW_FAULT_BLEED, "song1", "bass", -31, -29);
    saw_check *c = check_set("set", &(saw_check_options){0});
    const char *text = saw_check_fault(c, 0)->text;
    if (!strstr(text, "bass holds drums at ") ||
        (!strstr(text, "+2.9 ms") && !strstr(text, "+3.1 ms")) ||
        !strstr(text, "(50 % of the time that drums sounds"))
        fail_with_all(c, "bleed");
    saw_check_close(c);
}

/* Another song's drums, softer and upside down, as a FLAC and at another rate. */
static void test_duplicates(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, -0.3}, {0}};
    assert_int_equal(remove("set/song2/mixture.wav"), 0);
    test_write_file("set/song2/drums.wav", HZ, 2, FRAMES, parts_at, drums);
    find_one("drums of song 1", SAW_FAULT_DUPLICATE, "song2", "drums", 1, 1);
    write_song(2);
    assert_int_equal(rename("set/song2/vocals.wav", "set/song2/choir.wav"), 0);
    const part vocals[] = {{2, 2, 0.7}, {0}}, mix[] = {{2, 0, 1}, {2, 1, 1}, {2, 2, 1.7}, {0}};
    test_write_file("set/song2/vocals.flac", HZ, 2, FRAMES, parts_at, vocals);
    test_write_file("set/song2/mixture.wav", HZ, 2, FRAMES, parts_at, mix);
    find_one("twice in a song", SAW_FAULT_DUPLICATE, "song2", "choir", 1, 1);
}

static double not_a_number(const void *user, int c, int64_t i)
{
    return c && i == 100000 ? NAN : parts_at(user, c, i);
}

static void test_damaged(void **state)
{
    (void)state;
    write_two();
    const part drums[] = {{1, 1, 1}, {0}};
    test_write_file("set/song1/drums.wav", HZ, 2, FRAMES, not_a_number, drums);
    find_one("NaN", SAW_FAULT_DAMAGED, "song1", "drums", 0, 0);
    saw_check *c = check_set("set", &(saw_check_options){0});
    assert_non_null(strstr(saw_check_fault(c, 0)->text,
                           "set/song1/drums.wav: holds a sample that is "
                           "not a finite number, at 2.268 s"));
    saw_check_close(c);
    write_song(1);
    assert_int_equal(truncate("set/song2/vocals.wav", 5000), 0);
    find_one("cut", SAW_FAULT_DAMAGED, "song2", "vocals", 0, 0);
    test_write_text("set/song2/vocals.wav", "no audio at all");
    find_one("text", SAW_FAULT_DAMAGED, "song2", "vocals", 0, 0);
}

static void test_notes(void **state)
{
    (void)state;
    write_two();
    write_song(3);
    assert_int_equal(remove("set/song3/mixture.wav"), 0);
    assert_int_equal(remove("set/song3/bass.wav"), 0);
    find_one("no bass", SAW_FAULT_MISSING, "song3", "bass", 2, 2);
    saw_check *c = check_set("set", &(saw_check_options){0});
    assert_true(saw_check_fault(c, 0)->note);
    saw_check_close(c);
}

static void count_progress(void *user, int song, double done_s, double total_s)
{
    int *calls = user;
    ++*calls;
    assert_true(song >= 0 && done_s > 0 && total_s == 2 * SECONDS);
    if (*calls == 8)
        saw_context_cancel(ctx);
}

static void test_progress_and_cancel(void **state)
{
    (void)state;
    int calls = 0, first;
    saw_check *c;
    write_two();
    saw_check_options o = {.progress = count_progress, .user = &calls};
    assert_int_equal(saw_check_open(ctx, "set", &o, &c), SAW_OK);
    assert_int_equal(saw_check_run(c, 0, &first), SAW_OK);
    assert_int_equal(saw_check_run(c, 1, &first), SAW_ERR_CANCELLED);
    saw_check_close(c);
    saw_context_resume(ctx);
    assert_int_equal(saw_check_open(ctx, "nowhere", &o, &c), SAW_ERR_IO);
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_clean, enter, leave),
        cmocka_unit_test_setup_teardown(test_not_sum, enter, leave),
        cmocka_unit_test_setup_teardown(test_silent, enter, leave),
        cmocka_unit_test_setup_teardown(test_one_sided, enter, leave),
        cmocka_unit_test_setup_teardown(test_clipped, enter, leave),
        cmocka_unit_test_setup_teardown(test_dc, enter, leave),
        cmocka_unit_test_setup_teardown(test_rates_and_channels, enter, leave),
        cmocka_unit_test_setup_teardown(test_length, enter, leave),
        cmocka_unit_test_setup_teardown(test_bleed, enter, leave),
        cmocka_unit_test_setup_teardown(test_duplicates, enter, leave),
        cmocka_unit_test_setup_teardown(test_damaged, enter, leave),
        cmocka_unit_test_setup_teardown(test_notes, enter, leave),
        cmocka_unit_test_setup_teardown(test_progress_and_cancel, enter, leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
