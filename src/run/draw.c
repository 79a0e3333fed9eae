#include "run/draw.h"

#include "dsp/stft.h"

#include <math.h>
#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 character at p; 0: there is none. */
static int utf8_length(const unsigned char *p)
{
    int n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 0;
    n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : n;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

void saw_draw_text(FILE *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = utf8_length(p);
        if (*p == '<')
            fputs("&lt;", out);
        else if (*p == '>')
            fputs("&gt;", out);
        else if (*p == '&')
            fputs("&amp;", out);
        else if (*p == '"')
            fputs("&quot;", out);
        else if (n)
            fwrite(p, 1, (size_t)n, out);
        else
            fputc('?', out);
        p += n ? n : 1;
    }
}

void saw_draw_base64(FILE *out, const void *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
        v |= i + 2 < n ? p[i + 2] : 0;
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        fwrite(four, 1, 4, out);
    }
}

/* ---- curves ---------------------------------------------------------------------------------- */

enum { WIDTH = 720, HEIGHT = 250, LEFT = 64, RIGHT = 14, TOP = 14, BOTTOM = 34, MOST_POINTS = 600 };

typedef struct frame {
    double x0, x1, y0, y1; /* shown; y as log10 where the axis is logarithmic */
    bool logarithmic;
} frame;

static bool height_of(const frame *f, double v, double *y)
{
    if (!isfinite(v) || (f->logarithmic && v <= 0))
        return false;
    *y = f->logarithmic ? log10(v) : v;
    return true;
}

static double to_x(const frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double to_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, near a share of the span. */
static double nice_step(double span, int parts)
{
    double raw = span / parts, unit = pow(10, floor(log10(raw)));
    double times = raw / unit;
    return unit * (times < 1.5 ? 1 : times < 3.5 ? 2 : times < 7.5 ? 5 : 10);
}

/* False where there are no two points. */
static bool frame_of(const saw_draw_chart *c, frame *f)
{
    int points = 0;
    *f = (frame){INFINITY, -INFINITY, INFINITY, -INFINITY, c->logarithmic};
    for (int k = 0; k < c->n_curves; k++)
        for (int i = 0; i < c->curves[k].count; i++) {
            double y, x = c->curves[k].x[i];
            if (!height_of(f, c->curves[k].y[i], &y))
                continue;
            f->x0 = fmin(f->x0, x);
            f->x1 = fmax(f->x1, x);
            f->y0 = fmin(f->y0, y);
            f->y1 = fmax(f->y1, y);
            points++;
        }
    if (points < 2 || !(f->x1 > f->x0))
        return false;
    double span = f->y1 - f->y0, least = 0.01 * fmax(fabs(f->y1), 1e-6);
    double room = span > least ? 0.06 * span : least;
    f->y0 -= room;
    f->y1 += room;
    return true;
}

static void draw_y_tick(FILE *out, const frame *f, double y, double value)
{
    double at = to_y(f, y);
    fprintf(out,
            "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
            "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.5g</text>\n",
            LEFT, WIDTH - RIGHT, at, at, LEFT - 8, at + 4, value);
}

static void draw_axes(FILE *out, const frame *f)
{
    double step = nice_step(f->x1 - f->x0, 6);
    for (double x = ceil(f->x0 / step) * step; x <= f->x1 + 1e-9 * step; x += step)
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.10g</text>\n", to_x(f, x),
                HEIGHT - BOTTOM + 18, x);
    if (!f->logarithmic || f->y1 - f->y0 < 0.7) {
        double low = f->logarithmic ? pow(10, f->y0) : f->y0,
               high = f->logarithmic ? pow(10, f->y1) : f->y1;
        step = nice_step(high - low, 4);
        for (double y = ceil(low / step) * step; y <= high; y += step)
            draw_y_tick(out, f, f->logarithmic ? log10(y) : y, fabs(y) < 1e-9 * step ? 0 : y);
        return;
    }
    static const double marks[] = {1, 2, 5};
    bool all = f->y1 - f->y0 < 2.5;
    for (int k = (int)floor(f->y0); k <= (int)f->y1; k++)
        for (int m = 0; m < (all ? 3 : 1); m++) {
            double y = k + log10(marks[m]);
            if (y >= f->y0 && y <= f->y1)
                draw_y_tick(out, f, y, marks[m] * pow(10, k));
        }
}

/* A line through means of groups of points. */
static void draw_line(FILE *out, const frame *f, const saw_draw_curve *c, int number)
{
    int group = (c->count + MOST_POINTS - 1) / MOST_POINTS;
    bool pen = false;
    fprintf(out, "<path class=\"c%d%s\" d=\"", number, c->faint ? " faint" : "");
    for (int i = 0; i < c->count; i += group) {
        double x = 0, y = 0;
        int n = 0;
        for (int k = i; k < i + group && k < c->count; k++) {
            double h;
            if (!height_of(f, c->y[k], &h))
                continue;
            x += c->x[k];
            y += h;
            n++;
        }
        if (n)
            fprintf(out, "%c%.1f %.1f", pen ? 'L' : 'M', to_x(f, x / n), to_y(f, y / n));
        pen = n > 0;
    }
    fprintf(out, "\"/>\n");
}

static void draw_dots(FILE *out, const saw_draw_chart *chart, const frame *f,
                      const saw_draw_curve *c, int number)
{
    for (int i = 0; i < c->count; i++) {
        double y;
        if (!height_of(f, c->y[i], &y))
            continue;
        fprintf(out, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", number,
                to_x(f, c->x[i]), to_y(f, y));
        saw_draw_text(out, c->name);
        fprintf(out, ", step %.0f: %.4g %s</title></circle>\n", c->x[i], c->y[i], chart->unit);
    }
}

void saw_draw_chart_svg(FILE *out, const saw_draw_chart *c)
{
    frame f;
    if (!frame_of(c, &f))
        return;
    fprintf(out, "<figure><figcaption>");
    saw_draw_text(out, c->title);
    if (*c->unit)
        fprintf(out, " <small>%s</small>", c->unit);
    for (int k = 0; k < c->n_curves && c->n_curves > 1; k++) {
        fprintf(out, " <span class=\"key k%d\">", k);
        saw_draw_text(out, c->curves[k].name);
        fprintf(out, "</span>");
    }
    fprintf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, HEIGHT);
    draw_axes(out, &f);
    for (int k = 0; k < c->n_curves; k++) {
        draw_line(out, &f, &c->curves[k], k);
        if (c->curves[k].dots)
            draw_dots(out, c, &f, &c->curves[k], k);
    }
    fprintf(out, "</svg></figure>\n");
}

/* ---- spectrograms ---------------------------------------------------------------------------- */

enum { COLUMNS = 400, ROWS = 160, N_FFT = 4096, HEADER = 54, COLOURS = 256 };

static void put_le(unsigned char *at, uint32_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(v >> 8 * i);
}

/* Dark to light by way of blue, red and orange; [256] of blue, green, red, 0. */
static void make_palette(unsigned char *out)
{
    static const double stops[6][3] = {{6, 7, 16},    {42, 27, 92},   {124, 35, 107},
                                       {205, 66, 72}, {245, 152, 52}, {252, 246, 190}};
    for (int i = 0; i < COLOURS; i++) {
        double at = 5.0 * i / (COLOURS - 1);
        int k = at < 4 ? (int)at : 4;
        for (int c = 0; c < 3; c++)
            out[4 * i + 2 - c] =
                (unsigned char)(stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]) + 0.5);
        out[4 * i + 3] = 0;
    }
}

/* The largest level of the bins of every row, as a colour; rows go upwards. */
static void fill_column(const float *spectrum, int rate_hz, int column, unsigned char *pixels)
{
    double top = rate_hz / 2.0, bottom = 40;
    for (int row = 0; row < ROWS; row++) {
        double low = bottom * pow(top / bottom, (double)row / ROWS),
               high = bottom * pow(top / bottom, (double)(row + 1) / ROWS);
        int first = (int)lround(low * N_FFT / rate_hz), end = (int)lround(high * N_FFT / rate_hz);
        double power = 0;
        for (int k = first; k <= N_FFT / 2 && (k < end || k == first); k++)
            power = fmax(power, (double)spectrum[2 * k] * spectrum[2 * k] +
                                    (double)spectrum[2 * k + 1] * spectrum[2 * k + 1]);
        /* a sine of full scale has the magnitude n_fft / 4 under a Hann window */
        double db = 10 * log10(power / ((double)N_FFT * N_FFT / 16) + 1e-12);
        double share = fmin(fmax((db + 90) / 90, 0), 1);
        pixels[row * COLUMNS + column] = (unsigned char)lround(share * (COLOURS - 1));
    }
}

saw_status saw_draw_spectrogram(saw_context *ctx, FILE *out, const char *alt, const float *x,
                                int64_t n, int rate_hz)
{
    size_t size = HEADER + 4 * COLOURS + ROWS * COLUMNS;
    int64_t hop = n / COLUMNS > 0 ? n / COLUMNS : 1;
    saw_stft *stft = NULL;
    saw_status status = saw_stft_open(ctx,
                                      &(saw_stft_options){.n_fft = N_FFT,
                                                          .hop = (int)hop,
                                                          .center = true,
                                                          .pad = SAW_STFT_ZEROS,
                                                          .window = SAW_WINDOW_HANN},
                                      &stft);
    if (status)
        return status;
    unsigned char *file = saw_calloc(ctx, 1, size);
    float *spectrum = saw_alloc(ctx, (N_FFT + 2) * sizeof *spectrum);
    void *scratch = saw_alloc(ctx, saw_stft_scratch_bytes(stft, SAW_F32));
    status = file && spectrum && scratch ? saw_stft_check(ctx, stft, n) : SAW_ERR_MEMORY;
    if (!status) {
        int64_t frames = saw_stft_frames(stft, n);
        memcpy(file, "BM", 2);
        put_le(file + 2, (uint32_t)size, 4);
        put_le(file + 10, HEADER + 4 * COLOURS, 4);
        put_le(file + 14, 40, 4);
        put_le(file + 18, COLUMNS, 4);
        put_le(file + 22, ROWS, 4);
        put_le(file + 26, 1, 2);
        put_le(file + 28, 8, 2);
        put_le(file + 46, COLOURS, 4);
        make_palette(file + HEADER);
        for (int c = 0; c < COLUMNS && c < frames; c++) {
            saw_stft_forward(stft, x, n, c, 1, spectrum, N_FFT + 2, 2, scratch);
            fill_column(spectrum, rate_hz, c, file + HEADER + 4 * COLOURS);
        }
        fprintf(out, "<img alt=\"");
        saw_draw_text(out, alt);
        fprintf(out, "\" src=\"data:image/bmp;base64,");
        saw_draw_base64(out, file, size);
        fprintf(out, "\">");
    }
    saw_free(ctx, file);
    saw_free(ctx, spectrum);
    saw_free(ctx, scratch);
    saw_stft_close(stft);
    return status;
}
