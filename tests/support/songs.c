#include "support/songs.h"
#include "support/test.h"

#include "base/base.h"

#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>

double test_sound_at(const test_sound *s, int rate_hz, int64_t i)
{
    uint32_t word[4];
    double value = 0;
    if (s->hz > 0) {
        value = sin(2 * M_PI * s->hz * (double)i / rate_hz);
    } else if (s->noise) {
        saw_philox(s->noise, 0, (uint64_t)i, word);
        value = word[0] * 0x1p-31 - 1;
    }
    return s->gain * value + s->dc;
}

static void make_folders(const char *path)
{
    char folder[512];
    saw_context *ctx;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return;
    *slash = 0;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, folder), SAW_OK);
    saw_context_close(ctx);
}

static int format_of(const char *path)
{
    const char *ending = strrchr(path, '.');
    if (!strcmp(ending, ".flac"))
        return SF_FORMAT_FLAC | SF_FORMAT_PCM_24;
    if (!strcmp(ending, ".ogg"))
        return SF_FORMAT_OGG | SF_FORMAT_VORBIS;
    if (!strcmp(ending, ".mp3"))
        return SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III;
    return SF_FORMAT_WAV | SF_FORMAT_FLOAT;
}

void test_write_file(const char *path, int rate_hz, int channels, int64_t frames,
                     test_signal *signal, const void *user)
{
    make_folders(path);
    SF_INFO info = {.samplerate = rate_hz, .channels = channels, .format = format_of(path)};
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    if (!f)
        fail_msg("%s cannot be written: %s", path, sf_strerror(NULL));
    float block[1024 * 8];
    assert_true(channels <= 8);
    for (int64_t from = 0; from < frames; from += 1024) {
        int64_t n = frames - from < 1024 ? frames - from : 1024;
        for (int64_t i = 0; i < n; i++)
            for (int c = 0; c < channels; c++)
                block[i * channels + c] = (float)signal(user, c, from + i);
        assert_int_equal(sf_writef_float(f, block, n), n);
    }
    assert_int_equal(sf_close(f), 0);
}

typedef struct sound_at_rate {
    test_sound sound;
    int rate_hz;
} sound_at_rate;

static double sound_signal(const void *user, int c, int64_t i)
{
    const sound_at_rate *s = user;
    (void)c;
    return test_sound_at(&s->sound, s->rate_hz, i);
}

void test_write_sound(const char *path, int rate_hz, int channels, int64_t frames, test_sound s)
{
    const sound_at_rate at = {s, rate_hz};
    test_write_file(path, rate_hz, channels, frames, sound_signal, &at);
}

void test_write_text(const char *path, const char *text)
{
    make_folders(path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}
