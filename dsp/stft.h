/*
 * stft.h - short-time Fourier transform, its inverse and the adjoints of both, in float and in
 * double.
 *
 * With P = n_fft / 2 when centred, else 0, and xp the signal padded by P samples at both ends:
 *
 *     S[t,k] = norm * sum_i w[i] xp[t hop + i] exp(-2 pi j k i / n_fft)       k = 0 .. n_fft / 2
 *     y[s]   = sum_t w[i] irfft(S[t] / norm)[i]  /  sum_t w[i]^2              i = s + P - t hop
 *
 * as torch.stft and torch.istft (and torchaudio) define them; the inverse ignores the imaginary
 * part of bin 0 and of the Nyquist bin, and gives 0 where the window sum is below 1e-11 or no frame
 * reaches.
 *
 * Every call computes a range of frames or samples. A value depends on nothing but the whole input:
 * the bits are the same however the range is split. Input pointers point to frame 0 or sample 0 of
 * the whole; output pointers point to the first frame or sample of the range. An element (t, k) of
 * a spectrum is two numbers, re and im, at t * frame_stride + k * bin_stride; strides count real
 * numbers, not pairs.
 */
#ifndef SAW_STFT_H
#define SAW_STFT_H

#include "dsp/window.h"

typedef enum saw_stft_pad {
    SAW_STFT_REFLECT, /* mirror, without repeating the edge sample */
    SAW_STFT_ZEROS
} saw_stft_pad;

typedef enum saw_stft_norm {
    SAW_STFT_NORM_NONE,
    SAW_STFT_NORM_SQRT_NFFT, /* torch.stft(normalized=True): 1 / sqrt(n_fft) */
    SAW_STFT_NORM_WINDOW     /* torchaudio normalized=True: 1 / sqrt(sum w^2) */
} saw_stft_norm;

typedef struct saw_stft_options {
    int n_fft, hop;
    int win_length; /* 0: n_fft */
    bool center;
    saw_stft_pad pad; /* only when centred */
    saw_stft_norm norm;
    saw_window_kind window;
} saw_stft_options;

/** Windows and FFT plans. Constant once open: any number of threads may use it, each with its own
 * scratch. */
typedef struct saw_stft saw_stft;

/** Plan. SAW_ERR_ARGUMENT when sizes make no sense (1 <= hop, 2 <= win_length <= n_fft <= 2^20).
 * Planning takes a lock of the whole process, as FFTW's planner demands; FFTW itself aborts the
 * process if memory fails inside it. */
saw_status saw_stft_open(saw_context *ctx, const saw_stft_options *options, saw_stft **out);
void saw_stft_close(saw_stft *s);

const saw_stft_options *saw_stft_get_options(const saw_stft *s);
/** Bins of a frame: n_fft / 2 + 1. */
int64_t saw_stft_bins(const saw_stft *s);
/** Frames that forward gives for so many samples; 0 when there are too few for one frame. */
int64_t saw_stft_frames(const saw_stft *s, int64_t samples);
/** Samples of the inverse when no length is asked for: hop * (frames - 1) when centred (and n_fft
 * even). */
int64_t saw_stft_samples(const saw_stft *s, int64_t frames);
/** SAW_OK, or SAW_ERR_SHAPE and a sentence when forward cannot take so few samples. */
saw_status saw_stft_check(saw_context *ctx, const saw_stft *s, int64_t samples);
/** Bytes of scratch that a call needs, 64-byte aligned. dtype: SAW_F32 or SAW_F64. */
size_t saw_stft_scratch_bytes(const saw_stft *s, saw_dtype dtype);

/** Write frames [frame0, frame0 + nframes) of the spectrum of x. saw_stft_check must have accepted
 * `samples`. */
void saw_stft_forward(const saw_stft *s, const float *x, int64_t samples, int64_t frame0,
                      int64_t nframes, float *out, int64_t frame_stride, int64_t bin_stride,
                      void *scratch);
/** Write samples [sample0, sample0 + n) of the inverse of a spectrum of `frames` frames. Samples do
 * not depend on the length that is asked for: beyond the last frame they are 0. */
void saw_stft_inverse(const saw_stft *s, const float *spec, int64_t frames, int64_t frame_stride,
                      int64_t bin_stride, int64_t sample0, int64_t n, float *out, void *scratch);
/** Add to dx, samples [sample0, sample0 + n) of `samples`, the gradient through forward of a loss
 * with the gradient dspec; dspec has saw_stft_frames(samples) frames. */
void saw_stft_forward_adjoint(const saw_stft *s, const float *dspec, int64_t frame_stride,
                              int64_t bin_stride, int64_t samples, int64_t sample0, int64_t n,
                              float *dx, void *scratch);
/** Frames [*first, *end) of forward, outside of which no frame reads one of samples [sample0,
 * sample0 + n). */
void saw_stft_frames_over(const saw_stft *s, int64_t samples, int64_t sample0, int64_t n,
                          int64_t *first, int64_t *end);
/** The part of forward_adjoint that one frame has, whose gradient alone is given. Added up in
 * rising order, frames give the same bits however the samples are split. */
void saw_stft_frame_adjoint(const saw_stft *s, const float *dframe, int64_t bin_stride,
                            int64_t samples, int64_t frame, int64_t sample0, int64_t n, float *dx,
                            void *scratch);
/** Add to dspec, frames [frame0, frame0 + nframes) of `frames`, the gradient through inverse of a
 * loss with the gradient dy[length]. */
void saw_stft_inverse_adjoint(const saw_stft *s, const float *dy, int64_t length, int64_t frames,
                              int64_t frame0, int64_t nframes, float *dspec, int64_t frame_stride,
                              int64_t bin_stride, void *scratch);

/** A stream of frames: add `nframes` more, and write the hop samples that each of them ends,
 * nframes * hop in all, with the window sum of a signal without ends. tail [n_fft - hop] holds the
 * sums that are not final, zeros at the start. The bits do not depend on how the frames are split
 * into calls. */
void saw_stft_stream_inverse(const saw_stft *s, const float *spec, int64_t nframes,
                             int64_t frame_stride, int64_t bin_stride, float *tail, float *out,
                             void *scratch);

/* The same in double. */
void saw_stft64_stream_inverse(const saw_stft *s, const double *spec, int64_t nframes,
                               int64_t frame_stride, int64_t bin_stride, double *tail, double *out,
                               void *scratch);
void saw_stft64_forward(const saw_stft *s, const double *x, int64_t samples, int64_t frame0,
                        int64_t nframes, double *out, int64_t frame_stride, int64_t bin_stride,
                        void *scratch);
void saw_stft64_inverse(const saw_stft *s, const double *spec, int64_t frames, int64_t frame_stride,
                        int64_t bin_stride, int64_t sample0, int64_t n, double *out, void *scratch);
void saw_stft64_forward_adjoint(const saw_stft *s, const double *dspec, int64_t frame_stride,
                                int64_t bin_stride, int64_t samples, int64_t sample0, int64_t n,
                                double *dx, void *scratch);
void saw_stft64_frame_adjoint(const saw_stft *s, const double *dframe, int64_t bin_stride,
                              int64_t samples, int64_t frame, int64_t sample0, int64_t n,
                              double *dx, void *scratch);
void saw_stft64_inverse_adjoint(const saw_stft *s, const double *dy, int64_t length, int64_t frames,
                                int64_t frame0, int64_t nframes, double *dspec,
                                int64_t frame_stride, int64_t bin_stride, void *scratch);

#endif
