#include "run/ensemble.h"

#include "dsp/stft.h"

#include <math.h>
#include <string.h>

enum {
    N_FFT = 2048,
    HOP = 512,
    BINS = N_FFT / 2 + 1,
    CONTEXT = N_FFT - HOP,
    FRAMES = SAW_ENSEMBLE_BLOCK / HOP + CONTEXT / HOP, /* that reach the block */
    LENGTH = SAW_ENSEMBLE_BLOCK + 2 * CONTEXT,
    FRAME = 2 * BINS
};

struct saw_ensemble {
    saw_context *ctx;
    saw_ensemble_kind kind;
    int models;
    double weight[SAW_ENSEMBLE_MODELS]; /* sum 1 */
    saw_stft *stft;                     /* the rest only for "_mag" */
    float *spectrum;                    /* [models][FRAMES][BINS][2] */
    void *scratch;
};

static const char *const kind_names[] = {"mean_wave", "median_wave", "min_wave", "max_wave",
                                         "mean_mag",  "median_mag",  "min_mag",  "max_mag"};

bool saw_ensemble_kind_parse(const char *name, saw_ensemble_kind *out)
{
    for (int i = 0; i <= SAW_MAX_MAG; i++)
        if (!strcmp(name, kind_names[i])) {
            *out = (saw_ensemble_kind)i;
            return true;
        }
    return false;
}

saw_status saw_ensemble_open(saw_context *ctx, saw_ensemble_kind kind, int models,
                             const double *weights, saw_ensemble **out)
{
    *out = NULL;
    if (models < 1 || models > SAW_ENSEMBLE_MODELS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "an ensemble has 1 to %d models, not %d",
                        SAW_ENSEMBLE_MODELS, models);
    double sum = 0;
    for (int m = 0; m < models; m++) {
        double w = weights ? weights[m] : 1;
        if (!(w >= 0 && w < 1e9))
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "a weight of %g makes no sense: weights are not negative", w);
        sum += w;
    }
    if (sum <= 0)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "the weights of an ensemble are all 0");
    saw_ensemble *e = saw_calloc(ctx, 1, sizeof *e);
    if (!e)
        return SAW_ERR_MEMORY;
    e->ctx = ctx;
    e->kind = kind;
    e->models = models;
    for (int m = 0; m < models; m++)
        e->weight[m] = (weights ? weights[m] : 1) / sum;
    saw_status status = SAW_OK;
    if (kind >= SAW_MEAN_MAG) {
        status = saw_stft_open(ctx, &(saw_stft_options){.n_fft = N_FFT, .hop = HOP}, &e->stft);
        e->spectrum =
            status ? NULL : saw_calloc(ctx, (size_t)models * FRAMES * FRAME, sizeof(float));
        e->scratch = e->spectrum ? saw_alloc(ctx, saw_stft_scratch_bytes(e->stft, SAW_F32)) : NULL;
        if (!status && !e->scratch)
            status = SAW_ERR_MEMORY;
    }
    if (status) {
        saw_ensemble_close(e);
        return status;
    }
    *out = e;
    return SAW_OK;
}

void saw_ensemble_close(saw_ensemble *e)
{
    if (!e)
        return;
    saw_stft_close(e->stft);
    saw_free(e->ctx, e->spectrum);
    saw_free(e->ctx, e->scratch);
    saw_free(e->ctx, e);
}

int64_t saw_ensemble_context(const saw_ensemble *e)
{
    return e->stft ? CONTEXT : 0;
}

/* v [models] to one number; v is put in order on the way. */
static double join(const saw_ensemble *e, double *v)
{
    int n = e->models;
    double r = 0;
    switch (e->kind) {
    case SAW_MEAN_WAVE:
    case SAW_MEAN_MAG:
        for (int m = 0; m < n; m++)
            r += e->weight[m] * v[m];
        return r;
    case SAW_MIN_WAVE:
    case SAW_MIN_MAG:
        r = v[0];
        for (int m = 1; m < n; m++)
            r = fabs(v[m]) < fabs(r) ? v[m] : r;
        return r;
    case SAW_MAX_WAVE:
    case SAW_MAX_MAG:
        r = v[0];
        for (int m = 1; m < n; m++)
            r = fabs(v[m]) > fabs(r) ? v[m] : r;
        return r;
    default:
        for (int m = 1; m < n; m++)
            for (int k = m; k > 0 && v[k] < v[k - 1]; k--) {
                double t = v[k];
                v[k] = v[k - 1];
                v[k - 1] = t;
            }
        return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    }
}

void saw_ensemble_run(saw_ensemble *e, const float *const *in, float *out)
{
    double v[SAW_ENSEMBLE_MODELS];
    if (!e->stft) {
        for (int i = 0; i < SAW_ENSEMBLE_BLOCK; i++) {
            for (int m = 0; m < e->models; m++)
                v[m] = in[m][i];
            out[i] = (float)join(e, v);
        }
        return;
    }
    size_t size = (size_t)FRAMES * FRAME;
    for (int m = 0; m < e->models; m++)
        saw_stft_forward(e->stft, in[m], LENGTH, 0, FRAMES, e->spectrum + m * size, FRAME, 2,
                         e->scratch);
    /* The result takes the place of the first model's spectrum. */
    for (size_t i = 0; i < size; i += 2) {
        double re = 0, im = 0;
        for (int m = 0; m < e->models; m++) {
            const float *x = e->spectrum + m * size + i;
            re += e->weight[m] * x[0];
            im += e->weight[m] * x[1];
            v[m] = hypot(x[0], x[1]);
        }
        double magnitude = join(e, v), mean = hypot(re, im);
        e->spectrum[i] = (float)(mean > 0 ? magnitude * (re / mean) : magnitude);
        e->spectrum[i + 1] = (float)(mean > 0 ? magnitude * (im / mean) : 0);
    }
    saw_stft_inverse(e->stft, e->spectrum, FRAMES, FRAME, 2, CONTEXT, SAW_ENSEMBLE_BLOCK, out,
                     e->scratch);
}
