/*
 * draw.h - pictures inside an HTML page: curves as SVG, spectrograms as bitmaps, files as data.
 */
#ifndef SAW_DRAW_H
#define SAW_DRAW_H

#include "base/base.h"

typedef struct saw_draw_curve {
    const char *name;
    const double *x, *y; /* [count]; a y that is not finite leaves a gap */
    int count;
    bool dots;  /* few points: each has a dot that tells its value */
    bool faint; /* behind another curve */
} saw_draw_curve;

typedef struct saw_draw_chart {
    const char *title, *unit; /* of y, "" for none */
    bool logarithmic;         /* y; what is not above 0 is left out */
    const saw_draw_curve *curves;
    int n_curves;
} saw_draw_chart;

/** A figure with the curves; nothing where there are no two points. */
void saw_draw_chart_svg(FILE *out, const saw_draw_chart *chart);

/** An <img> of a spectrogram: x[n], mono, time to the right, 40 Hz to rate_hz / 2 upwards on a
 * logarithmic axis, levels from -90 to 0 dB of full scale. */
saw_status saw_draw_spectrogram(saw_context *ctx, FILE *out, const char *alt, const float *x,
                                int64_t n, int rate_hz);

void saw_draw_base64(FILE *out, const void *bytes, size_t n);
/** Text for HTML. Bytes that are not UTF-8 become `?`. */
void saw_draw_text(FILE *out, const char *text);

#endif
