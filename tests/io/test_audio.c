/*
 * test_audio.c - audio files: what is written is read back with libsndfile itself, what is read was
 * written with libsndfile or by hand; damaged files, full disks, pipes, tags, channel groups.
 */
#include "io/audio.h"
#include "io/wav.h"
#include "support/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sndfile.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FRAMES = 140000, MAX_CHANNELS = 64 };

/* libvorbis 1.3.7 loses a block whenever it encodes six channels. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:vorbis_encode_setup_init\n";
}

static saw_context *ctx;
static char *folder;
static float *planes[MAX_CHANNELS], *others[MAX_CHANNELS]; /* [MAX_FRAMES] each */
static char last_warning[1024];

#define IN(planar) ((const float *const *)(planar))

static void keep_warning(void *user, int level, const char *line)
{
    (void)user;
    if (level == SAW_LOG_WARN)
        snprintf(last_warning, sizeof last_warning, "%s", line);
}

static int set_up(void **state)
{
    (void)state;
    folder = test_temp_folder();
    for (int c = 0; c < MAX_CHANNELS; c++) {
        planes[c] = calloc(MAX_FRAMES, sizeof(float));
        others[c] = calloc(MAX_FRAMES, sizeof(float));
    }
    return saw_context_open(&ctx, &(saw_options){.log = keep_warning});
}

static int tear_down(void **state)
{
    (void)state;
    saw_context_close(ctx);
    for (int c = 0; c < MAX_CHANNELS; c++) {
        free(planes[c]);
        free(others[c]);
    }
    test_remove_folder(folder);
    return 0;
}

/* A path in the folder; valid for the next seven calls. */
static const char *path_of(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void)
{
    DIR *d = opendir(folder);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void assert_said(const char *part)
{
    if (!strstr(saw_context_error(ctx), part))
        fail_msg("the error \"%s\" lacks \"%s\"", saw_context_error(ctx), part);
    assert_null(strchr(saw_context_error(ctx), '\n'));
}

/* Two sines below 3 kHz, each channel other ones; the low-frequency channel (3) stays below 110 Hz.
 */
static void tones(int channels, int64_t frames, int rate_hz)
{
    for (int c = 0; c < channels; c++)
        for (int64_t i = 0; i < frames; i++) {
            double t = (double)i / rate_hz, f = c == 3 ? 20 : rate_hz < 8000 ? 50 : 440;
            planes[c][i] = (float)(0.25 * sin(2 * M_PI * f * t + c) +
                                   0.15 * sin(2 * M_PI * f * (2.1 + c % 4) * t));
        }
}

static void noise(int channels, int64_t frames, float size)
{
    uint32_t u[4];
    for (int c = 0; c < channels; c++)
        for (int64_t i = 0; i < frames; i++) {
            saw_philox(1, (uint64_t)c, (uint64_t)i, u);
            planes[c][i] = size * ((float)(u[0] >> 8) * 0x1p-23f - 1);
        }
}

static saw_status write_file(const char *path, saw_audio_format format, int channels, int rate_hz,
                             int64_t frames, const saw_audio_tags *tags, saw_audio_report *report)
{
    saw_audio_writer *w;
    saw_status status = saw_audio_create(ctx, path, &format, channels, rate_hz, tags, &w);
    if (status)
        return status;
    uint64_t calls = saw_context_memory(ctx).calls;
    for (int64_t at = 0, n; !status && at < frames; at += n) { /* in uneven pieces */
        const float *from[MAX_CHANNELS];
        n = 1 + (at * 7 + 4099) % 9973;
        n = n < frames - at ? n : frames - at;
        for (int c = 0; c < channels; c++)
            from[c] = planes[c] + at;
        status = saw_audio_write(w, from, n);
    }
    assert_true(saw_context_memory(ctx).calls == calls);
    if (status) {
        saw_audio_abort(w);
        return status;
    }
    return saw_audio_commit(w, report);
}

/* All of path into others. */
static saw_status read_file(const char *path, saw_audio_info *info, int64_t *frames)
{
    saw_audio_reader *r;
    *frames = 0;
    saw_status status = saw_audio_open(ctx, path, &r);
    if (status)
        return status;
    uint64_t calls = saw_context_memory(ctx).calls;
    *info = *saw_audio_reader_info(r);
    info->container = info->subtype = NULL;
    for (int64_t n = 0, got = 1; !status && got > 0; *frames += got) {
        float *to[MAX_CHANNELS];
        n = 1 + (*frames * 11 + 5003) % 8191;
        n = n < MAX_FRAMES - *frames ? n : MAX_FRAMES - *frames;
        for (int c = 0; c < info->channels; c++)
            to[c] = others[c] + *frames;
        status = saw_audio_read(r, to, n, &got);
    }
    assert_true(saw_context_memory(ctx).calls == calls);
    saw_audio_close(r);
    return status;
}

/* ---- round trips ----------------------------------------------------------------------------- */

static const struct {
    saw_audio_kind kind;
    saw_audio_subtype subtype;
    int bits;     /* of integers, 0: float or lossy */
    int most;     /* channels */
    int sndfile;  /* the subtype that libsndfile must see, 0: not asked */
    double least; /* SNR in dB for lossy */
} cases[] = {
    {SAW_AUDIO_WAV, SAW_AUDIO_DEFAULT, 0, 64, SF_FORMAT_FLOAT, 0},
    {SAW_AUDIO_WAV, SAW_AUDIO_FLOAT, 0, 64, SF_FORMAT_FLOAT, 0},
    {SAW_AUDIO_WAV, SAW_AUDIO_PCM_16, 16, 64, SF_FORMAT_PCM_16, 0},
    {SAW_AUDIO_WAV, SAW_AUDIO_PCM_24, 24, 64, SF_FORMAT_PCM_24, 0},
    {SAW_AUDIO_FLAC, SAW_AUDIO_DEFAULT, 24, 8, SF_FORMAT_PCM_24, 0},
    {SAW_AUDIO_FLAC, SAW_AUDIO_PCM_16, 16, 8, SF_FORMAT_PCM_16, 0},
    {SAW_AUDIO_FLAC, SAW_AUDIO_PCM_24, 24, 8, SF_FORMAT_PCM_24, 0},
    {SAW_AUDIO_OGG, SAW_AUDIO_DEFAULT, 0, 64, 0, 20},
    {SAW_AUDIO_OPUS, SAW_AUDIO_DEFAULT, 0, 8, 0, 20},
    {SAW_AUDIO_MP3, SAW_AUDIO_DEFAULT, 0, 2, 0, 20},
};

static void every_format_comes_back(void **state)
{
    (void)state;
    static const int rates[] = {8000, 16000, 22050, 44100, 48000, 96000, 11000, 1000, 192000};
    static const int channel_counts[] = {1, 2, 3, 6, 8, 17, 64};
    static const int64_t lengths[] = {0, 1, 4096, 4097, 30011};
    int count = 0;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (size_t c = 0; c < sizeof channel_counts / sizeof *channel_counts; c++)
            for (size_t p = 0; p < sizeof rates / sizeof *rates; p++) {
                int channels = channel_counts[c], rate = rates[p];
                int64_t n = rate > 1000 ? lengths[(p + c) % 5] : 1000, m, got;
                saw_audio_format format = {cases[k].kind, cases[k].subtype, 0};
                saw_audio_kind kind = cases[k].kind;
                saw_audio_report report;
                saw_audio_info info;
                const char *path = path_of(saw_audio_extension(kind));
                tones(channels, n, rate);
                saw_status status = write_file(path, format, channels, rate, n, NULL, &report);
                if (kind != SAW_AUDIO_WAV &&
                    (n == 0 || (n == 1 && rate > 96000 && kind >= SAW_AUDIO_OPUS))) {
                    assert_int_equal(status, SAW_ERR_UNSUPPORTED);
                    continue;
                }
                if (channels > cases[k].most) {
                    assert_int_equal(status, SAW_ERR_UNSUPPORTED);
                    assert_said("use wav");
                    continue;
                }
                if (status)
                    fail_msg("%d channels, %d Hz: %s", channels, rate, saw_context_error(ctx));
                if (kind <= SAW_AUDIO_OGG)
                    assert_int_equal(report.rate_hz, rate);
                m = llround((double)n * report.rate_hz / rate);
                assert_int_equal(report.frames, m);
                assert_int_equal(report.clipped, 0);
                status = read_file(path, &info, &got);
                if (status)
                    fail_msg("%s, %d channels, %d Hz, %d frames: %s", path, channels, rate, (int)n,
                             saw_context_error(ctx));
                assert_int_equal(info.channels, channels);
                assert_int_equal(info.rate_hz, report.rate_hz);
                if (got != m)
                    fail_msg("%s, %d channels, %d Hz: %d frames came back of %d", path, channels,
                             rate, (int)got, (int)m);
                assert_int_equal(info.frames, m);
                SF_INFO sf = {0};
                SNDFILE *file = sf_open(path, SFM_READ, &sf);
                assert_non_null(file);
                sf_close(file);
                assert_int_equal(sf.frames, m);
                if (cases[k].sndfile)
                    assert_int_equal(sf.format & SF_FORMAT_SUBMASK, cases[k].sndfile);
                for (int ch = 0; ch < channels; ch++) {
                    double scale = ldexp(1, cases[k].bits - 1);
                    for (int64_t i = 0; i < n && cases[k].bits; i++)
                        planes[ch][i] =
                            (float)(nearbyint(planes[ch][i] * scale) / scale) + 0.0f; /* no -0 */
                    if (cases[k].least == 0)
                        assert_memory_equal(planes[ch], others[ch], sizeof(float) * (size_t)n);
                    else if (n > 10000 && m == n) {
                        double db = test_snr_db(others[ch], planes[ch], (size_t)n);
                        if (db < (ch == 3
                                      ? 10
                                      : cases[k].least)) /* a low-frequency channel loses more */
                            fail_msg("%s, %d channels, %d Hz, channel %d: %.1f dB", path, channels,
                                     rate, ch, db);
                    }
                }
                count++;
            }
    print_message("%d files written and read back\n", count);
}

static void sixteen_bits_stay_the_same(void **state)
{
    (void)state;
    short all[65536], back[65536];
    for (int i = 0; i < 65536; i++)
        all[i] = (short)(i - 32768);
    SF_INFO info = {.samplerate = 44100, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    SNDFILE *f = sf_open(path_of("in.wav"), SFM_WRITE, &info);
    assert_int_equal(sf_writef_short(f, all, 32768), 32768);
    sf_close(f);
    saw_audio_info read;
    saw_audio_report report;
    int64_t n;
    assert_int_equal(read_file(path_of("in.wav"), &read, &n), SAW_OK);
    for (int c = 0; c < 2; c++)
        memcpy(planes[c], others[c], sizeof(float) * (size_t)n);
    for (int k = 0; k < 4; k++) {
        saw_audio_format format = {k & 1 ? SAW_AUDIO_FLAC : SAW_AUDIO_WAV,
                                   k & 2 ? SAW_AUDIO_PCM_24 : SAW_AUDIO_PCM_16, 0};
        assert_int_equal(write_file(path_of("out"), format, 2, 44100, n, NULL, &report), SAW_OK);
        assert_int_equal(report.clipped, 0);
        f = sf_open(path_of("out"), SFM_READ, &info);
        assert_int_equal(sf_readf_short(f, back, 32768), 32768);
        sf_close(f);
        assert_memory_equal(all, back, sizeof all);
    }
}

static void rounding_and_clipping(void **state)
{
    (void)state;
    /* ties go to even; beyond full scale is clamped and counted, full scale itself is not */
    static const float in[] = {0.5f,  1.5f,     2.5f,  -0.5f,  -1.5f,  32767.6f,
                               32768, 32768.5f, 70000, -32768, -32769, -1e9f};
    static const short want[] = {0,     2,     2,     0,      -2,     32767,
                                 32767, 32767, 32767, -32768, -32768, -32768};
    enum { N = sizeof in / sizeof *in };
    for (int i = 0; i < N; i++)
        planes[0][i] = in[i] / 32768;
    static const saw_audio_kind kinds[] = {SAW_AUDIO_WAV, SAW_AUDIO_FLAC};
    for (int k = 0; k < 2; k++) {
        saw_audio_report report;
        short back[N];
        SF_INFO info = {0};
        assert_int_equal(write_file(path_of("clip"),
                                    (saw_audio_format){kinds[k], SAW_AUDIO_PCM_16, 0}, 1, 44100, N,
                                    NULL, &report),
                         SAW_OK);
        assert_int_equal(report.clipped, 4);
        assert_true(report.peak == 1e9f / 32768);
        SNDFILE *f = sf_open(path_of("clip"), SFM_READ, &info);
        assert_int_equal(sf_readf_short(f, back, N), N);
        sf_close(f);
        assert_memory_equal(back, want, sizeof want);
    }
    saw_audio_report report;
    saw_audio_info info;
    int64_t n;
    assert_int_equal(
        write_file(path_of("float.wav"), (saw_audio_format){0}, 1, 44100, N, NULL, &report),
        SAW_OK);
    assert_int_equal(report.clipped, 0);
    assert_true(report.peak == 1e9f / 32768);
    assert_int_equal(read_file(path_of("float.wav"), &info, &n), SAW_OK);
    assert_memory_equal(others[0], planes[0], sizeof in);
    /* a lossy format clamps what it encodes */
    noise(1, 20000, 3);
    assert_int_equal(write_file(path_of("loud.ogg"), (saw_audio_format){SAW_AUDIO_OGG, 0, 0}, 1,
                                44100, 20000, NULL, &report),
                     SAW_OK);
    assert_true(report.clipped > 12000 && report.clipped < 14700);
    assert_true(report.peak > 2.9f && report.peak <= 3);
}

static void rf64_header_is_understood(void **state)
{
    (void)state;
    /* a sparse file: 1.5e9 frames of 4 bytes, and one below the limit */
    static const int64_t lengths[] = {1500000000, 1000000000};
    for (int i = 0; i < 2; i++) {
        saw_buffer b = {.ctx = ctx};
        saw_wav_header(&b, SAW_AUDIO_PCM_16, 2, 44100, NULL, lengths[i]);
        const char *path = path_of("big.wav");
        FILE *f = fopen(path, "wb");
        assert_int_equal(fwrite(b.data, 1, b.size, f), b.size);
        assert_int_equal(ftruncate(fileno(f), (off_t)b.size + lengths[i] * 4), 0);
        fclose(f);
        assert_memory_equal(b.data, i ? "RIFF" : "RF64", 4);
        saw_buffer_free(&b);
        SF_INFO sf = {0};
        SNDFILE *s = sf_open(path, SFM_READ, &sf);
        assert_non_null(s);
        sf_close(s);
        assert_int_equal(sf.frames, lengths[i]);
        saw_audio_reader *r;
        assert_int_equal(saw_audio_open(ctx, path, &r), SAW_OK);
        assert_int_equal(saw_audio_reader_info(r)->frames, lengths[i]);
        int64_t got;
        assert_int_equal(saw_audio_seek(r, lengths[i] - 10), SAW_OK);
        assert_int_equal(saw_audio_read(r, others, 100, &got), SAW_OK);
        assert_int_equal(got, 10);
        saw_audio_close(r);
        assert_int_equal(truncate(path, 4000000000), 0);
        if (i == 0) {
            assert_int_equal(saw_audio_open(ctx, path, &r), SAW_ERR_FORMAT);
            assert_said("promises 1500000000 frames");
        }
        unlink(path);
    }
}

static void seeking_is_exact(void **state)
{
    (void)state;
    enum { N = 50000 };
    static const int64_t starts[] = {40000, 0, 1, 4096, 12345, N - 10, N, 30000};
    tones(2, N, 48000);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        saw_audio_format format = {cases[k].kind, cases[k].subtype, 0};
        const char *path = path_of("seek");
        saw_audio_info info;
        saw_audio_reader *r;
        int64_t n, got;
        assert_int_equal(write_file(path, format, 2, 48000, N, NULL, NULL), SAW_OK);
        assert_int_equal(read_file(path, &info, &n), SAW_OK);
        assert_int_equal(saw_audio_open(ctx, path, &r), SAW_OK);
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
            assert_int_equal(saw_audio_seek(r, starts[i]), SAW_OK);
            assert_int_equal(saw_audio_read(r, planes, 9000, &got), SAW_OK);
            int64_t want = N - starts[i] < 9000 ? N - starts[i] : 9000;
            assert_int_equal(got, want);
            for (int c = 0; c < 2; c++)
                assert_memory_equal(planes[c], others[c] + starts[i], sizeof(float) * (size_t)got);
        }
        assert_int_equal(saw_audio_seek(r, N + 1), SAW_ERR_ARGUMENT);
        assert_said("outside its 1.042 s");
        saw_audio_close(r);
        tones(2, N, 48000);
    }
}

/* ---- tags ------------------------------------------------------------------------------------ */

static void tags_are_kept(void **state)
{
    (void)state;
    static const char *const texts[SAW_TAG_COUNT] = {"Tïtle", "An Artist", "Album",         "7",
                                                     "1999",  "Jazz",      "a comment, odd"};
    saw_audio_tags tags;
    for (int i = 0; i < SAW_TAG_COUNT; i++)
        tags.text[i] = (char *)(uintptr_t)texts[i];
    tones(2, 5000, 44100);
    for (saw_audio_kind kind = SAW_AUDIO_WAV; kind <= SAW_AUDIO_MP3; kind++) {
        saw_audio_reader *r;
        int kept = 0;
        assert_int_equal(write_file(path_of("tags"), (saw_audio_format){kind, 0, 0}, 2, 44100, 5000,
                                    &tags, NULL),
                         SAW_OK);
        assert_int_equal(saw_audio_open(ctx, path_of("tags"), &r), SAW_OK);
        for (int i = 0; i < SAW_TAG_COUNT; i++) {
            const char *text = saw_audio_reader_tags(r)->text[i];
            if (text)
                assert_string_equal(text, texts[i]);
            kept += text != NULL;
        }
        saw_audio_close(r);
        print_message("%s keeps %d of %d tags\n", saw_audio_extension(kind), kept, SAW_TAG_COUNT);
        assert_int_equal(kept, SAW_TAG_COUNT);
    }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void assert_refused(const char *path, saw_status want, const char *said)
{
    saw_audio_info info;
    int64_t n;
    assert_int_equal(read_file(path, &info, &n), want);
    assert_said(path);
    assert_said(said);
}

static bool have_ffmpeg(void)
{
    return system("ffmpeg -version >/dev/null 2>&1") == 0;
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    assert_refused(path_of("nothing"), SAW_ERR_IO, "No such file");
    assert_refused(folder, SAW_ERR_IO, "is a folder");
    assert_refused("/dev/null", SAW_ERR_IO, "is a device");
    put_file(path_of("empty"), "", 0);
    assert_refused(path_of("empty"), SAW_ERR_FORMAT, "is empty");
    put_file(path_of("text"), "this is a text, not a sound\n", 28);
    if (have_ffmpeg())
        assert_refused(path_of("text"), SAW_ERR_FORMAT, "ffmpeg says");

    static const saw_audio_format wav = {SAW_AUDIO_WAV, SAW_AUDIO_PCM_16, 0};
    tones(2, 10000, 44100);
    assert_int_equal(write_file(path_of("a.wav"), wav, 2, 44100, 10000, NULL, NULL), SAW_OK);
    assert_int_equal(truncate(path_of("a.wav"), 20000), 0);
    assert_refused(path_of("a.wav"), SAW_ERR_FORMAT, "promises 10000 frames, 4");
    assert_int_equal(truncate(path_of("a.wav"), 20), 0);
    assert_int_equal(saw_audio_open(ctx, path_of("a.wav"), &(saw_audio_reader *){NULL}),
                     SAW_ERR_FORMAT);

    SF_INFO info = {
        .samplerate = 44100, .channels = 1, .format = SF_FORMAT_AIFF | SF_FORMAT_PCM_16};
    short zero[4000] = {0};
    SNDFILE *f = sf_open(path_of("a.aiff"), SFM_WRITE, &info);
    assert_int_equal(sf_writef_short(f, zero, 4000), 4000);
    sf_close(f);
    int64_t n;
    saw_audio_info read;
    assert_int_equal(read_file(path_of("a.aiff"), &read, &n), SAW_OK);
    assert_int_equal(n, 4000);
    assert_int_equal(truncate(path_of("a.aiff"), 5000), 0);
    assert_refused(path_of("a.aiff"), SAW_ERR_FORMAT, "is cut short");

    assert_int_equal(write_file(path_of("a.flac"), (saw_audio_format){SAW_AUDIO_FLAC, 0, 0}, 2,
                                44100, 10000, NULL, NULL),
                     SAW_OK);
    assert_int_equal(truncate(path_of("a.flac"), 20000), 0);
    assert_refused(path_of("a.flac"), SAW_ERR_FORMAT, "");
    assert_int_equal(write_file(path_of("a.mp3"), (saw_audio_format){SAW_AUDIO_MP3, 0, 0}, 2, 44100,
                                10000, NULL, NULL),
                     SAW_OK);
    assert_int_equal(truncate(path_of("a.mp3"), 2500), 0);
    *last_warning = 0;
    assert_int_equal(read_file(path_of("a.mp3"), &read, &n), SAW_OK);
    assert_true(n < 10000);
    assert_non_null(strstr(last_warning, "promises 10000"));
}

static void numbers_that_are_none_are_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        SF_INFO info = {
            .samplerate = 8000, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_FLOAT};
        float *x = calloc(20000, sizeof *x);
        x[2 * 6000 + 1] = bad[i];
        SNDFILE *f = sf_open(path_of("bad.wav"), SFM_WRITE, &info);
        assert_int_equal(sf_writef_float(f, x, 10000), 10000);
        sf_close(f);
        free(x);
        assert_refused(path_of("bad.wav"), SAW_ERR_FORMAT, "at 0.750 s in channel 2");
        tones(2, 10000, 8000);
        planes[1][6000] = bad[i];
        int before = files_in_folder();
        assert_int_equal(
            write_file(path_of("none.wav"), (saw_audio_format){0}, 2, 8000, 10000, NULL, NULL),
            SAW_ERR_FORMAT);
        assert_said("at 0.750 s in channel 2");
        assert_int_equal(files_in_folder(), before);
    }
}

static void odd_headers(void **state)
{
    (void)state;
    uint8_t bytes[2000] = {0};
    saw_buffer b = {.ctx = ctx};
    static const struct {
        int channels;
        uint32_t rate_hz;
        const char *said;
    } refused[] = {
        {0, 44100, ""}, {65, 44100, "65 channels"}, {2, 999, "999 Hz"}, {2, 768001, "768001 Hz"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        saw_wav_header(&b, SAW_AUDIO_PCM_16, 2, 44100, NULL, 100);
        uint8_t *format = memmem(b.data, b.size, "fmt ", 4);
        format[10] = (uint8_t)refused[i].channels;
        format[20] = (uint8_t)(2 * refused[i].channels);
        for (int k = 0; k < 4; k++)
            format[12 + k] = (uint8_t)(refused[i].rate_hz >> (8 * k));
        saw_buffer_add(&b, bytes, 400);
        put_file(path_of("odd.wav"), b.data, b.size);
        saw_audio_reader *r = NULL;
        assert_int_not_equal(saw_audio_open(ctx, path_of("odd.wav"), &r), SAW_OK);
        assert_null(r);
        assert_said(refused[i].said);
        b.size = 0;
    }
    /* headers of programs that did not know the length */
    static const uint32_t unknown[] = {0, 0xffffffffu, 0x7ffff000u, 0x80000000u};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        saw_wav_header(&b, SAW_AUDIO_PCM_16, 2, 44100, NULL, 100);
        for (int k = 0; k < 4; k++)
            b.data[b.size - 4 + (size_t)k] = (char)(unknown[i] >> (8 * k));
        saw_buffer_add(&b, bytes, 402); /* and half a frame */
        put_file(path_of("stream.wav"), b.data, b.size);
        saw_audio_info info;
        int64_t n;
        assert_int_equal(read_file(path_of("stream.wav"), &info, &n), SAW_OK);
        assert_int_equal(n, 100);
        assert_int_equal(info.frames, 100);
        b.size = 0;
    }
    saw_buffer_free(&b);
}

static void formats_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *format, *subtype;
        saw_audio_kind kind;
        saw_audio_subtype want;
    } good[] = {{NULL, NULL, SAW_AUDIO_WAV, SAW_AUDIO_DEFAULT},
                {"WAV", "PCM_16", SAW_AUDIO_WAV, SAW_AUDIO_PCM_16},
                {"flac", "24", SAW_AUDIO_FLAC, SAW_AUDIO_PCM_24},
                {"wav", "float", SAW_AUDIO_WAV, SAW_AUDIO_FLOAT},
                {"opus", "", SAW_AUDIO_OPUS, SAW_AUDIO_DEFAULT},
                {"mp3", NULL, SAW_AUDIO_MP3, SAW_AUDIO_DEFAULT}};
    static const char *const bad[][3] = {{"aac", NULL, "aac"},
                                         {"wav", "12", "12"},
                                         {"flac", "float", "wav for float"},
                                         {"mp3", "16", "lossy"},
                                         {"ogg", "float", "lossy"}};
    saw_audio_format f;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(saw_audio_format_parse(ctx, good[i].format, good[i].subtype, &f), SAW_OK);
        assert_int_equal(f.kind, good[i].kind);
        assert_int_equal(f.subtype, good[i].want);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(saw_audio_format_parse(ctx, bad[i][0], bad[i][1], &f), SAW_ERR_ARGUMENT);
        assert_said(bad[i][2]);
    }
    assert_int_equal(
        write_file("-", (saw_audio_format){SAW_AUDIO_FLAC, 0, 0}, 2, 44100, 0, NULL, NULL),
        SAW_ERR_UNSUPPORTED);
    assert_int_equal(write_file(path_of("q"), (saw_audio_format){SAW_AUDIO_OGG, 0, 1.5}, 2, 44100,
                                0, NULL, NULL),
                     SAW_ERR_ARGUMENT);
}

static void a_rate_that_the_encoder_refuses(void **state)
{
    (void)state;
    int before = files_in_folder();
    static const saw_audio_kind kinds[] = {SAW_AUDIO_OGG, SAW_AUDIO_FLAC};
    static const int rates[] = {384000, 700000};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write_file(path_of("fast"), (saw_audio_format){kinds[i], 0, 0}, 2,
                                    rates[i], 1000, NULL, NULL),
                         SAW_ERR_UNSUPPORTED);
        assert_said("Hz cannot be written as");
        assert_int_equal(files_in_folder(), before);
    }
}

/* ---- disks and pipes ------------------------------------------------------------------------- */

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    noise(2, MAX_FRAMES, 0.5f);
    put_file(path_of("there"), "old", 3);
    int before = files_in_folder();
    for (saw_audio_kind kind = SAW_AUDIO_WAV; kind <= SAW_AUDIO_MP3; kind++)
        for (rlim_t limit = 0; limit <= 9000; limit += 3000) {
            fflush(NULL);
            pid_t child = fork();
            if (child == 0) {
                signal(SIGXFSZ, SIG_IGN);
                setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
                saw_status status = write_file(path_of("there"), (saw_audio_format){kind, 0, 0}, 2,
                                               44100, MAX_FRAMES, NULL, NULL);
                bool told = strstr(saw_context_error(ctx), "there: cannot be written: ") != NULL;
                _exit(status == SAW_ERR_IO && told ? 0 : 1);
            }
            int how;
            assert_int_equal(waitpid(child, &how, 0), child);
            if (how)
                fail_msg("%s, limit %d: status %x", saw_audio_extension(kind), (int)limit, how);
            assert_int_equal(files_in_folder(), before);
        }
    char text[4] = "";
    FILE *f = fopen(path_of("there"), "rb");
    assert_int_equal(fread(text, 1, 4, f), 3);
    fclose(f);
    assert_string_equal(text, "old");
    assert_int_equal(
        write_file(path_of("no/such/a.wav"), (saw_audio_format){0}, 1, 8000, 10, NULL, NULL),
        SAW_ERR_IO);
    assert_said("no/such/a.wav: cannot be written");
    assert_int_equal(files_in_folder(), before);
}

static void an_abort_leaves_nothing(void **state)
{
    (void)state;
    int before = files_in_folder();
    for (saw_audio_kind kind = SAW_AUDIO_WAV; kind <= SAW_AUDIO_MP3; kind++) {
        saw_audio_writer *w;
        saw_audio_format format = {kind, 0, 0};
        assert_int_equal(saw_audio_create(ctx, path_of("aborted"), &format, 2, 44100, NULL, &w),
                         SAW_OK);
        assert_int_equal(saw_audio_write(w, IN(planes), 5000), SAW_OK);
        assert_int_not_equal(access(path_of("aborted"), F_OK), 0);
        saw_audio_abort(w);
        assert_int_equal(files_in_folder(), before);
    }
    saw_audio_abort(NULL);
    saw_audio_close(NULL);
}

/* Run a child whose standard output is a pipe that becomes our standard input while `then` runs
 * here. */
static void through_a_pipe(void (*first)(void *), void *arg, void (*then)(void *))
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        first(arg);
        _exit(0);
    }
    int old = dup(0), how;
    dup2(ends[0], 0);
    close(ends[0]);
    close(ends[1]);
    then(arg);
    dup2(old, 0);
    close(old);
    waitpid(child, &how, 0);
    assert_int_equal(how, 0);
}

static void write_wav_to_stdout(void *arg)
{
    saw_audio_format format = {SAW_AUDIO_WAV, *(saw_audio_subtype *)arg, 0};
    if (write_file("-", format, 3, 32000, 20000, NULL, NULL))
        _exit(1);
}

static void read_wav_from_stdin(void *arg)
{
    saw_audio_info info;
    int64_t n;
    (void)arg;
    assert_int_equal(read_file("-", &info, &n), SAW_OK);
    assert_int_equal(info.frames, -1);
    assert_int_equal(info.channels, 3);
    assert_int_equal(info.rate_hz, 32000);
    assert_int_equal(n, 20000);
}

static void send_file(void *arg)
{
    char bytes[1000];
    FILE *f = fopen(arg, "rb");
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, f)) > 0;)
        if (write(1, bytes, n) != (ssize_t)n)
            _exit(1);
    fclose(f);
}

static void read_file_from_stdin(void *arg)
{
    saw_audio_info info;
    int64_t n;
    (void)arg;
    assert_int_equal(read_file("-", &info, &n), SAW_OK);
    assert_int_equal(info.frames, 20000);
    assert_int_equal(n, 20000);
}

static void standard_streams(void **state)
{
    (void)state;
    tones(3, 20000, 32000);
    for (saw_audio_subtype s = SAW_AUDIO_PCM_16; s <= SAW_AUDIO_FLOAT; s++) {
        through_a_pipe(write_wav_to_stdout, &s, read_wav_from_stdin);
        double least = s == SAW_AUDIO_PCM_16 ? 70 : s == SAW_AUDIO_PCM_24 ? 120 : 999;
        for (int c = 0; c < 3; c++)
            assert_true(test_snr_db(others[c], planes[c], 20000) >= least);
    }
    for (saw_audio_kind kind = SAW_AUDIO_WAV; kind <= SAW_AUDIO_OGG; kind++) {
        const char *path = path_of("sent");
        assert_int_equal(
            write_file(path, (saw_audio_format){kind, 0, 0}, 3, 32000, 20000, NULL, NULL), SAW_OK);
        through_a_pipe(send_file, (void *)(uintptr_t)path, read_file_from_stdin);
        for (int c = 0; c < 3; c++)
            assert_true(test_snr_db(others[c], planes[c], 20000) > 20);
    }
}

/* ---- ffmpeg ---------------------------------------------------------------------------------- */

static void everything_else_through_ffmpeg(void **state)
{
    (void)state;
    if (!have_ffmpeg()) {
        print_message("skipped: 4 cases (ffmpeg is not installed)\n");
        skip();
    }
    tones(2, 50000, 44100);
    assert_int_equal(
        write_file(path_of("src.wav"), (saw_audio_format){0}, 2, 44100, 50000, NULL, NULL), SAW_OK);
    static const struct {
        const char *arguments, *name;
        bool exact;
    } made[] = {{"-c:a alac -metadata title=Hello -metadata track=5", "x.m4a", true},
                {"-c:a aac -b:a 256k -metadata title=Hello -metadata track=5",
                 "file:-odd ;name.m4a", false},
                {"-f lavfi -i color=size=16x16:duration=1 -c:v mpeg4 -c:a flac", "x.mkv", true},
                {"-write_xing 0 -c:a libmp3lame -q:a 3", "x.mp3", false}};
    for (int i = 0; i < 4; i++) {
        char command[2000];
        const char *path = path_of(made[i].name);
        snprintf(command, sizeof command,
                 "ffmpeg -nostdin -v error -y -i '%s' %s 'file:%s' 2>/dev/null", path_of("src.wav"),
                 made[i].arguments, path);
        assert_int_equal(system(command), 0);
        saw_audio_reader *r;
        if (saw_audio_open(ctx, path, &r))
            fail_msg("%s", saw_context_error(ctx));
        const saw_audio_info *info = saw_audio_reader_info(r);
        assert_int_equal(info->channels, 2);
        assert_int_equal(info->rate_hz, 44100);
        assert_int_equal(info->frames, -1);
        if (i < 2) {
            assert_string_equal(saw_audio_reader_tags(r)->text[SAW_TAG_TITLE], "Hello");
            assert_string_equal(saw_audio_reader_tags(r)->text[SAW_TAG_TRACK], "5");
        }
        int64_t got;
        assert_int_equal(saw_audio_read(r, others, MAX_FRAMES, &got), SAW_OK);
        if (made[i].exact) {
            assert_int_equal(got, 50000);
            assert_true(test_snr_db(others[1], planes[1], 50000) > 70);
        } else {
            assert_true(got >= 50000 && got < 54000);
        }
        assert_int_equal(saw_audio_seek(r, 5), SAW_ERR_UNSUPPORTED);
        saw_audio_close(r);
        assert_int_equal(saw_audio_open(ctx, path, &r),
                         SAW_OK); /* closed in the middle: no zombie */
        assert_int_equal(saw_audio_seek(r, 10000), SAW_OK);
        assert_int_equal(saw_audio_read(r, planes, 1000, &got), SAW_OK);
        assert_memory_equal(planes[0], others[0] + 10000, sizeof(float) * 1000);
        saw_audio_close(r);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        tones(2, 50000, 44100);
    }
    /* ffmpeg agrees about the order of the channels of the formats that have another one inside */
    for (saw_audio_kind kind = SAW_AUDIO_FLAC; kind <= SAW_AUDIO_OPUS; kind++) {
        char command[2000];
        saw_audio_info info;
        int64_t n;
        tones(6, 48000, 48000);
        assert_int_equal(
            write_file(path_of("six"), (saw_audio_format){kind, 0, 0}, 6, 48000, 48000, NULL, NULL),
            SAW_OK);
        snprintf(command, sizeof command, "ffmpeg -nostdin -v error -y -i '%s' -c:a pcm_s24le '%s'",
                 path_of("six"), path_of("six.wav"));
        assert_int_equal(system(command), 0);
        assert_int_equal(read_file(path_of("six.wav"), &info, &n), SAW_OK);
        assert_int_equal(info.channels, 6);
        for (int c = 0; c < 6; c++)
            assert_true(test_snr_db(others[c], planes[c], 47000) > (c == 3 ? 10 : 20));
    }
    put_file(path_of("cut.m4a"),
             "\0\0\0\x18"
             "ftypM4A \0\0\0\0M4A mp42",
             24);
    assert_refused(path_of("cut.m4a"), SAW_ERR_FORMAT, "ffmpeg says");
    char *old = strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    saw_audio_reader *r;
    assert_int_equal(saw_audio_open(ctx, path_of("x.m4a"), &r), SAW_ERR_UNSUPPORTED);
    assert_said("install ffmpeg");
    setenv("PATH", old, 1);
    free(old);
}

/* ---- channel groups -------------------------------------------------------------------------- */

static void channel_groups(void **state)
{
    (void)state;
    float file[5][2], model[4][2], out[5][2] = {{0}};
    const float *in[5];
    float *from[4], *to[5];
    for (int c = 0; c < 5; c++) {
        file[c][0] = (float)c + 1;
        file[c][1] = (float)-c;
        in[c] = file[c];
        to[c] = out[c];
    }
    for (int c = 0; c < 4; c++)
        from[c] = model[c];
    assert_int_equal(saw_channel_groups(1, 2), 1);
    assert_int_equal(saw_channel_groups(2, 2), 1);
    assert_int_equal(saw_channel_groups(5, 2), 3);
    assert_int_equal(saw_channel_groups(6, 2), 3);
    assert_int_equal(saw_channel_groups(3, 1), 3);
    for (int files = 1; files <= 5; files++)
        for (int models = 1; models <= 4;
             models++) { /* in and out is the identity, in every group */
            memset(out, 0, sizeof out);
            for (int g = 0; g < saw_channel_groups(files, models); g++) {
                saw_channel_in(in, files, g, 2, from, models);
                saw_channel_out(IN(from), models, 2, to, files, g);
            }
            for (int c = 0; c < files; c++)
                assert_memory_equal(out[c], file[c], sizeof file[c]);
        }
    saw_channel_in(in, 5, 1, 2, from, 2); /* the pair (2, 3) */
    assert_true(model[0][0] == 3 && model[1][0] == 4);
    saw_channel_in(in, 5, 2, 2, from, 2); /* the odd one, twice */
    assert_true(model[0][0] == 5 && model[1][0] == 5);
    model[0][0] = 1;
    model[1][0] = 4;
    saw_channel_out(IN(from), 2, 2, to, 5, 2);
    assert_true(out[4][0] == 2.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_comes_back),
        cmocka_unit_test(sixteen_bits_stay_the_same),
        cmocka_unit_test(rounding_and_clipping),
        cmocka_unit_test(rf64_header_is_understood),
        cmocka_unit_test(seeking_is_exact),
        cmocka_unit_test(tags_are_kept),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(odd_headers),
        cmocka_unit_test(formats_are_parsed),
        cmocka_unit_test(a_rate_that_the_encoder_refuses),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(an_abort_leaves_nothing),
        cmocka_unit_test(standard_streams),
        cmocka_unit_test(everything_else_through_ffmpeg),
        cmocka_unit_test(channel_groups),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
