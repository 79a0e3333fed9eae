/*
 * ring.h - a bounded first-in, first-out buffer of planar audio, for one thread. Nothing is
 * allocated after open.
 */
#ifndef SAW_RING_H
#define SAW_RING_H

#include "base/base.h"

typedef struct saw_ring saw_ring;

/** Room for `capacity` samples of `channels` channels. */
saw_status saw_ring_open(saw_context *ctx, int channels, int64_t capacity, saw_ring **out);
void saw_ring_close(saw_ring *r);

/** Samples held, and samples that still fit. */
int64_t saw_ring_size(const saw_ring *r);
int64_t saw_ring_room(const saw_ring *r);

/** Append up to n samples; returns how many fitted. planar NULL appends silence. */
int64_t saw_ring_write(saw_ring *r, const float *const *planar, int64_t n);
/** Copy up to n samples, from `offset` samples behind the oldest, and leave them there; returns how
 * many there were. */
int64_t saw_ring_peek(const saw_ring *r, int64_t offset, float *const *planar, int64_t n);
/** Forget up to n of the oldest samples; returns how many there were. */
int64_t saw_ring_drop(saw_ring *r, int64_t n);

#endif
