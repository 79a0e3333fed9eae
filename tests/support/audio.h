/*
 * audio.h - audio files for tests, read by libsndfile alone.
 */
#ifndef SAW_TEST_AUDIO_H
#define SAW_TEST_AUDIO_H

#include <stdint.h>

/** Planar samples [*channels][*samples] of a file in a folder; the caller frees them. The running
 * test fails when it cannot be read. */
float *test_read_audio(const char *folder, const char *file, int *channels, int64_t *samples);

#endif
