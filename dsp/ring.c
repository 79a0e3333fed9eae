#include "dsp/ring.h"

#include <string.h>

struct saw_ring {
    saw_context *ctx;
    int channels;
    int64_t capacity, begin, size;
    float *data; /* [channels][capacity] */
};

saw_status saw_ring_open(saw_context *ctx, int channels, int64_t capacity, saw_ring **out)
{
    size_t count;
    *out = NULL;
    if (channels < 1 || capacity < 1 || !saw_mul_size((size_t)channels, (size_t)capacity, &count))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "a ring of %d channels and %lld samples makes no sense", channels,
                        (long long)capacity);
    saw_ring *r = saw_calloc(ctx, 1, sizeof *r);
    if (!r)
        return SAW_ERR_MEMORY;
    *r = (saw_ring){.ctx = ctx, .channels = channels, .capacity = capacity};
    r->data = saw_calloc(ctx, count, sizeof *r->data);
    if (!r->data) {
        saw_ring_close(r);
        return SAW_ERR_MEMORY;
    }
    *out = r;
    return SAW_OK;
}

void saw_ring_close(saw_ring *r)
{
    if (!r)
        return;
    saw_free(r->ctx, r->data);
    saw_free(r->ctx, r);
}

int64_t saw_ring_size(const saw_ring *r)
{
    return r->size;
}

int64_t saw_ring_room(const saw_ring *r)
{
    return r->capacity - r->size;
}

/* Samples from `at` on that lie side by side, at most n. */
static int64_t straight(const saw_ring *r, int64_t at, int64_t n)
{
    return n < r->capacity - at ? n : r->capacity - at;
}

int64_t saw_ring_write(saw_ring *r, const float *const *planar, int64_t n)
{
    if (n > saw_ring_room(r))
        n = saw_ring_room(r);
    for (int64_t done = 0, k; done < n; done += k) {
        int64_t at = (r->begin + r->size) % r->capacity;
        k = straight(r, at, n - done);
        for (int c = 0; c < r->channels; c++) {
            float *to = r->data + c * r->capacity + at;
            if (planar)
                memcpy(to, planar[c] + done, (size_t)k * sizeof *to);
            else
                memset(to, 0, (size_t)k * sizeof *to);
        }
        r->size += k;
    }
    return n;
}

int64_t saw_ring_peek(const saw_ring *r, int64_t offset, float *const *planar, int64_t n)
{
    if (n > r->size - offset)
        n = r->size > offset ? r->size - offset : 0;
    for (int64_t done = 0, k; done < n; done += k) {
        int64_t at = (r->begin + offset + done) % r->capacity;
        k = straight(r, at, n - done);
        for (int c = 0; c < r->channels; c++)
            memcpy(planar[c] + done, r->data + c * r->capacity + at, (size_t)k * sizeof **planar);
    }
    return n;
}

int64_t saw_ring_drop(saw_ring *r, int64_t n)
{
    if (n > r->size)
        n = r->size;
    r->begin = (r->begin + n) % r->capacity;
    r->size -= n;
    return n;
}
