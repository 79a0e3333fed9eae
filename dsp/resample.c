/*
 * resample.c - libsamplerate fed block by block. Its converter already starts with half a filter of
 * silence, so output frame 0 is input time 0. At the end it is fed silence until enough came out:
 * its own flush may miss a frame.
 */
#include "dsp/resample.h"

#include <samplerate.h>
#include <string.h>

enum { BLOCK_FRAMES = 1024 };

struct saw_resample {
    saw_context *ctx;
    SRC_STATE *src; /* NULL when the rates are equal */
    int channels, in_hz, out_hz;
    float *in, *out; /* interleaved, BLOCK_FRAMES each */
    int64_t in_at, in_end, out_at, out_end;
    int64_t taken, given,
        total; /* total: frames to give in all, INT64_MAX until the end is known */
    bool ended;
};

int64_t saw_resample_frames(int64_t frames, int in_hz, int out_hz)
{
    int64_t whole = frames / in_hz,
            rest = frames % in_hz; /* no overflow for any length in samples */
    return whole * out_hz + (rest * out_hz * 2 + in_hz) / (2 * (int64_t)in_hz);
}

saw_status saw_resample_open(saw_context *ctx, int in_hz, int out_hz, int channels,
                             saw_resample_quality quality, saw_resample **out)
{
    static const int converters[] = {SRC_SINC_BEST_QUALITY, SRC_SINC_MEDIUM_QUALITY,
                                     SRC_SINC_FASTEST};
    *out = NULL;
    if (in_hz <= 0 || out_hz <= 0 || channels < 1 || channels > 64 || (unsigned)quality > 2)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%d channels from %d to %d Hz cannot be resampled",
                        channels, in_hz, out_hz);
    if (in_hz / out_hz >= 256 || out_hz / in_hz >= 256)
        return saw_fail(
            ctx, SAW_ERR_UNSUPPORTED,
            "%d Hz cannot be resampled to %d Hz: the rates differ by more than 256 times", in_hz,
            out_hz);
    saw_resample *r = saw_calloc(ctx, 1, sizeof *r);
    if (!r)
        return SAW_ERR_MEMORY;
    r->ctx = ctx;
    r->channels = channels;
    r->in_hz = in_hz;
    r->out_hz = out_hz;
    r->total = INT64_MAX;
    r->in = saw_calloc(ctx, (size_t)channels * BLOCK_FRAMES, sizeof *r->in);
    r->out = saw_calloc(ctx, (size_t)channels * BLOCK_FRAMES, sizeof *r->out);
    int error = 0;
    if (r->in && r->out && in_hz != out_hz) {
        r->src = src_new(converters[quality], channels, &error);
        if (!r->src)
            saw_fail(ctx, SAW_ERR_MEMORY, "no resampler can be made: %s", src_strerror(error));
    }
    if (!r->in || !r->out || error) {
        saw_resample_close(r);
        return SAW_ERR_MEMORY;
    }
    *out = r;
    return SAW_OK;
}

void saw_resample_close(saw_resample *r)
{
    if (!r)
        return;
    if (r->src)
        src_delete(r->src);
    saw_free(r->ctx, r->in);
    saw_free(r->ctx, r->out);
    saw_free(r->ctx, r);
}

void saw_resample_end(saw_resample *r, int64_t total_frames)
{
    r->ended = true;
    r->total =
        total_frames >= 0 ? total_frames : saw_resample_frames(r->taken, r->in_hz, r->out_hz);
}

/* Convert what is staged; the output block is empty before. */
static saw_status convert(saw_resample *r)
{
    if (!r->src) {
        r->out_end = r->in_end - r->in_at;
        memcpy(r->out, r->in + r->in_at * r->channels,
               sizeof *r->in * (size_t)(r->out_end * r->channels));
        r->in_at = r->in_end;
        return SAW_OK;
    }
    SRC_DATA d = {.data_in = r->in + r->in_at * r->channels,
                  .data_out = r->out,
                  .input_frames = (long)(r->in_end - r->in_at),
                  .output_frames = BLOCK_FRAMES,
                  .src_ratio = (double)r->out_hz / r->in_hz};
    int error = src_process(r->src, &d);
    if (error)
        return saw_fail(r->ctx, SAW_ERR_ARGUMENT, "the resampler failed: %s", src_strerror(error));
    r->in_at += d.input_frames_used;
    r->out_end = d.output_frames_gen;
    return SAW_OK;
}

saw_status saw_resample_run(saw_resample *r, const float *const *in, int64_t in_frames,
                            int64_t *used, float *const *out, int64_t out_frames, int64_t *got)
{
    int channels = r->channels;
    *used = *got = 0;
    if (out_frames > r->total - r->given)
        out_frames = r->total > r->given ? r->total - r->given : 0;
    while (*got < out_frames) {
        if (r->out_at < r->out_end) {
            int64_t n = r->out_end - r->out_at;
            n = n < out_frames - *got ? n : out_frames - *got;
            for (int c = 0; c < channels; c++)
                for (int64_t i = 0; i < n; i++)
                    out[c][*got + i] = r->out[(r->out_at + i) * channels + c];
            r->out_at += n;
            r->given += n;
            *got += n;
            continue;
        }
        r->out_at = r->out_end = 0;
        if (r->in_at == r->in_end) {
            int64_t n = r->ended ? BLOCK_FRAMES : in_frames - *used;
            if (n <= 0)
                break;
            n = n < BLOCK_FRAMES ? n : BLOCK_FRAMES;
            if (r->ended)
                memset(r->in, 0, sizeof *r->in * (size_t)(n * channels));
            else
                for (int c = 0; c < channels; c++)
                    for (int64_t i = 0; i < n; i++)
                        r->in[i * channels + c] = in[c][*used + i];
            r->in_at = 0;
            r->in_end = n;
            if (!r->ended) {
                *used += n;
                r->taken += n;
            }
        }
        saw_status status = convert(r);
        if (status)
            return status;
    }
    return SAW_OK;
}
