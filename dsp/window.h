/*
 * window.h - windows of the short-time Fourier transform.
 */
#ifndef SAW_WINDOW_H
#define SAW_WINDOW_H

#include "base/base.h"

typedef enum saw_window_kind {
    SAW_WINDOW_HANN, /* periodic: w[i] = 0.5 - 0.5 cos(2 pi i / win_length) */
    SAW_WINDOW_ONES
} saw_window_kind;

/** Write n_fft values: the window of win_length <= n_fft samples in the middle, (n_fft -
 * win_length) / 2 zeros before it and zeros after it. */
void saw_window(saw_window_kind kind, int win_length, int n_fft, double *out);

#endif
