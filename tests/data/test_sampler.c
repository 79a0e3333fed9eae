/*
 * test_sampler.c - batches: a pure function of the step, whose mixture is the sum of its sources;
 * what is drawn (loudness gate, alignment, balance, short songs), what is done to it (each kind of
 * augmentation against its formula), and what happens when a file breaks.
 */
#include "datasets/sampler.h"
#include "support/songs.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HZ = 44100, N = 8192, C = 2 };

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

/* ---- a data set and its batches -------------------------------------------------------------- */

typedef struct batches {
    saw_dataset *d;
    saw_sampler *s;
    saw_sampler_options o;
    int stems;
    float *mix, *stem; /* [batch][C][N], [batch][stems][C][N] */
} batches;

static void open_sampler(batches *b)
{
    if (saw_sampler_open(ctx, b->d, &b->o, &b->s))
        fail_msg("%s", saw_context_error(ctx));
}

static batches open_batches(const char *path, int n, const char *const *names,
                            saw_sampler_options o)
{
    batches b = {.o = o};
    b.o.chunk_samples = o.chunk_samples ? o.chunk_samples : N;
    b.o.batch = o.batch ? o.batch : 1;
    b.o.cache_bytes = 1 << 22;
    saw_dataset_options wanted = {.stems = names, .n_stems = n};
    if (saw_dataset_open(ctx, path, &wanted, &b.d))
        fail_msg("%s", saw_context_error(ctx));
    b.stems = saw_dataset_stems(b.d);
    size_t floats = (size_t)b.o.batch * C * (size_t)b.o.chunk_samples;
    b.mix = malloc(floats * sizeof(float));
    b.stem = malloc(floats * (size_t)b.stems * sizeof(float));
    open_sampler(&b);
    return b;
}

static void close_batches(batches *b)
{
    saw_sampler_close(b->s);
    saw_dataset_close(b->d);
    free(b->mix);
    free(b->stem);
}

static void make(batches *b, int64_t step)
{
    if (saw_sampler_batch(b->s, step, b->mix, b->stem))
        fail_msg("step %lld: %s", (long long)step, saw_context_error(ctx));
}

static uint64_t hash(const batches *b)
{
    size_t floats = (size_t)b->o.batch * C * (size_t)b->o.chunk_samples;
    return saw_fnv1a(b->mix, floats * sizeof(float)) * 31 +
           saw_fnv1a(b->stem, floats * (size_t)b->stems * sizeof(float));
}

static saw_augment parse(const char *text)
{
    saw_augment a;
    if (saw_augment_parse(ctx, text, &a))
        fail_msg("%s", saw_context_error(ctx));
    return a;
}

/* Three songs of noise; bass.wav is in one of them only. */
static void write_set(void)
{
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "set/song%d/vocals.wav", i);
        test_write_sound(path, HZ, 2, 60000, (test_sound){.noise = 10 + (uint64_t)i, .gain = 0.3});
        snprintf(path, sizeof path, "set/song%d/drums.flac", i);
        test_write_sound(path, HZ, 1, 60000, (test_sound){.noise = 20 + (uint64_t)i, .gain = 0.2});
    }
    test_write_sound("set/song1/bass.wav", 48000, 2, 65000, (test_sound){.hz = 80, .gain = 0.4});
}

/* ---- what a batch is ------------------------------------------------------------------------- */

static void test_steps(void **state)
{
    (void)state;
    static const char *const everything[] = {
        "layer@0.5", "mixup@0.5",  "polarity",  "swap",     "eq@0.5",   "saturation@0.5",
        "gain",      "reverb@0.5", "codec@0.5", "mute@0.1", "bleed@0.5"};
    saw_augment chain[11];
    uint64_t want[7];
    write_set();
    for (int i = 0; i < 11; i++)
        chain[i] = parse(everything[i]);
    batches b =
        open_batches("set", 0, NULL,
                     (saw_sampler_options){
                         .batch = 3, .seed = 9, .aligned = 0.5, .augment = chain, .n_augment = 11});
    for (int i = 0; i < 7; i++) {
        make(&b, i);
        want[i] = hash(&b);
        for (int k = 0; k < i; k++)
            assert_true(want[k] != want[i]);
    }
    /* a run that goes on at step 4, one that jumps about, one with another cache */
    static const int order[] = {4, 5, 6, 1, 0, 0, 3, 5, 2};
    saw_sampler_close(b.s);
    b.o.cache_bytes = 1;
    open_sampler(&b);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        make(&b, order[i]);
        if (hash(&b) != want[order[i]])
            fail_msg("step %d is another one when it is the %zu. that is asked for", order[i], i);
    }
    /* another seed */
    saw_sampler_close(b.s);
    b.o.seed = 10;
    open_sampler(&b);
    make(&b, 4);
    assert_true(hash(&b) != want[4]);
    close_batches(&b);
}

/* A kind that is added changes nothing else. */
static void test_independent_dice(void **state)
{
    (void)state;
    saw_augment chain[] = {parse("polarity@0.5"), parse("vocals/gain=6@1")};
    write_set();
    batches b = open_batches(
        "set", 0, NULL,
        (saw_sampler_options){.batch = 4, .seed = 1, .augment = chain, .n_augment = 1});
    size_t floats = (size_t)(4 * b.stems * C * N);
    float *before = malloc(floats * sizeof *before);
    make(&b, 3);
    memcpy(before, b.stem, floats * sizeof *before);
    saw_sampler_close(b.s);
    b.o.n_augment = 2;
    open_sampler(&b);
    make(&b, 3);
    for (size_t i = 0; i < floats; i++) {
        bool vocals = i / (C * N) % (size_t)b.stems == 2;
        float want = before[i] * (vocals ? (float)pow(10, 6 / 20.0) : 1);
        assert_true(fabsf(b.stem[i] - want) <= 1e-6f * fabsf(want));
    }
    free(before);
    close_batches(&b);
}

static void test_sum(void **state)
{
    (void)state;
    static const char *const vocals[] = {"vocals"};
    saw_augment chain[] = {parse("gain@1"), parse("eq@1"), parse("bleed@1")};
    write_set();
    /* all stems: the mixture is their sum, to the bit */
    batches b = open_batches("set", 0, NULL, (saw_sampler_options){.batch = 2, .aligned = 0.5});
    for (int step = 0; step < 5; step++) {
        make(&b, step);
        for (int item = 0; item < 2; item++)
            for (int i = 0; i < C * N; i++) {
                const float *s = b.stem + item * 3 * C * N + i;
                assert_true(b.mix[item * C * N + i] == (s[0] + s[C * N]) + s[2 * C * N]);
            }
    }
    close_batches(&b);
    /* vocals alone: what is left is the rest; without augmentation of an aligned item, the song's
     */
    b = open_batches("set", 1, vocals,
                     (saw_sampler_options){.aligned = 1, .augment = chain, .n_augment = 0});
    assert_int_equal(saw_dataset_sources(b.d), 2);
    make(&b, 0);
    double rest = 0;
    for (int i = 0; i < C * N; i++)
        rest += (double)(b.mix[i] - b.stem[i]) * (b.mix[i] - b.stem[i]);
    assert_true(rest / (C * N) > 0.2 * 0.2 / 3 * 0.9);
    close_batches(&b);
}

/* ---- what is drawn --------------------------------------------------------------------------- */

/* Songs that say in each sample which song and when it is: song + i / 2^17, exact in float. */
static double clock_signal(const void *user, int c, int64_t i)
{
    (void)c;
    return *(const int *)user + (double)i / 131072;
}

static void test_alignment(void **state)
{
    (void)state;
    write_set();
    for (int i = 0; i < 5; i++) {
        char path[64];
        int number = i + 1;
        snprintf(path, sizeof path, "clock/song%d/vocals.wav", i);
        test_write_file(path, HZ, 2, 100000, clock_signal, &number);
        snprintf(path, sizeof path, "clock/song%d/drums.wav", i);
        test_write_file(path, HZ, 2, 100000, clock_signal, &number);
    }
    int songs[6] = {0}, equal = 0;
    batches b = open_batches("clock", 0, NULL, (saw_sampler_options){.batch = 100, .aligned = 1});
    make(&b, 0);
    for (int item = 0; item < 100; item++) {
        const float *x = b.stem + item * 2 * C * N;
        assert_true(x[0] == x[C * N]);
        assert_true(x[N - 1] == x[0] + (N - 1) / 131072.0f);
        songs[(int)x[0]]++;
    }
    for (int i = 1; i < 6; i++)
        assert_in_range(songs[i], 8, 35); /* 20 expected, deviation 4 */
    saw_sampler_close(b.s);
    b.o.aligned = 0.5;
    open_sampler(&b);
    make(&b, 0);
    for (int item = 0; item < 100; item++)
        equal += b.stem[item * 2 * C * N] == b.stem[(item * 2 + 1) * C * N];
    assert_in_range(equal, 30, 70);
    close_batches(&b);
}

/* Sound in the second half only: the gate finds it. */
static double late(const void *user, int c, int64_t i)
{
    (void)user, (void)c;
    test_sound s = {.noise = 3, .gain = 0.5};
    return i < 150000 ? 0 : test_sound_at(&s, HZ, i);
}

static void test_gate(void **state)
{
    (void)state;
    for (int aligned = 0; aligned < 2; aligned++)
        for (int gate = 0; gate < 2; gate++) {
            int silent = 0;
            test_write_file("late/A/vocals.wav", HZ, 2, 200000, late, NULL);
            batches b = open_batches("late", 0, NULL,
                                     (saw_sampler_options){.batch = 50,
                                                           .aligned = aligned,
                                                           .gate_db = gate ? -40 : -INFINITY});
            make(&b, 0);
            for (int item = 0; item < 50; item++) {
                double sum = 0;
                for (int i = 0; i < C * N; i++)
                    sum += (double)b.stem[item * C * N + i] * b.stem[item * C * N + i];
                silent += !(10 * log10(sum / (C * N)) >= -40);
            }
            /* three quarters are silent; 12 tries fail with 0.75^12 = 3 % */
            if (gate ? silent > 6 : silent < 25)
                fail_msg("aligned %d, gate %d: %d of 50 are silent", aligned, gate, silent);
            close_batches(&b);
        }
}

static void test_balance(void **state)
{
    (void)state;
    write_set();
    for (int balance = 0; balance < 2; balance++) {
        int with_bass = 0;
        batches b =
            open_batches("set", 0, NULL,
                         (saw_sampler_options){
                             .batch = 90, .chunk_samples = 512, .aligned = 1, .balance = balance});
        make(&b, 0);
        for (int item = 0; item < 90; item++) {
            double sum = 0;
            for (int i = 0; i < C * 512; i++)
                sum += fabs(b.stem[item * 3 * C * 512 + i]);
            with_bass += sum > 0;
        }
        /* a third of the songs have it: 30 of 90, or a third and a third of the others: 50 */
        if (balance ? with_bass < 40 || with_bass > 60 : with_bass < 18 || with_bass > 42)
            fail_msg("balance %d: %d of 90 have bass", balance, with_bass);
        close_batches(&b);
    }
}

static void test_short_songs(void **state)
{
    (void)state;
    enum { SHORT = 1000 };
    int first[2] = {0};
    test_write_sound("short/A/vocals.wav", HZ, 2, SHORT, (test_sound){.dc = 0.5});
    batches b = open_batches("short", 0, NULL, (saw_sampler_options){.batch = 20});
    make(&b, 0);
    for (int item = 0; item < 20; item++) {
        int count = 0, at = -1;
        for (int i = 0; i < N; i++) {
            float x = b.stem[item * C * N + i];
            assert_true(x == 0 || x == 0.5f);
            count += x != 0;
            at = x != 0 && at < 0 ? i : at;
        }
        assert_int_equal(count, SHORT);
        first[item % 2] = at;
    }
    assert_true(first[0] != first[1]);
    close_batches(&b);
}

/* ---- what is done to it ---------------------------------------------------------------------- */

/* The chunk of the only stem of the only song, as it is and after one augmentation. */
static void before_and_after(const char *path, const char *augment, int n, float *before,
                             float *after)
{
    saw_augment a = parse(augment);
    batches b = open_batches(path, 0, NULL,
                             (saw_sampler_options){.chunk_samples = n, .seed = 4, .augment = &a});
    make(&b, 1);
    memcpy(before, b.stem, (size_t)(C * n) * sizeof *before);
    saw_sampler_close(b.s);
    b.o.n_augment = 1;
    open_sampler(&b);
    make(&b, 1);
    memcpy(after, b.stem, (size_t)(C * n) * sizeof *after);
    assert_memory_equal(b.mix, b.stem, (size_t)(C * n) * sizeof *after);
    close_batches(&b);
}

static double left_and_right(const void *user, int c, int64_t i)
{
    test_sound s = {.noise = 5 + (uint64_t)c, .gain = 0.5};
    (void)user;
    return test_sound_at(&s, HZ, i);
}

static void test_simple_kinds(void **state)
{
    (void)state;
    static float x[C * N], y[C * N];
    test_write_file("one/A/vocals.wav", HZ, 2, 50000, left_and_right, NULL);
    before_and_after("one", "gain=-7@1", N, x, y);
    for (int i = 0; i < C * N; i++)
        assert_true(fabs(y[i] - x[i] * pow(10, -7 / 20.0)) < 1e-7);
    before_and_after("one", "polarity@1", N, x, y);
    for (int i = 0; i < C * N; i++)
        assert_true(y[i] == -x[i]);
    before_and_after("one", "swap@1", N, x, y);
    for (int i = 0; i < N; i++)
        assert_true(x[i] != x[N + i] && y[i] == x[N + i] && y[N + i] == x[i]);
    before_and_after("one", "mute@1", N, x, y);
    for (int i = 0; i < C * N; i++)
        assert_true(y[i] == 0);
    before_and_after("one", "saturation=20@1", N, x, y);
    for (int i = 0; i < C * N; i++)
        assert_true(fabs(y[i] - tanh(10.0 * x[i]) / 10) < 1e-6);
    before_and_after("one", "gain@0", N, x, y);
    assert_memory_equal(x, y, sizeof x);
    before_and_after("one", "drums/gain=6@1", N, x, y);
    assert_memory_equal(x, y, sizeof x);
}

/* A constant gets the low shelf's gain, the highest frequency that of the high shelf. */
static double constant_or_nyquist(const void *user, int c, int64_t i)
{
    return *(const int *)user && i % 2 ? -0.1 * (c + 1) : 0.1 * (c + 1);
}

static void test_eq(void **state)
{
    (void)state;
    enum { LONG = 32768 };
    static float x[C * LONG], y[C * LONG];
    for (int nyquist = 0; nyquist < 2; nyquist++) {
        test_write_file("one/A/vocals.wav", HZ, 2, 100000, constant_or_nyquist, &nyquist);
        before_and_after("one", "eq=4.5@1", LONG, x, y);
        for (int c = 0; c < C; c++) {
            double gain_db = 20 * log10(y[c * LONG + LONG - 1] / x[c * LONG + LONG - 1]);
            if (fabs(gain_db - 4.5) > 0.001)
                fail_msg("nyquist %d, channel %d: %.5f dB", nyquist, c, gain_db);
        }
    }
}

static double energy(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static double impulse(const void *user, int c, int64_t i)
{
    (void)user, (void)c;
    return i % 88200 == 0;
}

static void test_reverb(void **state)
{
    (void)state;
    enum { LONG = 88200 };
    static float x[C * LONG], y[C * LONG], tail[2][LONG];
    test_write_file("one/A/vocals.wav", HZ, 2, 88200 * 4, impulse, NULL);
    before_and_after("one", "reverb=-10@1", LONG, x, y);
    int at = 0;
    while (x[at] == 0)
        at++;
    for (int i = 0; i < LONG; i++)
        for (int c = 0; c < C; c++) {
            y[c * LONG + i] -= x[c * LONG + i];
            tail[c][i] = y[c * LONG + i];
        }
    /* its level is what was asked for; it begins after the impulse; its channels differ */
    assert_true(fabs(10 * log10(energy(y, C * LONG) / energy(x, C * LONG)) + 10) < 0.01);
    assert_true(energy(tail[0], at) == 0);
    assert_true(test_snr_db(tail[1], tail[0], LONG) < 6);
    /* and it falls by 60 dB in 0.3 to 1.5 s: by 4 to 20 dB in 0.1 s, as evenly as noise does */
    double early = energy(tail[0] + at + 4410 * 2, 4410),
           late_energy = energy(tail[0] + at + 4410 * 4, 4410);
    double fall = 10 * log10(early / late_energy) / 2;
    if (LONG - at > 4410 * 5 && !(fall > 3 && fall < 24))
        fail_msg("the tail falls by %.1f dB in 0.1 s", fall);
}

/* Level of one frequency in dB, by a Hann-windowed projection. */
static double level_db(const float *x, int n, double hz)
{
    double re = 0, im = 0;
    for (int i = 0; i < n; i++) {
        double w = 1 - cos(2 * M_PI * i / n), at = 2 * M_PI * hz * i / HZ;
        re += w * x[i] * cos(at);
        im += w * x[i] * sin(at);
    }
    return 10 * log10(4 * (re * re + im * im) / ((double)n * n) + 1e-12);
}

static void test_pitch_and_time(void **state)
{
    (void)state;
    enum { LONG = 65536, EDGE = 8192, MIDDLE = LONG - 2 * EDGE };
    static float x[C * LONG], y[C * LONG];
    saw_augment a;
    if (saw_augment_parse(ctx, "pitch", &a) == SAW_ERR_UNSUPPORTED) {
        assert_non_null(strstr(saw_context_error(ctx), "built without Rubber Band"));
        skip();
    }
    test_write_sound("one/A/vocals.wav", HZ, 2, 200000, (test_sound){.hz = 440, .gain = 0.5});
    before_and_after("one", "pitch=12@1", LONG, x, y);
    assert_true(level_db(x + EDGE, MIDDLE, 440) > -6.1);
    if (!(level_db(y + EDGE, MIDDLE, 880) > -6.5 && level_db(y + EDGE, MIDDLE, 440) < -40))
        fail_msg("an octave up: %.1f dB at 880 Hz, %.1f dB at 440 Hz",
                 level_db(y + EDGE, MIDDLE, 880), level_db(y + EDGE, MIDDLE, 440));
    before_and_after("one", "time=1.2@1", LONG, x, y);
    if (!(level_db(y + EDGE, MIDDLE, 440) > -6.5))
        fail_msg("as long again: %.1f dB at 440 Hz", level_db(y + EDGE, MIDDLE, 440));
    /* impulses every 2 s (88200 samples) come every 2.4 s or 1.6 s */
    static const struct {
        const char *text;
        double apart;
    } cases[] = {{"time=1.2@1", 1.2}, {"time=0.8@1", 0.8}};
    enum { VERY_LONG = 88200 * 3 };
    float *p = malloc(2 * VERY_LONG * sizeof *p), *q = malloc(2 * VERY_LONG * sizeof *q);
    test_write_file("one/A/vocals.wav", HZ, 2, 88200 * 8, impulse, NULL);
    for (int k = 0; k < 2; k++) {
        before_and_after("one", cases[k].text, VERY_LONG, p, q);
        int peaks[8], count = 0;
        for (int i = 0; i < VERY_LONG && count < 8; i++)
            if (fabsf(q[i]) > 0.3f) {
                peaks[count++] = i;
                i += 20000;
            }
        assert_true(count >= 2);
        double apart = (peaks[1] - peaks[0]) / 88200.0;
        if (fabs(apart - cases[k].apart) > 0.01)
            fail_msg("%s: impulses are %.4f as far apart", cases[k].text, apart);
    }
    free(p);
    free(q);
}

static void test_codec(void **state)
{
    (void)state;
    enum { LONG = 65536 };
    static float x[C * LONG], y[C * LONG], z[C * LONG];
    test_write_sound("one/A/vocals.wav", HZ, 2, 200000, (test_sound){.hz = 440, .gain = 0.5});
    /* in place (a delay of 5 samples would leave 10 dB), but no longer the same; better is better
     */
    before_and_after("one", "codec=0.9@1", LONG, x, y);
    before_and_after("one", "codec=0@1", LONG, x, z);
    double good = test_snr_db(y + 4096, x + 4096, LONG - 8192);
    double bad = test_snr_db(z + 4096, x + 4096, LONG - 8192);
    if (!(good > 25 && bad > 12 && good > bad && good < 120))
        fail_msg("%.1f dB at quality 0.9, %.1f dB at 0", good, bad);
}

/* A second song, a second chunk and bleed: what is added has the stated level, and is what it is
 * said to be. */
static void test_additions(void **state)
{
    (void)state;
    static const char *const kinds[] = {"layer=-6@1", "mixup=-6@1", "bleed=-6@1"};
    test_write_sound("two/A/drums.wav", HZ, 2, 50000, (test_sound){.dc = 0.25});
    test_write_sound("two/A/vocals.wav", HZ, 2, 50000, (test_sound){.dc = 1});
    double g = pow(10, -6 / 20.0);
    const double want[3][2] = {
        {0.25 + 0.25 * g, 1 + g}, {0.25 + 0.25 * g, 1 + g}, {0.25 + g, 1 + 0.25 * g}};
    for (int k = 0; k < 3; k++)
        for (int aligned = 0; aligned < 2; aligned++) {
            saw_augment a = parse(kinds[k]);
            batches b = open_batches(
                "two", 0, NULL,
                (saw_sampler_options){.aligned = aligned, .augment = &a, .n_augment = 1});
            make(&b, 0);
            for (int s = 0; s < 2; s++)
                for (int i = 0; i < C * N; i++)
                    if (fabs(b.stem[s * C * N + i] - want[k][s]) > 1e-6)
                        fail_msg("%s, stem %d: %g, wanted %g", kinds[k], s, b.stem[s * C * N + i],
                                 want[k][s]);
            close_batches(&b);
        }
}

static void test_words(void **state)
{
    (void)state;
    saw_augment a = parse("vocals/pitch=-3..3.5@0.25");
    assert_int_equal(a.kind, SAW_AUGMENT_PITCH);
    assert_true(a.low == -3 && a.high == 3.5 && a.chance == 0.25);
    assert_string_equal(a.stem, "vocals");
    a = parse("gain=2");
    assert_true(a.low == 2 && a.high == 2 && a.chance == 1 && !*a.stem);
    for (int k = 0; k < SAW_AUGMENT_COUNT; k++)
        assert_int_equal(parse(saw_augment_name(k)).kind, k);
    static const char *const bad[][2] = {{"chorus", "there is no augmentation chorus: there are"},
                                         {"", "there is no augmentation"},
                                         {"gain=", "the amount of gain is low..high"},
                                         {"gain=1..", "the amount of gain is low..high"},
                                         {"gain=6..-6", "the amount of gain is low..high"},
                                         {"gain=nan", "the amount of gain is low..high"},
                                         {"time=0.1", "within 0.5 to 2 (factor)"},
                                         {"swap=1", "swap has no amount"},
                                         {"gain@1.5", "a number from 0 to 1"},
                                         {"gain@", "a number from 0 to 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(saw_augment_parse(ctx, bad[i][0], &a), SAW_ERR_ARGUMENT);
        if (!strstr(saw_context_error(ctx), bad[i][1]))
            fail_msg("%s: '%s'", bad[i][0], saw_context_error(ctx));
    }
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static double not_a_number(const void *user, int c, int64_t i)
{
    (void)user, (void)c;
    return i == 30000 ? NAN : 0.1;
}

static void test_failures(void **state)
{
    (void)state;
    test_write_file("bad/A/vocals.wav", HZ, 2, 40000, not_a_number, NULL);
    batches b = open_batches("bad", 0, NULL, (saw_sampler_options){.chunk_samples = 40000});
    for (int i = 0; i < 3; i++) {
        assert_int_equal(saw_sampler_batch(b.s, 0, b.mix, b.stem), SAW_ERR_FORMAT);
        assert_non_null(
            strstr(saw_context_error(ctx), "bad/A/vocals.wav: holds a sample that is not"));
    }
    /* repaired, it goes on */
    test_write_sound("bad/A/vocals.wav", HZ, 2, 40000, (test_sound){.dc = 0.1});
    saw_sampler_close(b.s);
    open_sampler(&b);
    make(&b, 0);
    assert_int_equal(saw_sampler_batch(b.s, -1, b.mix, b.stem), SAW_ERR_ARGUMENT);
    saw_context_cancel(ctx);
    saw_status status = SAW_OK;
    for (int i = 1; i < 100 && !status; i++) /* what is ready may still be given */
        status = saw_sampler_batch(b.s, 1000 * i, b.mix, b.stem);
    assert_int_equal(status, SAW_ERR_CANCELLED);
    saw_context_resume(ctx);
    make(&b, 1);
    saw_sampler *s;
    saw_sampler_options o = b.o;
    o.part = SAW_SONG_VALID;
    assert_int_equal(saw_sampler_open(ctx, b.d, &o, &s), SAW_ERR_ARGUMENT);
    assert_non_null(strstr(saw_context_error(ctx), "has no song to draw chunks from"));
    o = b.o;
    o.aligned = 2;
    assert_int_equal(saw_sampler_open(ctx, b.d, &o, &s), SAW_ERR_ARGUMENT);
    o = b.o;
    o.batch = 0;
    assert_int_equal(saw_sampler_open(ctx, b.d, &o, &s), SAW_ERR_ARGUMENT);
    close_batches(&b);
}

/* Closing while batches are being made leaves nothing behind; memory stays below what is stated. */
static void test_close_early(void **state)
{
    (void)state;
    write_set();
    for (int i = 0; i < 5; i++) {
        batches b = open_batches("set", 0, NULL, (saw_sampler_options){.batch = 8});
        make(&b, i);
        assert_true(saw_context_memory(ctx).now_bytes < saw_sampler_bytes(b.s) + 100000);
        close_batches(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_steps, enter, leave),
        cmocka_unit_test_setup_teardown(test_independent_dice, enter, leave),
        cmocka_unit_test_setup_teardown(test_sum, enter, leave),
        cmocka_unit_test_setup_teardown(test_alignment, enter, leave),
        cmocka_unit_test_setup_teardown(test_gate, enter, leave),
        cmocka_unit_test_setup_teardown(test_balance, enter, leave),
        cmocka_unit_test_setup_teardown(test_short_songs, enter, leave),
        cmocka_unit_test_setup_teardown(test_simple_kinds, enter, leave),
        cmocka_unit_test_setup_teardown(test_eq, enter, leave),
        cmocka_unit_test_setup_teardown(test_reverb, enter, leave),
        cmocka_unit_test_setup_teardown(test_pitch_and_time, enter, leave),
        cmocka_unit_test_setup_teardown(test_codec, enter, leave),
        cmocka_unit_test_setup_teardown(test_additions, enter, leave),
        cmocka_unit_test_setup_teardown(test_words, enter, leave),
        cmocka_unit_test_setup_teardown(test_failures, enter, leave),
        cmocka_unit_test_setup_teardown(test_close_early, enter, leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
