#include "dsp/metrics.h"

#include <math.h>

void saw_sdr_add(saw_sdr_sums *s, const float *reference, const float *estimate, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double r = reference[i], e = estimate[i];
        s->reference += r * r;
        s->estimate += e * e;
        s->product += r * e;
        s->error += (r - e) * (r - e);
    }
}

double saw_sdr_db(const saw_sdr_sums *s, double epsilon)
{
    if (s->error == 0 && epsilon == 0)
        return INFINITY;
    return 10 * log10((s->reference + epsilon) / (s->error + epsilon));
}

double saw_si_sdr_db(const saw_sdr_sums *s)
{
    double target = s->product * s->product / s->reference; /* sum (a r)^2 */
    double error = s->estimate - target;
    if (target == 0)
        return NAN;
    return 10 * log10(target / (error < 0 ? 0 : error));
}
