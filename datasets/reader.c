/*
 * reader.c - pieces of songs. A file is decoded in blocks of BLOCK_FRAMES at its own rate; the
 * blocks used last are kept, and so are the files opened last. A piece of a file at another rate is
 * made from the blocks around it: with in/out = P/Q in lowest terms, sample k P of the file is
 * sample k Q of the piece's time line, so that the resampler starts on such a pair, some way ahead.
 *
 * Ogg and MP3 are read through once, when they are first needed, and a hash of each block is kept:
 * it tells whether a jump, which is fast, landed where it should.
 */
#include "datasets/dataset_private.h"
#include "dsp/resample.h"
#include "io/audio.h"

#include <string.h>

enum {
    BLOCK_FRAMES = 32768,
    OPEN_FILES = 16,
    PIECE_FRAMES = 4096,
    FILTER_FRAMES = 1024 /* more than half the resampler's filter, at the lower of the rates */
};
static const size_t default_cache_bytes = (size_t)256 << 20;

typedef struct block {
    float *data; /* [channels of the data set][BLOCK_FRAMES] */
    int file;    /* -1: empty */
    int64_t index;
    uint64_t used; /* larger: later */
} block;

typedef struct open_file {
    saw_audio_reader *audio;
    int file;
    uint64_t used;
} open_file;

struct saw_dataset_reader {
    saw_context *ctx;
    const saw_dataset *d;
    block *blocks;
    int block_count;
    uint64_t **hashes; /* [files]; NULL: not read through yet, or not needed */
    open_file open[OPEN_FILES];
    uint64_t clock;
    float *decoded;  /* [SAW_AUDIO_MAX_CHANNELS][BLOCK_FRAMES], as in the file */
    float *in, *out; /* [channels][PIECE_FRAMES], of the resampler */
};

saw_status saw_dataset_reader_open(saw_context *ctx, const saw_dataset *d, size_t cache_bytes,
                                   saw_dataset_reader **out)
{
    size_t channels = (size_t)d->channels, bytes = channels * BLOCK_FRAMES * sizeof(float);
    size_t count = (cache_bytes ? cache_bytes : default_cache_bytes) / bytes;
    saw_dataset_reader *r = *out = saw_calloc(ctx, 1, sizeof *r);
    if (!r)
        return SAW_ERR_MEMORY;
    r->ctx = ctx;
    r->d = d;
    r->block_count = count < 4 ? 4 : count > 1 << 20 ? 1 << 20 : (int)count;
    r->blocks = saw_calloc(ctx, (size_t)r->block_count, sizeof *r->blocks);
    r->hashes = saw_calloc(ctx, (size_t)d->found.count, sizeof *r->hashes);
    r->in = saw_calloc(ctx, channels, PIECE_FRAMES * sizeof *r->in);
    r->out = saw_calloc(ctx, channels, PIECE_FRAMES * sizeof *r->out);
    if (r->blocks && r->hashes && r->in && r->out) {
        for (int i = 0; i < r->block_count; i++)
            r->blocks[i].file = -1;
        return SAW_OK;
    }
    saw_dataset_reader_close(r);
    *out = NULL;
    return SAW_ERR_MEMORY;
}

void saw_dataset_reader_close(saw_dataset_reader *r)
{
    if (!r)
        return;
    for (int i = 0; i < OPEN_FILES; i++)
        saw_audio_close(r->open[i].audio);
    for (int i = 0; r->blocks && i < r->block_count; i++)
        saw_free(r->ctx, r->blocks[i].data);
    for (int i = 0; r->hashes && i < r->d->found.count; i++)
        saw_free(r->ctx, r->hashes[i]);
    saw_free(r->ctx, r->hashes);
    saw_free(r->ctx, r->blocks);
    saw_free(r->ctx, r->decoded);
    saw_free(r->ctx, r->in);
    saw_free(r->ctx, r->out);
    saw_free(r->ctx, r);
}

/* ---- decoding -------------------------------------------------------------------------------- */

static saw_status open_slot(saw_dataset_reader *r, int file, open_file **out)
{
    open_file *slot = &r->open[0];
    for (int i = 0; i < OPEN_FILES; i++) {
        open_file *o = &r->open[i];
        if (o->audio && o->file == file) {
            slot = o;
            break;
        }
        if (!o->audio || (slot->audio && o->used < slot->used))
            slot = o;
    }
    saw_status status = SAW_OK;
    if (!slot->audio || slot->file != file) {
        saw_audio_close(slot->audio);
        status = saw_audio_open(r->ctx, r->d->files[file].path, &slot->audio);
    }
    slot->file = file;
    slot->used = ++r->clock;
    *out = slot;
    return status;
}

/* Read [channels][up to n] to r->decoded, from a frame on; exactly: not by a jump that may go
 * wrong. */
static saw_status read_from(saw_dataset_reader *r, open_file *slot, int64_t frame, int64_t n,
                            bool exactly, float *planar[SAW_AUDIO_MAX_CHANNELS], int64_t *got)
{
    saw_status status =
        exactly ? saw_audio_seek(slot->audio, frame) : saw_audio_jump(slot->audio, frame);
    if (status == SAW_ERR_UNSUPPORTED) { /* it cannot go back */
        saw_audio_close(slot->audio);
        status = saw_audio_open(r->ctx, r->d->files[slot->file].path, &slot->audio);
        if (!status)
            status = saw_audio_seek(slot->audio, frame);
    }
    for (int c = 0; c < SAW_AUDIO_MAX_CHANNELS; c++)
        planar[c] = r->decoded + (size_t)c * BLOCK_FRAMES;
    return status ? status : saw_audio_read(slot->audio, planar, n, got);
}

static uint64_t hash_of(float *const *planar, int channels, int64_t frames)
{
    uint64_t hash = (uint64_t)frames;
    for (int c = 0; c < channels; c++)
        hash = hash * 31 + saw_fnv1a(planar[c], (size_t)frames * sizeof(float));
    return hash;
}

/* Frames of a block of a file. */
static int64_t block_frames(const saw_data_file *f, int64_t index)
{
    int64_t left = f->frames - index * BLOCK_FRAMES;
    return left < BLOCK_FRAMES ? left : BLOCK_FRAMES;
}

static saw_status read_through(saw_dataset_reader *r, open_file *slot)
{
    const saw_data_file *f = &r->d->files[slot->file];
    float *planar[SAW_AUDIO_MAX_CHANNELS];
    int64_t got, blocks = (f->frames + BLOCK_FRAMES - 1) / BLOCK_FRAMES;
    uint64_t *hashes = saw_calloc(r->ctx, (size_t)blocks, sizeof *hashes);
    saw_status status = hashes ? SAW_OK : SAW_ERR_MEMORY;
    for (int64_t i = 0; !status && i < blocks; i++) {
        status = read_from(r, slot, i * BLOCK_FRAMES, block_frames(f, i), true, planar, &got);
        if (!status)
            hashes[i] = hash_of(planar, f->channels, got);
    }
    if (status)
        saw_free(r->ctx, hashes);
    else
        r->hashes[slot->file] = hashes;
    return status;
}

/* Equal counts stay, one channel is repeated, several become one by their mean; else the first
 * ones, again from the start where there are too few. */
static void map_channels(float *const *from, int have, float *to, int want, int64_t frames)
{
    for (int c = 0; c < want; c++) {
        float *t = to + (size_t)c * BLOCK_FRAMES;
        memcpy(t, from[c % have], (size_t)frames * sizeof *t);
        for (int k = 1; want == 1 && k < have; k++)
            for (int64_t i = 0; i < frames; i++)
                t[i] += from[k][i];
        for (int64_t i = 0; want == 1 && have > 1 && i < frames; i++)
            t[i] /= (float)have;
    }
}

static saw_status decode(saw_dataset_reader *r, int file, int64_t index, float *to)
{
    const saw_data_file *f = &r->d->files[file];
    float *planar[SAW_AUDIO_MAX_CHANNELS];
    int64_t got, n = block_frames(f, index);
    open_file *slot;
    if (!r->decoded)
        r->decoded = saw_calloc(r->ctx, SAW_AUDIO_MAX_CHANNELS, BLOCK_FRAMES * sizeof(float));
    saw_status status = r->decoded ? open_slot(r, file, &slot) : SAW_ERR_MEMORY;
    if (status)
        return status;
    const saw_audio_info *info = saw_audio_reader_info(slot->audio);
    if (info->channels != f->channels || info->rate_hz != f->rate_hz)
        return saw_fail(r->ctx, SAW_ERR_FORMAT, "%s: has changed since the data set was opened",
                        f->path);
    bool near = info->way == SAW_AUDIO_JUMPS_NEAR;
    if (near && !r->hashes[file])
        status = read_through(r, slot);
    if (!status)
        status = read_from(r, slot, index * BLOCK_FRAMES, n, !near, planar, &got);
    bool beside = near && r->hashes[file] &&
                  (status == SAW_ERR_FORMAT ||
                   (!status && hash_of(planar, f->channels, got) != r->hashes[file][index]));
    if (beside)
        status = read_from(r, slot, index * BLOCK_FRAMES, n, true, planar, &got);
    if (status)
        return status;
    memset(to, 0, (size_t)r->d->channels * BLOCK_FRAMES * sizeof *to);
    map_channels(planar, f->channels, to, r->d->channels, got);
    return SAW_OK;
}

static saw_status find_block(saw_dataset_reader *r, int file, int64_t index, const float **out)
{
    block *oldest = &r->blocks[0];
    for (int i = 0; i < r->block_count; i++) {
        block *b = &r->blocks[i];
        if (b->file == file && b->index == index) {
            b->used = ++r->clock;
            *out = b->data;
            return SAW_OK;
        }
        if (b->used < oldest->used)
            oldest = b;
    }
    oldest->file = -1;
    if (!oldest->data)
        oldest->data =
            saw_calloc(r->ctx, (size_t)r->d->channels, BLOCK_FRAMES * sizeof *oldest->data);
    saw_status status = oldest->data ? decode(r, file, index, oldest->data) : SAW_ERR_MEMORY;
    if (status)
        return status;
    *oldest = (block){oldest->data, file, index, ++r->clock};
    *out = oldest->data;
    return SAW_OK;
}

/* Samples of a file at its own rate, silence around it; to has rows of `stride`. */
static saw_status read_own_rate(saw_dataset_reader *r, int file, int64_t start, int64_t n,
                                float *to, size_t stride)
{
    int64_t frames = r->d->files[file].frames;
    for (int c = 0; c < r->d->channels; c++)
        memset(to + (size_t)c * stride, 0, (size_t)n * sizeof *to);
    int64_t from = start > 0 ? start : 0, end = start + n < frames ? start + n : frames;
    while (from < end) {
        const float *data;
        int64_t index = from / BLOCK_FRAMES, within = from % BLOCK_FRAMES;
        int64_t k = BLOCK_FRAMES - within < end - from ? BLOCK_FRAMES - within : end - from;
        saw_status status = find_block(r, file, index, &data);
        if (status)
            return status;
        for (int c = 0; c < r->d->channels; c++)
            memcpy(to + (size_t)c * stride + (from - start),
                   data + (size_t)c * BLOCK_FRAMES + within, (size_t)k * sizeof *to);
        from += k;
    }
    return SAW_OK;
}

/* ---- pieces at the data set's rate ----------------------------------------------------------- */

static void add(float *const *to, int channels, int64_t at, const float *from, int64_t n,
                float sign)
{
    for (int c = 0; c < channels; c++)
        for (int64_t i = 0; i < n; i++)
            to[c][at + i] += sign * from[(size_t)c * PIECE_FRAMES + (size_t)i];
}

static int gcd(int a, int b)
{
    while (b) {
        int rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static saw_status add_resampled(saw_dataset_reader *r, int file, int64_t start, int64_t n,
                                float *const *to, float sign)
{
    int in_hz = r->d->files[file].rate_hz, out_hz = r->d->rate_hz, g = gcd(in_hz, out_hz);
    int64_t p = in_hz / g, q = out_hz / g;
    int64_t ahead = FILTER_FRAMES * (in_hz > out_hz ? (in_hz + out_hz - 1) / out_hz : 1) / p + 1;
    int64_t pair = floor_div(start, q) - ahead, from = pair * p, skip = start - pair * q;
    saw_resample *resample;
    const float *in[SAW_AUDIO_MAX_CHANNELS];
    float *out[SAW_AUDIO_MAX_CHANNELS];
    saw_status status =
        saw_resample_open(r->ctx, in_hz, out_hz, r->d->channels, SAW_RESAMPLE_MEDIUM, &resample);
    int64_t held = 0, taken = 0, done = -skip;
    while (!status && done < n) {
        int64_t used, got;
        if (taken == held) {
            status = read_own_rate(r, file, from, PIECE_FRAMES, r->in, PIECE_FRAMES);
            held = PIECE_FRAMES;
            taken = 0;
            from += held;
        }
        for (int c = 0; c < r->d->channels; c++) {
            in[c] = r->in + (size_t)c * PIECE_FRAMES + taken;
            out[c] = r->out + (size_t)c * PIECE_FRAMES;
        }
        /* what is ahead of the piece comes in parts of its own */
        int64_t room = done < 0 ? -done : n - done;
        room = room < PIECE_FRAMES ? room : PIECE_FRAMES;
        if (!status)
            status = saw_resample_run(resample, in, held - taken, &used, out, room, &got);
        if (status)
            break;
        if (done >= 0)
            add(to, r->d->channels, done, r->out, got, sign);
        taken += used;
        done += got;
    }
    saw_resample_close(resample);
    return status;
}

static saw_status add_file(saw_dataset_reader *r, const saw_data_term *term, int64_t start,
                           int64_t n, float *const *to)
{
    if (r->d->files[term->file].rate_hz != r->d->rate_hz)
        return add_resampled(r, term->file, start, n, to, term->sign);
    saw_status status = SAW_OK;
    for (int64_t at = 0; !status && at < n; at += PIECE_FRAMES) {
        int64_t k = n - at < PIECE_FRAMES ? n - at : PIECE_FRAMES;
        status = read_own_rate(r, term->file, start + at, k, r->in, PIECE_FRAMES);
        if (!status)
            add(to, r->d->channels, at, r->in, k, term->sign);
    }
    return status;
}

saw_status saw_dataset_read(saw_dataset_reader *r, int song, int source, int64_t start, int64_t n,
                            float *const *planar)
{
    const saw_dataset *d = r->d;
    int first = source == SAW_DATASET_MIXTURE ? 0 : source;
    int last = source == SAW_DATASET_MIXTURE ? d->source_count - 1 : source;
    saw_status status = SAW_OK;
    for (int c = 0; c < d->channels; c++)
        memset(planar[c], 0, (size_t)n * sizeof **planar);
    for (int s = first; !status && s <= last; s++) {
        /* left-out songs moved the rows of sources together, as the songs */
        const saw_data_source *of = &d->sources[song * d->source_count + s];
        for (int k = 0; !status && k < of->count; k++)
            status = add_file(r, &d->terms[of->first + k], start, n, planar);
    }
    return status;
}
