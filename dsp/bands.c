#include "dsp/bands.h"

#include <math.h>

static saw_status check(saw_context *ctx, double rate_hz, int n_fft, int bands)
{
    if (!(rate_hz > 0) || n_fft < 2 || n_fft > 1 << 20 || bands < 1)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "%d bands of an STFT with n_fft %d at %g Hz make no sense", bands, n_fft,
                        rate_hz);
    return SAW_OK;
}

static saw_status check_widths(saw_context *ctx, const saw_band *band, int bands, double rate_hz,
                               int n_fft)
{
    for (int b = 0; b < bands; b++)
        if (band[b].width < 1)
            return saw_fail(
                ctx, SAW_ERR_SHAPE,
                "band %d of %d would have no bin (n_fft %d at %g Hz): take fewer bands or a larger "
                "n_fft",
                b, bands, n_fft, rate_hz);
    return SAW_OK;
}

/* ---- mel ------------------------------------------------------------------------------------- */

/* The Slaney scale: linear to 1 kHz, then logarithmic with 27 steps to 6.4 kHz. */
static double hz_to_mel(double hz)
{
    return hz < 1000 ? hz * 3 / 200 : 15 + log(hz / 1000) * 27 / log(6.4);
}

static double mel_to_hz(double mel)
{
    return mel < 15 ? mel * 200 / 3 : 1000 * exp((mel - 15) * log(6.4) / 27);
}

saw_status saw_bands_mel(saw_context *ctx, double rate_hz, int n_fft, int bands, saw_band *out)
{
    if (check(ctx, rate_hz, n_fft, bands))
        return SAW_ERR_SHAPE;
    int bins = n_fft / 2 + 1;
    double top = hz_to_mel(rate_hz / 2) / (bands + 1);
    for (int b = 0; b < bands; b++) {
        double low = mel_to_hz(top * b), high = mel_to_hz(top * (b + 2));
        int first = bins, end = 0;
        for (int k = 0; k < bins; k++) {
            double hz = k * rate_hz / n_fft;
            bool inside =
                (hz > low && hz < high) || (b == 0 && k == 0) || (b == bands - 1 && k == bins - 1);
            if (inside && k < first)
                first = k;
            if (inside)
                end = k + 1;
        }
        out[b] = (saw_band){first, end - first};
    }
    return check_widths(ctx, out, bands, rate_hz, n_fft);
}

/* ---- musical --------------------------------------------------------------------------------- */

saw_status saw_bands_musical(saw_context *ctx, double rate_hz, int n_fft, int bands, saw_band *out)
{
    if (check(ctx, rate_hz, n_fft, bands))
        return SAW_ERR_SHAPE;
    int bins = n_fft / 2 + 1;
    double df = rate_hz / n_fft, ratio = pow(rate_hz / 2 / df, 1.0 / bands);
    double low = fmax(0, 12 * log2(df / 440) + 69), high = 12 * log2(rate_hz / 2 / 440) + 69;
    for (int b = 0; b < bands; b++) {
        double pitch = bands > 1 ? low + (high - low) * b / (bands - 1) : low;
        double centre = 440 * exp2((pitch - 69) / 12) / df;
        double first = floor(centre / ratio), end = ceil(centre * ratio) + 1;
        if (b == 0)
            first = 0;
        if (b == bands - 1)
            end = bins;
        first = fmin(first, bins);
        out[b] = (saw_band){(int)first, (int)(fmin(end, bins) - first)};
    }
    return check_widths(ctx, out, bands, rate_hz, n_fft);
}

/* ---- zones ----------------------------------------------------------------------------------- */

/* Number of bins whose frequency is below hz; the last bin counts as rate / 2. */
static int bins_below(double hz, double rate_hz, int n_fft)
{
    double n = ceil(hz * n_fft / rate_hz);
    return (int)fmin(n, hz > rate_hz / 2 ? n_fft / 2 + 1 : n_fft / 2);
}

static int bins_rounded(double hz, double rate_hz, int n_fft)
{
    return (int)fmin(floor(hz * n_fft / rate_hz + 0.5), n_fft / 2 + 1);
}

saw_status saw_bands_zones(saw_context *ctx, saw_zone_rule rule, double rate_hz, int n_fft,
                           const saw_band_zone *zones, int zone_count, saw_band *out, int room,
                           int *count)
{
    int bins = n_fft / 2 + 1, n = 0, at = 0;
    double start_hz = 0;
    *count = 0;
    if (check(ctx, rate_hz, n_fft, room))
        return SAW_ERR_SHAPE;
    for (int z = 0; z <= zone_count; z++) {
        bool rest = z == zone_count;
        double end_hz = rest ? rate_hz : zones[z].end_hz;
        double step_hz = rest ? end_hz - start_hz : zones[z].step_hz;
        if (!(step_hz > 0) || !(end_hz > start_hz))
            return saw_fail(ctx, SAW_ERR_SHAPE,
                            "band zone %d: ends must rise and stay below %g Hz, steps be above 0",
                            z, rate_hz);
        double steps = ceil((end_hz - start_hz) / step_hz);
        int zone_end = rest ? bins : bins_rounded(end_hz, rate_hz, n_fft);
        for (double i = 1; rule == SAW_ZONES_ROUNDED ? at < zone_end : i <= steps; i++) {
            int end = bins;
            if (!rest && rule == SAW_ZONES_BELOW)
                end = bins_below(start_hz + i * step_hz, rate_hz, n_fft);
            else if (!rest && rule == SAW_ZONES_WIDTHS)
                end = at + (int)fmin(floor(step_hz * 2 * bins / rate_hz), bins);
            else if (!rest)
                end = (int)fmin(at + fmax(1, bins_rounded(step_hz, rate_hz, n_fft)), zone_end);
            if (n == room || end <= at || end > bins)
                return saw_fail(ctx, SAW_ERR_SHAPE,
                                "band zones do not fit %d bins (n_fft %d at %g Hz): band %d of at "
                                "most %d would be bins %d to %d",
                                bins, n_fft, rate_hz, n, room, at, end);
            out[n++] = (saw_band){at, end - at};
            at = end;
        }
        start_hz = end_hz;
    }
    *count = n;
    return SAW_OK;
}
