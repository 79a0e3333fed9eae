/*
 * spectral_loss.c - how far apart two signals are in the spectra of one or several STFTs.
 *
 * With Z = STFT(y - target), which is STFT(y) - STFT(target), the loss of a channel is the sum over
 * the STFTs of one of
 *
 *     modulus  mean |Z|                      over frames and bins
 *     parts    mean |re Z|, |im Z|           over frames, bins, re and im
 *     squares  mean (re Z)^2, (im Z)^2       likewise
 *
 * Output 0 [B,C,J] holds what the frames of each of J blocks of samples add to it: the loss of a
 * channel is the sum of its row. Output 1 [B,C,N] is the gradient of these sums by y, made in the
 * same sweep frame by frame, so that no spectrum is ever kept; backward only scales it, and takes
 * the gradient that flows in to be the same for all blocks of a channel. Frames that reach over a
 * border are computed for both blocks and counted by one, so that blocks are independent. Where z
 * is 0, so is its gradient.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <float.h>
#include <string.h>

typedef struct spectral_loss_attr {
    saw_spectral_distance distance;
    int n;
    const saw_stft *plans[SAW_SPECTRAL_STFTS];
} spectral_loss_attr;

enum { BLOCK_SAMPLES = 65536 };

/* Real numbers of scratch behind the transforms': a spectrum of one frame and its distances, the
 * difference of a channel, a block of the gradient. */
static inline int64_t room_of(const spectral_loss_attr *a, int64_t samples, int64_t *spectrum)
{
    *spectrum = 0;
    for (int i = 0; i < a->n; i++) {
        int64_t size = 4 * saw_stft_bins(a->plans[i]);
        *spectrum = size > *spectrum ? size : *spectrum;
    }
    return *spectrum + 2 * samples;
}

static inline size_t transform_bytes(const spectral_loss_attr *a, saw_dtype dtype)
{
    size_t most = 0;
    for (int i = 0; i < a->n; i++) {
        size_t bytes = saw_stft_scratch_bytes(a->plans[i], dtype);
        most = bytes > most ? bytes : most;
    }
    return most;
}

#ifdef SAW_REF

#if SAW_REF == 64
#define FORWARD       saw_stft64_forward
#define FRAME_ADJOINT saw_stft64_frame_adjoint
#define DTYPE         SAW_F64
#else
#define FORWARD       saw_stft_forward
#define FRAME_ADJOINT saw_stft_frame_adjoint
#define DTYPE         SAW_F32
#endif

static inline real root(real x)
{
    return sizeof x == sizeof(float) ? (real)sqrtf((float)x) : (real)sqrt((double)x);
}

/* The distances of n pairs or numbers of z, which become scale times their gradients. */
static void modulus(real *restrict z, real *restrict distance, int64_t n, real scale)
{
    for (int64_t k = 0; k < n; k++) {
        real m = root(z[2 * k] * z[2 * k] + z[2 * k + 1] * z[2 * k + 1]);
        real slope = scale / (m + (real)FLT_MIN); /* 0 stays 0 */
        distance[k] = m;
        z[2 * k] *= slope;
        z[2 * k + 1] *= slope;
    }
}

static void sizes(real *restrict z, real *restrict distance, int64_t n, real scale)
{
    for (int64_t i = 0; i < n; i++) {
        real v = z[i], sign = (real)(v > 0) - (real)(v < 0);
        distance[i] = v * sign;
        z[i] = scale * sign;
    }
}

static void squares(real *restrict z, real *restrict distance, int64_t n, real scale)
{
    for (int64_t i = 0; i < n; i++) {
        real v = z[i];
        distance[i] = v * v;
        z[i] = 2 * scale * v;
    }
}

/* Sum of the distances of `bins` pairs, with room for 2 bins numbers behind them. */
static double measure(saw_spectral_distance d, real *z, int64_t bins, real scale)
{
    enum { LANES = 4 };
    real *distance = z + 2 * bins;
    double lane[LANES] = {0};
    int64_t n = d == SAW_SPECTRAL_MODULUS ? bins : 2 * bins;
    (d == SAW_SPECTRAL_MODULUS ? modulus
     : d == SAW_SPECTRAL_PARTS ? sizes
                               : squares)(z, distance, n, scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (double)distance[i + l];
    for (; i < n; i++)
        lane[0] += (double)distance[i];
    return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

static real *row_of(const saw_tensor *t, int64_t b, int64_t ch)
{
    return (real *)t->data + b * t->strides[0] + ch * t->strides[1];
}

SAW_REF_KERNEL(spectral_loss_forward)
{
    const spectral_loss_attr *a = c->attr;
    const saw_tensor *sums = &c->out[0], *gradient = &c->out[1];
    int64_t channels = sums->dims[1], blocks = sums->dims[2], samples = gradient->dims[2], spectrum;
    room_of(a, samples, &spectrum);
    real *z = (real *)((char *)c->scratch + transform_bytes(a, DTYPE));
    real *difference = z + spectrum, *dy = difference + samples;
    int64_t units = sums->dims[0] * channels * blocks;
    for (int64_t u = units * c->part / c->parts; u < units * (c->part + 1) / c->parts; u++) {
        int64_t block = u % blocks, ch = u / blocks % channels, b = u / blocks / channels;
        int64_t at = samples * block / blocks, n = samples * (block + 1) / blocks - at;
        const real *y = row_of(&c->in[0], b, ch), *target = row_of(&c->in[1], b, ch);
        for (int64_t i = 0; i < samples; i++)
            difference[i] = y[i * c->in[0].strides[2]] - target[i * c->in[1].strides[2]];
        memset(dy, 0, (size_t)n * sizeof *dy);
        double sum = 0;
        for (int j = 0; j < a->n; j++) {
            const saw_stft *plan = a->plans[j];
            int64_t bins = saw_stft_bins(plan), hop = saw_stft_get_options(plan)->hop, first, end;
            double count = (double)(saw_stft_frames(plan, samples) * bins);
            double scale = (a->distance == SAW_SPECTRAL_MODULUS ? 1 : 0.5) / count;
            saw_stft_frames_over(plan, samples, at, n, &first, &end);
            for (int64_t t = first; t < end; t++) {
                int64_t middle = t * hop < samples ? t * hop : samples - 1;
                FORWARD(plan, difference, samples, t, 1, z, 0, 2, c->scratch);
                double distance = measure(a->distance, z, bins, (real)scale);
                if (middle >= at && middle < at + n)
                    sum += distance * scale;
                FRAME_ADJOINT(plan, z, 2, samples, t, at, n, dy, c->scratch);
            }
        }
        put(row_of(sums, b, ch) + block * sums->strides[2], saw_adds(c, 0), sum);
        real *to = row_of(gradient, b, ch) + at * gradient->strides[2];
        for (int64_t i = 0; i < n; i++)
            put(to + i * gradient->strides[2], saw_adds(c, 1), (double)dy[i]);
    }
}

SAW_REF_KERNEL(spectral_loss_backward)
{
    const saw_tensor *gradient = &c->in[3], *seed = &c->in[4];
    for (int64_t b = 0; b < gradient->dims[0]; b++)
        for (int64_t ch = 0; ch < gradient->dims[1]; ch++)
            for (int j = 0; j < 2; j++) {
                if (!c->out[j].data)
                    continue;
                double factor = (j ? -1 : 1) * (double)*row_of(seed, b, ch);
                const real *from = row_of(gradient, b, ch);
                real *to = row_of(&c->out[j], b, ch);
                for (int64_t i = 0; i < gradient->dims[2]; i++)
                    put(to + i * c->out[j].strides[2], saw_adds(c, j),
                        factor * (double)from[i * gradient->strides[2]]);
            }
}

#else

/* The kernels are the float reference's. */

static bool shape(saw_shape *s)
{
    const spectral_loss_attr *a = s->attr;
    const saw_dims *y = &s->in[0];
    if (y->n != 3 || !saw_dims_equal(y, &s->in[1]) || !saw_dims_count(y))
        return saw_refuse(s, "needs y and a target of the same dims [B,C,N]");
    if (a->n < 1)
        return saw_refuse(s, "needs an STFT");
    for (int i = 0; i < a->n; i++)
        if (saw_stft_check(NULL, a->plans[i], y->d[2]))
            return saw_refuse(s, "%lld samples are too few for a transform of %d",
                              (long long)y->d[2], saw_stft_get_options(a->plans[i])->n_fft);
    s->out[0] = SAW_DIMS(y->d[0], y->d[1], (y->d[2] + BLOCK_SAMPLES - 1) / BLOCK_SAMPLES);
    s->out[1] = *y;
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return SAW_LEADING(2);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want;
    return SAW_AXIS(n_in + 1);
}

static int64_t units(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return saw_dims_count(&out[0]);
}

static size_t scratch(const saw_call *c)
{
    int64_t spectrum;
    return transform_bytes(c->attr, c->out[0].dtype) +
           (size_t)room_of(c->attr, c->in[0].dims[2], &spectrum) * saw_dtype_bytes(c->out[0].dtype);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in, (void)out;
    const spectral_loss_attr *a = attr;
    double sum = 0;
    for (int i = 0; i < a->n; i++) {
        double n = saw_stft_get_options(a->plans[i])->n_fft;
        sum += 5 * n * log2(n) * (double)saw_stft_frames(a->plans[i], in[0].d[2]);
    }
    return sum * (double)(in[0].d[0] * in[0].d[1]);
}

static void list(const void *attr, saw_buffer *out)
{
    static const char *const names[] = {"modulus", "parts", "squares"};
    const spectral_loss_attr *a = attr;
    saw_buffer_printf(out, " %s windows", names[a->distance]);
    for (int i = 0; i < a->n; i++)
        saw_buffer_printf(out, " %d", saw_stft_get_options(a->plans[i])->win_length);
}

const saw_op saw_op_spectral_loss = {
    .name = "spectral_loss",
    .attr_bytes = sizeof(spectral_loss_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .scratch = scratch,
    .parts = units,
    .flops = flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_spectral_loss(saw_graph *g, saw_val y, saw_val target, int n,
                          const saw_stft *const *plans, saw_spectral_distance distance)
{
    spectral_loss_attr a = {.distance = distance,
                            .n = n < SAW_SPECTRAL_STFTS ? n : SAW_SPECTRAL_STFTS};
    for (int i = 0; i < a.n && plans[i]; i++)
        a.plans[i] = plans[i];
    return saw_record(g, &saw_op_spectral_loss, &a, 2, (saw_val[]){y, target}, 2);
}

#endif
