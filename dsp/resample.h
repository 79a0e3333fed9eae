/*
 * resample.h - change the sample rate of a stream: band-limited interpolation by libsamplerate,
 * with the bookkeeping around it. Output sample i stands for the time i / out_hz exactly (the
 * filter's delay is taken out), what is beyond the two ends of the input counts as silence, and the
 * output has llround(frames * out_hz / in_hz) frames, or as many as the caller asks for: a way back
 * gives the length of the original.
 *
 * Measured there and back over 44.1/48, 96/44.1 and 22.05/44.1 kHz, for a signal below 0.45 of the
 * lower rate that fades in and out: 132 dB and more (SAW_RESAMPLE_BEST). A signal that starts or
 * ends at full level is not band-limited at that edge; there the few milliseconds beside the edge
 * differ, and 5 s of noise give about 60 dB.
 */
#ifndef SAW_RESAMPLE_H
#define SAW_RESAMPLE_H

#include "base/base.h"

/** Passband up to 0.97 (best), 0.90 (medium) and 0.80 (fast) of half the lower rate; costs about 5
 * : 1.5 : 1. */
typedef enum saw_resample_quality {
    SAW_RESAMPLE_BEST,
    SAW_RESAMPLE_MEDIUM,
    SAW_RESAMPLE_FAST
} saw_resample_quality;

typedef struct saw_resample saw_resample;

/**
 * channels 1 to 64. SAW_ERR_UNSUPPORTED when one rate is more than 256 times the other. Equal rates
 * copy the samples unchanged. Nothing is allocated after open.
 */
saw_status saw_resample_open(saw_context *ctx, int in_hz, int out_hz, int channels,
                             saw_resample_quality quality, saw_resample **out);
void saw_resample_close(saw_resample *r);

/**
 * Take up to in_frames from in and write up to out_frames to out (both planar, [channels][frames]);
 * *used and *got say how many. It stops when the input is used up or the output is full, never for
 * another reason, and up to one block of taken input may be held inside. The output does not depend
 * on how the input is cut into calls.
 */
saw_status saw_resample_run(saw_resample *r, const float *const *in, int64_t in_frames,
                            int64_t *used, float *const *out, int64_t out_frames, int64_t *got);

/**
 * The input is complete. From now on saw_resample_run takes nothing (in may be NULL) and gives the
 * rest until total_frames have come out in all, then *got is 0. total_frames -1: llround(frames
 * taken * out_hz / in_hz).
 */
void saw_resample_end(saw_resample *r, int64_t total_frames);

/** llround(frames * out_hz / in_hz), in integers. */
int64_t saw_resample_frames(int64_t frames, int in_hz, int out_hz);

#endif
