#include "support/formula.h"

#include "base/base.h"

#include <math.h>
#include <string.h>

double test_value(const char *name, int64_t i)
{
    uint64_t z = saw_fnv1a(name, strlen(name)) + (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z = z ^ (z >> 31);
    return 2 * ((double)(z >> 40) / 16777216.0) - 1;
}

float test_input(const char *prefix, int c, int64_t i, int sample_rate)
{
    char name[64];
    snprintf(name, sizeof name, "%sinput.%d", prefix, c);
    double t = (double)i / sample_rate;
    return (float)(0.1 * test_value(name, i) + 0.3 * sin(2 * M_PI * 220 * (c + 1) * t) +
                   0.1 * sin(2 * M_PI * 3000 * t));
}
