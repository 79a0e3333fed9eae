/*
 * songs.h - small audio files for tests, made of formulas.
 */
#ifndef SAW_TEST_SONGS_H
#define SAW_TEST_SONGS_H

#include <stdbool.h>
#include <stdint.h>

/** What is in a file: gain * (tone or noise) + dc, the same in every channel. */
typedef struct test_sound {
    double hz;      /* of a sine; 0: noise */
    uint64_t noise; /* which one; 0: none, so that only dc is left */
    double gain, dc;
} test_sound;

/** Sample i of it at this rate; noise is uniform in [-1, 1) and knows no rate. */
double test_sound_at(const test_sound *s, int rate_hz, int64_t i);
/** Sample i of channel c of a file; user as given to test_write_file. */
typedef double test_signal(const void *user, int c, int64_t i);

/** Write a file and the folders it lies in; the ending chooses: wav (float), flac (24 bit), ogg,
 * mp3.
 */
void test_write_file(const char *path, int rate_hz, int channels, int64_t frames,
                     test_signal *signal, const void *user);
void test_write_sound(const char *path, int rate_hz, int channels, int64_t frames, test_sound s);
/** Any bytes. */
void test_write_text(const char *path, const char *text);

#endif
