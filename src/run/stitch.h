/*
 * stitch.h - cut a stream into overlapping chunks, let a model separate each, and join the results.
 *
 * The stitcher is outside the model: offline is streaming fed by a file. How chunks are weighted,
 * and what is added at the ends of the signal, is one row of a table:
 *
 *   "msst"    as the inference of Music-Source-Separation-Training with batch size 1: step = chunk
 * / overlap; a signal longer than 2 (chunk - step) is mirrored by chunk - step at both ends; every
 * chunk fades in and out over chunk / 10 samples, but for the first and the last; a last, short
 * chunk is filled up by mirroring if more than half of it is there, else with zeros. With overlap 1
 * the sample where two chunks meet is 0, as it is there. "demucs"  step = chunk / overlap; plain
 * averages; the last chunk is filled up with zeros. "whole"   one chunk and no overlap: give the
 * length of the whole signal as chunk_samples.
 *
 *   "fade"    step = chunk - chunk / 4: neighbours fade into each other over chunk / 4 samples, and
 * overlap nowhere else; the chunk that reaches the end is the last one, filled up with zeros.
 *   "spleeter"  as if a model that works on frames of a transform (squared Hann windows of
 * frame_samples, one every hop_samples, the first centred on sample 0) had been given the frames of
 * the whole signal and cut them into segments: a chunk is the samples that the frames of one
 * segment reach, step = its number of frames * hop, and chunks are weighted by the sums of their
 * squared windows. Results are then those of one
 *             inverse transform of all frames, if the model leaves out the frames that are centred
 * beyond the end (saw_stitcher_present).
 *
 * All memory is taken at open and does not depend on the length of the signal. Results do not
 * depend on the batch size nor on how input and output are cut into calls, bit for bit, if the
 * model's do not depend on the batch.
 */
#ifndef SAW_STITCH_H
#define SAW_STITCH_H

#include "base/base.h"

/**
 * Separate `count` chunks (1 to the batch size) of chunk_samples each. in: [count * channels]
 * pointers, chunk-major; out: [count * stems * channels] pointers. Both are only valid during the
 * call. A failure ends the stitching.
 */
typedef saw_status saw_chunk_fn(void *user, int count, const float *const *in, float *const *out);

typedef struct saw_stitch_options {
    const char *kind; /* NULL: "msst" */
    int channels, stems;
    int64_t chunk_samples;
    int overlap;                        /* chunks over every sample, 1 to chunk_samples; 0: 1 */
    int batch;                          /* chunks per call of the model; 0: 1 */
    int64_t frame_samples, hop_samples; /* of "spleeter" */
} saw_stitch_options;

typedef struct saw_stitcher saw_stitcher;

/** Name of row i of the table, NULL behind the last. */
const char *saw_stitch_kind_name(int i);
/** Samples from chunk to chunk; 0 when the options are wrong. */
int64_t saw_stitcher_step_samples(const saw_stitch_options *options);
/** Bytes that open will take; 0 when the options are wrong. */
size_t saw_stitcher_memory_bytes(const saw_stitch_options *options);

saw_status saw_stitcher_open(saw_context *ctx, const saw_stitch_options *options, saw_chunk_fn *fn,
                             void *user, saw_stitcher **out);
void saw_stitcher_close(saw_stitcher *s);

/** Samples that push takes now. It is at least 1 whenever nothing is ready, so pulling what is
 * ready always goes on. */
int64_t saw_stitcher_room(const saw_stitcher *s);
/** Take n <= room samples, [channels][n], and separate as soon as a batch of chunks is whole. */
saw_status saw_stitcher_push(saw_stitcher *s, const float *const *planar, int64_t n);
/** No more input will come: separate the rest. Afterwards as many samples are ready, or were
 * pulled, as were pushed. */
saw_status saw_stitcher_finish(saw_stitcher *s);

/** Samples that pull can give now. */
int64_t saw_stitcher_ready(const saw_stitcher *s);
/** Write the next n <= ready samples: [stems * channels][n], stem-major. */
saw_status saw_stitcher_pull(saw_stitcher *s, float *const *planar, int64_t n);

/** While the model is called: how many samples of its chunk j are there, with what goes before the
 * signal; the rest was filled up. */
int64_t saw_stitcher_present(const saw_stitcher *s, int j);

/** The most samples that were pushed but are not ready yet, at any moment before finish. */
int64_t saw_stitcher_latency_samples(const saw_stitcher *s);

#endif
