/*
 * test_dataset.c - data sets as people have them: every layout is found and read as what it is; the
 * wanted stems add up to the mixture; songs are parted; what is broken is said in one sentence.
 */
#include "datasets/dataset.h"
#include "io/audio.h"
#include "support/songs.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HZ = 44100, FRAMES = 100000 };

static char *folder, warning[512];
static saw_context *ctx;

static void keep_warning(void *user, int level, const char *line)
{
    (void)user;
    if (level <= SAW_LOG_WARN)
        snprintf(warning, sizeof warning, "%s", line);
}

static int enter(void **state)
{
    (void)state;
    *warning = 0;
    folder = test_enter_folder();
    return saw_context_open(&ctx, &(saw_options){.threads = 1, .log = keep_warning});
}

static int leave(void **state)
{
    (void)state;
    size_t left = saw_context_memory(ctx).now_bytes;
    saw_context_close(ctx);
    test_leave_folder(folder);
    return left != 0;
}

/* ---- signals --------------------------------------------------------------------------------- */

/* Sixty-four different noises; a sum of some of them, by bits. */
static double noises(const void *user, int c, int64_t i)
{
    uint64_t bits = *(const uint64_t *)user;
    double sum = 0;
    for (int k = 0; bits; bits >>= 1, k++)
        if (bits & 1) {
            test_sound s = {.noise = (uint64_t)k + 1, .gain = 0.1};
            sum += test_sound_at(&s, HZ, i) * (c ? -0.5 : 1);
        }
    return sum;
}

static void write_noises(const char *path, uint64_t bits)
{
    test_write_file(path, HZ, 2, FRAMES, noises, &bits);
}

/* ---- the data set ---------------------------------------------------------------------------- */

static saw_dataset *open_set(const char *path, const char *layout, int n, const char *const *stems)
{
    saw_dataset *d;
    saw_dataset_options o = {.layout = layout, .stems = stems, .n_stems = n};
    if (saw_dataset_open(ctx, path, &o, &d))
        fail_msg("%s: %s", path, saw_context_error(ctx));
    return d;
}

#define STEMS(...)                                                                                 \
    (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[])                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* It does not open, with this status and these words in the sentence. */
static void refuse(const char *path, const char *layout, saw_status want, const char *words, int n,
                   const char *const *stems)
{
    saw_dataset *d;
    saw_dataset_options o = {.layout = layout, .stems = stems, .n_stems = n, .complete = true};
    saw_status status = saw_dataset_open(ctx, path, &o, &d);
    const char *said = saw_context_error(ctx);
    if (status != want || !strstr(said, words) || strchr(said, '\n'))
        fail_msg("%s: status %d, '%s'; wanted %d, '%s'", path, status, said, want, words);
    assert_null(d);
}

static int song_of(const saw_dataset *d, const char *name)
{
    for (int i = 0; i < saw_dataset_songs(d); i++)
        if (!strcmp(saw_dataset_song(d, i)->name, name))
            return i;
    fail_msg("there is no song %s", name);
    return -1;
}

static void read_at(saw_dataset_reader *r, int song, int source, int64_t start, int64_t n,
                    float *to)
{
    float *planar[2] = {to, to + n};
    if (saw_dataset_read(r, song, source, start, n, planar))
        fail_msg("%s", saw_context_error(ctx));
}

/* A source of a song is the sum of these noises. */
static void hold(const saw_dataset *d, const char *song, int source, uint64_t bits)
{
    enum { N = 5000, START = 31000 };
    static float got[2 * N];
    saw_dataset_reader *r;
    assert_int_equal(saw_dataset_reader_open(ctx, d, 0, &r), SAW_OK);
    read_at(r, song_of(d, song), source, START, N, got);
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < N; i++)
            if (fabs(got[c * N + i] - noises(&bits, c, START + i)) > 3e-7)
                fail_msg("%s, source %d, sample %d of channel %d: %g, wanted %g", song, source, i,
                         c, got[c * N + i], noises(&bits, c, START + i));
    saw_dataset_reader_close(r);
}

static void hold_names(const saw_dataset *d, const char *layout, int songs, int stems, int sources)
{
    assert_string_equal(saw_dataset_layout(d), layout);
    assert_int_equal(saw_dataset_songs(d), songs);
    assert_int_equal(saw_dataset_stems(d), stems);
    assert_int_equal(saw_dataset_sources(d), sources);
    for (int i = 0; i < songs; i++)
        assert_int_equal(saw_dataset_song(d, i)->samples, FRAMES);
}

/* ---- layouts --------------------------------------------------------------------------------- */

static void test_musdb(void **state)
{
    (void)state;
    write_noises("set/A/vocals.wav", 1);
    write_noises("set/A/Drums.wav", 2);
    write_noises("set/A/bass.flac", 4);
    write_noises("set/A/mixture.wav", 7);
    write_noises("set/deep/er/B/vocals.wav", 8);
    write_noises("set/deep/er/B/drums.wav", 16);
    test_write_text("set/A/README.txt", "not audio");
    saw_dataset *d = open_set("set/", NULL, 0, NULL);
    hold_names(d, "musdb", 2, 3, 3);
    assert_string_equal(saw_dataset_stem(d, 0), "bass");
    assert_string_equal(saw_dataset_stem(d, 1), "drums");
    assert_string_equal(saw_dataset_stem(d, 2), "vocals");
    hold(d, "A", 1, 2);
    hold(d, "A", SAW_DATASET_MIXTURE, 7);
    hold(d, "deep/er/B", 2, 8);
    hold(d, "deep/er/B", 0, 0);
    assert_int_equal(saw_dataset_song(d, song_of(d, "deep/er/B"))->has, 6);
    assert_non_null(strstr(warning, "1 of 2 songs lack a stem (deep/er/B)"));
    saw_dataset_close(d);
    /* one song by itself */
    d = open_set("set/A", NULL, 0, NULL);
    hold_names(d, "musdb", 1, 3, 3);
    saw_dataset_close(d);
}

static void test_moisesdb(void **state)
{
    (void)state;
    write_noises("set/one/bass/x.wav", 1);
    write_noises("set/one/bass/y.wav", 2);
    write_noises("set/one/bass/not_listed.wav", 32);
    write_noises("set/one/vocals/z.wav", 4);
    test_write_text("set/one/data.json",
                    "{\"song\": \"One\", \"stems\": ["
                    "{\"stemName\": \"bass\", \"tracks\": [{\"id\": \"x\", \"extension\": \"wav\"},"
                    " {\"id\": \"y\", \"extension\": \"wav\"}]},"
                    "{\"stemName\": \"vocals\", \"tracks\": [{\"id\": \"z\"}]}]}");
    write_noises("set/two/bass/a.wav", 8);
    write_noises("set/two/vocals/b.wav", 16);
    write_noises("set/two/vocals/c.wav", 64);
    write_noises("set/two/mixture.wav", 88);
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    hold_names(d, "moisesdb", 2, 2, 2);
    hold(d, "one", 0, 3);
    hold(d, "one", 1, 4);
    hold(d, "two", 1, 80);
    saw_dataset_close(d);
    test_write_text("set/one/data.json", "{\"stems\": [{\"stemName\": \"bass\", \"tracks\": "
                                         "[{\"id\": \"../../secret\", \"extension\": \"wav\"}]}]}");
    refuse("set", NULL, SAW_ERR_FORMAT, "set/one/data.json: track 1 of stem 1", 0, NULL);
    test_write_text("set/one/data.json", "{\"stems\": [");
    refuse("set", NULL, SAW_ERR_FORMAT, "set/one/data.json", 0, NULL);
}

static void test_folder(void **state)
{
    (void)state;
    write_noises("set/vocals/A.wav", 1);
    write_noises("set/drums/A.wav", 2);
    write_noises("set/drums/loop.flac", 4);
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    hold_names(d, "folder", 2, 2, 2);
    hold(d, "A", 0, 2);
    hold(d, "A", 1, 1);
    hold(d, "loop", 0, 4);
    assert_int_equal(saw_dataset_song(d, song_of(d, "loop"))->has, 1);
    saw_dataset_close(d);
    /* names that nobody knows: the wanted ones tell */
    write_noises("odd/santoor/A.wav", 1);
    write_noises("odd/tombak/A.wav", 2);
    refuse("odd", NULL, SAW_ERR_ARGUMENT, "name one: csv, pairs, moisesdb, musdb, folder", 0, NULL);
    d = open_set("odd", NULL, STEMS("santoor", "other"));
    hold_names(d, "folder", 1, 2, 2);
    hold(d, "A", 0, 1);
    hold(d, "A", 1, 2);
    saw_dataset_close(d);
}

static void test_csv(void **state)
{
    (void)state;
    write_noises("audio/1, one.wav", 1);
    write_noises("audio/2.wav", 2);
    write_noises("audio/3.wav", 4);
    test_write_text("table.csv", "\xef\xbb\xbfsong,extra,path,stem\r\n"
                                 "A,x,\"audio/1, one.wav\",vocals\r\n"
                                 "A,\"a \"\"b\"\"\",audio/2.wav,bass\r\n\r\n"
                                 "B,,audio/3.wav,vocals");
    saw_dataset *d = open_set("table.csv", NULL, 0, NULL);
    hold_names(d, "csv", 2, 2, 2);
    hold(d, "A", 0, 2);
    hold(d, "A", 1, 1);
    hold(d, "B", 1, 4);
    saw_dataset_close(d);
    test_write_text("plain.csv", "instrum,path\nvocals,audio/3.wav\n");
    d = open_set("plain.csv", NULL, 0, NULL);
    hold(d, "audio/3", 0, 4);
    saw_dataset_close(d);
    static const struct {
        const char *text, *words;
    } bad[] = {{"path,song\na,b\n", "must name the columns path and stem"},
               {"", "must name the columns"},
               {"path,stem\naudio/2.wav\n", "row 2 has no path or no stem"},
               {"path,stem\n\"audio/2.wav,bass\n", "row 2 has no path or no stem"},
               {"path,stem\n", "holds no audio files"},
               {"path,stem\nnowhere.wav,bass\n", "nowhere.wav: cannot be opened"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_write_text("bad.csv", bad[i].text);
        saw_status want = strstr(bad[i].words, "holds no") || strstr(bad[i].words, "opened")
                              ? SAW_ERR_IO
                              : SAW_ERR_FORMAT;
        refuse("bad.csv", NULL, want, bad[i].words, 0, NULL);
    }
}

static void test_pairs(void **state)
{
    (void)state;
    write_noises("set/A.mix.wav", 7);
    write_noises("set/A.target.wav", 2);
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    hold_names(d, "pairs", 1, 1, 2);
    assert_string_equal(saw_dataset_stem(d, 0), "target");
    assert_null(saw_dataset_stem(d, 1));
    hold(d, "A", 0, 2);
    hold(d, "A", 1, 5);
    hold(d, "A", SAW_DATASET_MIXTURE, 7);
    saw_dataset_close(d);
    write_noises("two/mixture/B.wav", 3);
    write_noises("two/target/B.wav", 1);
    d = open_set("two", NULL, STEMS("santoor", "other"));
    hold_names(d, "pairs", 1, 2, 2);
    assert_string_equal(saw_dataset_stem(d, 0), "santoor");
    hold(d, "B", 0, 1);
    hold(d, "B", 1, 2);
    saw_dataset_close(d);
}

/* ---- wanted stems ---------------------------------------------------------------------------- */

static void test_stems(void **state)
{
    (void)state;
    write_noises("set/A/vocals.wav", 1);
    write_noises("set/A/piano.wav", 2);
    write_noises("set/A/organ.wav", 4);
    write_noises("set/A/other.wav", 8);
    write_noises("set/B/vocals.wav", 16);
    write_noises("set/B/mixture.wav", 48);
    saw_dataset *d = open_set("set", NULL, STEMS("Vocals", "other"));
    hold(d, "A", 1, 14);
    hold(d, "B", 1, 32);
    saw_dataset_close(d);
    d = open_set("set", NULL, STEMS("keys=piano+organ", "vocals"));
    hold_names(d, "musdb", 2, 2, 3);
    assert_string_equal(saw_dataset_stem(d, 0), "keys");
    hold(d, "A", 0, 6);
    hold(d, "A", 2, 8);
    hold(d, "A", SAW_DATASET_MIXTURE, 15);
    hold(d, "B", SAW_DATASET_MIXTURE, 48);
    saw_dataset_close(d);
    d = open_set("set", NULL, STEMS("instrumental"));
    hold(d, "A", 0, 15);
    saw_dataset_close(d);
    refuse("set", NULL, SAW_ERR_ARGUMENT,
           "no song has the stem santoor; there are organ, other, piano, vocals",
           STEMS("santoor", "other"));
    refuse("set", NULL, SAW_ERR_ARGUMENT, "asked for twice", STEMS("vocals", "VOCALS"));
    refuse("set", NULL, SAW_ERR_ARGUMENT, "both stand for the rest", STEMS("other", "residual"));
    refuse("set", NULL, SAW_ERR_ARGUMENT, "the stem keys= makes no sense", STEMS("keys="));
    refuse("set", NULL, SAW_ERR_ARGUMENT, "the stem =a makes no sense", STEMS("=a"));
    refuse("set", "mosaic", SAW_ERR_ARGUMENT, "unknown layout mosaic: there are csv, pairs", 0,
           NULL);
    /* songs that lack a stem */
    saw_dataset_options o = {
        .stems = (const char *[]){"vocals", "piano"}, .n_stems = 2, .complete = true};
    assert_int_equal(saw_dataset_open(ctx, "set", &o, &d), SAW_OK);
    assert_int_equal(saw_dataset_songs(d), 1);
    hold(d, "A", 1, 2);
    assert_non_null(strstr(warning, "1 of 2 songs lack a stem (B) and are left out"));
    saw_dataset_close(d);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Any order of reading, and a cache of next to nothing, give the bits of one go. */
static void test_pieces(void **state)
{
    (void)state;
    enum { LONG = 300000 };
    static const char *const files[] = {"A.wav", "A.flac", "A.ogg", "A.mp3"};
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char path[64];
        uint64_t bits = 1;
        snprintf(path, sizeof path, "set%zu/vocals/%s", f, files[f]);
        test_write_file(path, HZ, 2, LONG, noises, &bits);
        *strchr(path, '/') = 0;
        saw_dataset *d = open_set(path, "folder", 0, NULL);
        saw_dataset_reader *whole_reader, *r;
        assert_int_equal(saw_dataset_reader_open(ctx, d, 0, &whole_reader), SAW_OK);
        assert_int_equal(saw_dataset_reader_open(ctx, d, 1, &r), SAW_OK);
        float *whole = malloc(2 * LONG * sizeof *whole), *piece = malloc(2 * LONG * sizeof *piece);
        read_at(whole_reader, 0, 0, 0, LONG, whole);
        saw_audio_reader *file;
        int64_t got;
        float *planar[2] = {piece, piece + LONG};
        snprintf(path, sizeof path, "set%zu/vocals/%s", f, files[f]);
        assert_int_equal(saw_audio_open(ctx, path, &file), SAW_OK);
        assert_int_equal(saw_audio_read(file, planar, LONG, &got), SAW_OK);
        saw_audio_close(file);
        assert_int_equal(got, LONG);
        assert_memory_equal(whole, piece, 2 * LONG * sizeof *whole);
        for (int k = 0; k < 40; k++) {
            uint32_t word[4];
            saw_philox(7, f, (uint64_t)k, word);
            int64_t start = word[0] % LONG, n = word[1] % (LONG - start) + 1;
            n = n > 70000 ? 70000 : n;
            read_at(r, 0, 0, start, n, piece);
            for (int c = 0; c < 2; c++)
                if (memcmp(piece + c * n, whole + c * LONG + start, (size_t)n * sizeof *piece))
                    fail_msg("%s: samples from %lld differ", files[f], (long long)start);
        }
        read_at(r, 0, 0, -1000, 2000, piece);
        for (int i = 0; i < 1000; i++)
            assert_true(piece[i] == 0 && piece[1000 + i] == whole[i]);
        read_at(r, 0, 0, LONG - 10, 2000, piece);
        for (int i = 10; i < 2000; i++)
            assert_true(piece[i] == 0);
        free(whole);
        free(piece);
        saw_dataset_reader_close(r);
        saw_dataset_reader_close(whole_reader);
        saw_dataset_close(d);
    }
}

/* Files of other rates and channel counts, as a sine of the set's rate. */
static void test_rates(void **state)
{
    (void)state;
    enum { N = 20000 };
    static const int rates[] = {48000, 22050, 96000, 44056};
    static float got[2 * N], want[N];
    test_sound sine = {.hz = 1000, .gain = 0.5};
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "set/s%d/vocals.wav", i);
        test_write_sound(path, rates[i], 1 + i % 2, rates[i] * 3, sine);
    }
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    saw_dataset_reader *r;
    assert_int_equal(saw_dataset_reader_open(ctx, d, 0, &r), SAW_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(saw_dataset_song(d, i)->samples, 3 * HZ);
        for (int64_t start = 10000; start < 100000; start += 29999) {
            read_at(r, i, 0, start, N, got);
            for (int k = 0; k < N; k++)
                want[k] = (float)test_sound_at(&sine, HZ, start + k);
            for (int c = 0; c < 2; c++)
                if (!(test_snr_db(got + c * N, want, N) > 80))
                    fail_msg("%d Hz, from %lld, channel %d: %.1f dB", rates[i], (long long)start, c,
                             test_snr_db(got + c * N, want, N));
        }
    }
    saw_dataset_reader_close(r);
    saw_dataset_close(d);
    /* to one channel: the mean; (1 - 0.5) / 2 of channel 0 */
    write_noises("two/A/vocals.wav", 1);
    saw_dataset_options o = {.channels = 1};
    assert_int_equal(saw_dataset_open(ctx, "two", &o, &d), SAW_OK);
    assert_int_equal(saw_dataset_reader_open(ctx, d, 0, &r), SAW_OK);
    float *planar[1] = {got};
    uint64_t bits = 1;
    assert_int_equal(saw_dataset_read(r, 0, 0, 500, N, planar), SAW_OK);
    for (int k = 0; k < N; k++)
        assert_true(fabs(got[k] - 0.25 * noises(&bits, 0, 500 + k)) < 1e-7);
    saw_dataset_reader_close(r);
    saw_dataset_close(d);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static void split(saw_dataset *d, const saw_split_options *o)
{
    if (saw_dataset_split(d, o))
        fail_msg("%s", saw_context_error(ctx));
}

static int count_part(const saw_dataset *d, saw_song_part part)
{
    int count = 0;
    for (int i = 0; i < saw_dataset_songs(d); i++)
        count += saw_dataset_song(d, i)->part == part;
    return count;
}

static void refuse_split(saw_dataset *d, const saw_split_options *o, const char *words)
{
    assert_int_equal(saw_dataset_split(d, o), SAW_ERR_ARGUMENT);
    if (!strstr(saw_context_error(ctx), words))
        fail_msg("'%s'; wanted '%s'", saw_context_error(ctx), words);
}

static void test_split(void **state)
{
    (void)state;
    char path[64];
    int before[20], moved = 0, other_seed = 0;
    for (int i = 0; i < 20; i++) {
        snprintf(path, sizeof path, "set/song%02d/vocals.wav", i);
        test_write_sound(path, 8000, 1, 100, (test_sound){.dc = 0.1});
    }
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    saw_split_options o = {.fraction = 0.2, .seed = 5};
    split(d, &o);
    assert_int_equal(count_part(d, SAW_SONG_VALID), 4);
    for (int i = 0; i < 20; i++)
        before[i] = saw_dataset_song(d, i)->part;
    o.seed = 6;
    split(d, &o);
    assert_int_equal(count_part(d, SAW_SONG_VALID), 4);
    for (int i = 0; i < 20; i++)
        other_seed += before[i] != (int)saw_dataset_song(d, i)->part;
    assert_true(other_seed > 0);
    /* by name */
    const char *valid[] = {"song03", "song07"}, *train[] = {"song01", "song02"};
    split(d, &(saw_split_options){.fraction = 0.2, .valid = valid, .n_valid = 2});
    assert_int_equal(count_part(d, SAW_SONG_VALID), 2);
    assert_int_equal(count_part(d, SAW_SONG_TRAIN), 18);
    assert_int_equal(saw_dataset_song(d, 7)->part, SAW_SONG_VALID);
    split(d, &(saw_split_options){.valid = valid, .n_valid = 2, .train = train, .n_train = 2});
    assert_int_equal(count_part(d, SAW_SONG_UNUSED), 16);
    refuse_split(d, &(saw_split_options){.valid = (const char *[]){"song99"}, .n_valid = 1},
                 "there is no song song99");
    refuse_split(d,
                 &(saw_split_options){.valid = valid, .n_valid = 2, .train = valid, .n_train = 1},
                 "song03 is named to train with and to validate with");
    refuse_split(d, &(saw_split_options){.fraction = 1}, "no share of songs");
    saw_dataset_close(d);
    /* one more song moves none of the others, but perhaps one for itself */
    test_write_sound("set/song20/vocals.wav", 8000, 1, 100, (test_sound){.dc = 0.1});
    d = open_set("set", NULL, 0, NULL);
    o.seed = 5;
    split(d, &o);
    for (int i = 0; i < 20; i++)
        moved += before[i] != (int)saw_dataset_song(d, i)->part;
    assert_true(moved <= 1);
    saw_dataset_close(d);
    d = open_set("set/song01", "musdb", 0, NULL);
    refuse_split(d, &o, "has only one song to train with");
    saw_dataset_close(d);
}

static void test_parts_in_folders(void **state)
{
    (void)state;
    write_noises("set/train/A/vocals.wav", 1);
    write_noises("set/train/B/vocals.wav", 2);
    write_noises("set/valid/C/vocals.wav", 4);
    write_noises("set/test/D/vocals.wav", 8);
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    split(d, &(saw_split_options){.fraction = 0.5, .seed = 1});
    assert_int_equal(saw_dataset_songs(d), 3);
    assert_int_equal(count_part(d, SAW_SONG_VALID), 1);
    assert_int_equal(saw_dataset_song(d, song_of(d, "valid/C"))->part, SAW_SONG_VALID);
    hold(d, "train/B", 0, 2);
    saw_dataset_close(d);
}

/* ---- what is broken -------------------------------------------------------------------------- */

static void test_broken(void **state)
{
    (void)state;
    refuse("nowhere", NULL, SAW_ERR_IO, "nowhere: there is no such file or folder", 0, NULL);
    assert_int_equal(saw_make_folders(ctx, "empty"), SAW_OK);
    refuse("empty", NULL, SAW_ERR_ARGUMENT, "empty: no layout of a data set was recognised", 0,
           NULL);
    refuse("empty", "musdb", SAW_ERR_IO, "empty: holds no audio files", 0, NULL);
    refuse("empty", "pairs", SAW_ERR_IO, "empty", 0, NULL);
    write_noises("set/A/vocals.wav", 1);
    test_write_text("set/A/drums.wav", "");
    refuse("set", NULL, SAW_ERR_FORMAT, "set/A/drums.wav: is empty", 0, NULL);
    write_noises("set/A/drums.wav", 2);
    assert_int_equal(truncate("set/A/drums.wav", 1000), 0);
    refuse("set", NULL, SAW_ERR_FORMAT, "set/A/drums.wav: is cut short", 0, NULL);
    /* cut after it was opened */
    write_noises("set/A/drums.wav", 2);
    saw_dataset *d = open_set("set", NULL, 0, NULL);
    saw_dataset_reader *r;
    static float x[2000];
    float *planar[2] = {x, x + 1000};
    assert_int_equal(truncate("set/A/drums.wav", 100000), 0);
    assert_int_equal(saw_dataset_reader_open(ctx, d, 0, &r), SAW_OK);
    assert_int_equal(saw_dataset_read(r, 0, 0, 90000, 1000, planar), SAW_ERR_FORMAT);
    assert_non_null(strstr(saw_context_error(ctx), "set/A/drums.wav"));
    assert_int_equal(saw_dataset_read(r, 0, 1, 90000, 1000, planar), SAW_OK);
    saw_dataset_reader_close(r);
    saw_dataset_close(d);
    /* mixtures alone */
    write_noises("mixes/A/mixture.wav", 1);
    refuse("mixes", NULL, SAW_ERR_ARGUMENT, "only mixtures", STEMS("vocals"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_musdb, enter, leave),
        cmocka_unit_test_setup_teardown(test_moisesdb, enter, leave),
        cmocka_unit_test_setup_teardown(test_folder, enter, leave),
        cmocka_unit_test_setup_teardown(test_csv, enter, leave),
        cmocka_unit_test_setup_teardown(test_pairs, enter, leave),
        cmocka_unit_test_setup_teardown(test_stems, enter, leave),
        cmocka_unit_test_setup_teardown(test_pieces, enter, leave),
        cmocka_unit_test_setup_teardown(test_rates, enter, leave),
        cmocka_unit_test_setup_teardown(test_split, enter, leave),
        cmocka_unit_test_setup_teardown(test_parts_in_folders, enter, leave),
        cmocka_unit_test_setup_teardown(test_broken, enter, leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
