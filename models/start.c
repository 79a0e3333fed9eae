/*
 * start.c - what a model that is trained from nothing begins with: the first values of all its
 * tensors, a function of seed, names and shapes.
 *
 * Weights and biases are uniform within 1/sqrt(fan_in), those of recurrent layers within
 * 1/sqrt(hidden), as PyTorch has them; gains of norms are 1, their shifts 0, slopes of PReLU 1/4;
 * running statistics are those of a standard normal. Frequencies of rotations are 10000^(-i/n).
 */
#include "models/model.h"

#include <math.h>
#include <string.h>

static bool is(const char *name, const char *what)
{
    return !strncmp(name, what, strlen(what));
}

static const saw_ckpt_tensor *beside(const saw_checkpoint *ck, const saw_ckpt_tensor *t,
                                     const char *last, const char *other, const char *tail)
{
    char name[512];
    snprintf(name, sizeof name, "%.*s%s%s", (int)(last - t->name), t->name, other, tail);
    return saw_checkpoint_find(ck, name);
}

static bool is_norm(const saw_ckpt_tensor *weight)
{
    return weight->ndim == 1 || strstr(weight->name, "norm");
}

/* What tensor t is uniform within; 0: it is `*value`. */
static double bound_of(const saw_checkpoint *ck, const saw_ckpt_tensor *t, double *value)
{
    const char *dot = strrchr(t->name, '.'), *last = dot ? dot + 1 : t->name;
    const saw_ckpt_tensor *weight = t;
    *value = 0;
    if (is(last, "gamma") || is(last, "running_var"))
        *value = 1;
    if (is(last, "weight_") || is(last, "bias_ih") || is(last, "bias_hh")) {
        const saw_ckpt_tensor *hidden = beside(ck, t, last, "weight_hh", strstr(last, "_l"));
        return hidden ? 1 / sqrt((double)hidden->dims[1]) : 0;
    }
    if (is(last, "bias"))
        weight = beside(ck, t, last, "weight", "");
    else if (!is(last, "weight"))
        return 0;
    if (weight && !is_norm(weight))
        return sqrt((double)weight->dims[0] / (double)weight->count);
    if (weight == t)
        *value = t->count == 1 ? 0.25 : 1;
    return 0;
}

void saw_model_start(const saw_checkpoint *ck, uint64_t seed, const saw_ckpt_tensor *t,
                     int64_t first, int64_t n, float *out)
{
    uint64_t name = saw_fnv1a(t->name, strlen(t->name));
    double value, bound = bound_of(ck, t, &value);
    bool frequencies = strstr(t->name, "freqs") && t->ndim == 1;
    uint32_t word[4];
    for (int64_t i = first; i < first + n; i++) {
        if (bound > 0 && (i == first || i % 4 == 0))
            saw_philox(seed, name, (uint64_t)i / 4, word);
        if (bound > 0)
            value = bound * (word[i % 4] * 0x1p-31 - 1);
        else if (frequencies)
            value = pow(10000, -(double)i / (double)t->count);
        out[i - first] = (float)value;
    }
}
