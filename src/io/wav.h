/*
 * wav.h - RIFF/WAVE by hand, for what libsndfile does not do: read a WAV from a pipe as it comes,
 * tell whether a file was cut short, and write samples that are rounded exactly. Internal to io/.
 */
#ifndef SAW_WAV_H
#define SAW_WAV_H

#include "io/audio.h"

typedef enum saw_wav_coding {
    SAW_WAV_OTHER, /* a coding that is left to libsndfile */
    SAW_WAV_U8,
    SAW_WAV_S16,
    SAW_WAV_S24,
    SAW_WAV_S32,
    SAW_WAV_F32,
    SAW_WAV_F64
} saw_wav_coding;

typedef struct saw_wav {
    saw_wav_coding coding;
    int channels, rate_hz;
    uint32_t frame_bytes;
    uint64_t data_offset;
    uint64_t data_bytes;
    bool data_unknown; /* a streaming program wrote the header and did not know */
} saw_wav;

/** Up to n bytes at offset into out; returns how many there are. */
typedef size_t saw_wav_read(void *user, uint64_t offset, void *out, size_t n);

/**
 * Walk the chunks up to the samples of a WAV, RF64 or AIFF (coding OTHER) file. false when it is
 * none of them or damaged before its samples. tags may be NULL; else the texts of LIST INFO chunks
 * are stored there, each of saw_alloc.
 */
bool saw_wav_parse(saw_context *ctx, saw_wav_read *read, void *user, saw_wav *out,
                   saw_audio_tags *tags);

/** n samples of this coding to floats with full scale 1. in and out must not overlap. */
void saw_wav_unpack(saw_wav_coding coding, const uint8_t *in, float *out, size_t n);

/** Where Vorbis and Opus keep the channel that is number c of `channels` in WAV: 3, 5 to 8 channels
 * differ. */
int saw_vorbis_place(int c, int channels);

/** Free the texts and set them to NULL. */
void saw_audio_tags_free(saw_context *ctx, saw_audio_tags *tags);

/**
 * Append the header of a file with `frames` frames (-1: a stream of unknown length) to b; subtype
 * is not DEFAULT. Room for the larger header of RF64 is kept, so the size depends on neither frames
 * nor the tags' being followed by samples.
 */
void saw_wav_header(saw_buffer *b, saw_audio_subtype subtype, int channels, int rate_hz,
                    const saw_audio_tags *tags, int64_t frames);

#endif
