#include "dsp/window.h"

#include <math.h>

void saw_window(saw_window_kind kind, int win_length, int n_fft, double *out)
{
    int left = (n_fft - win_length) / 2;
    for (int i = 0; i < n_fft; i++) {
        int k = i - left;
        if (k < 0 || k >= win_length)
            out[i] = 0;
        else
            out[i] = kind == SAW_WINDOW_ONES ? 1 : 0.5 - 0.5 * cos(2 * M_PI * k / win_length);
    }
}
