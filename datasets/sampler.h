/*
 * sampler.h - batches of chunks to train with: a pure function of (data set, options, step), so
 * that a run that is resumed sees what it would have seen. A thread of its own decodes two batches
 * ahead.
 *
 * An item is aligned (its sources are one song's, at one time) or mixed (every source has a song
 * and a time of its own). Every second of a source is equally likely; a chunk below the loudness
 * gate is drawn again, up to 12 times, and the loudest of these is taken. A song shorter than a
 * chunk lies somewhere in it, with silence around.
 */
#ifndef SAW_SAMPLER_H
#define SAW_SAMPLER_H

#include "datasets/augment.h"
#include "datasets/dataset.h"

typedef struct saw_sampler_options {
    int64_t chunk_samples;
    int batch;
    uint64_t seed;
    saw_song_part part; /* songs of this part only */
    double aligned;     /* share of aligned items, 0 to 1 */
    double gate_db;     /* RMS below full scale that a chunk has at least: of each source of a mixed
                           item, of the mixture of an aligned one. 0: -60; -INFINITY: no gate */
    bool balance; /* an aligned item is drawn for one wanted stem, each equally often: from a song
                     that has it, where it passes the gate */
    const saw_augment *augment; /* copied */
    int n_augment;
    size_t cache_bytes; /* of decoded audio; 0: 256 MB */
} saw_sampler_options;

typedef struct saw_sampler saw_sampler;

/** Borrows d. SAW_ERR_ARGUMENT: options that make no sense, no song in this part. */
saw_status saw_sampler_open(saw_context *ctx, const saw_dataset *d,
                            const saw_sampler_options *options, saw_sampler **out);
/** Ends the thread. NULL is fine. */
void saw_sampler_close(saw_sampler *s);

/**
 * The batch of a step (0, 1, ...): mix[batch][channels][chunk_samples] and
 * stems[batch][wanted stems][channels][chunk_samples]. mix is the sum of the stems and, where the
 * data set has one, of the rest, added in this order. Asking for one step after the other is fast.
 * A failure (a file that cannot be read, ...) is that of this step's files.
 */
saw_status saw_sampler_batch(saw_sampler *s, int64_t step, float *mix, float *stems);

/** Bytes that the sampler holds at most, its cache included: for plans of memory. */
size_t saw_sampler_bytes(const saw_sampler *s);

#endif
