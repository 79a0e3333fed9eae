/*
 * op_stft.c - the short-time Fourier transform and its inverse as ops: audio [B,C,N], spectra
 * [B,T,K,C,2].
 *
 * The transform is cut along frames, and so are gradients through its inverse, which adds frames up
 * and is itself cut along blocks of samples instead.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct stft_attr {
    const saw_stft *plan;
    int64_t samples; /* of the audio */
    int64_t frames;  /* of the spectrum that an inverse is given */
} stft_attr;

enum { BLOCK_SAMPLES = 32768 };

#ifdef SAW_REF

#if SAW_REF == 64
#define FORWARD         saw_stft64_forward
#define INVERSE         saw_stft64_inverse
#define FORWARD_ADJOINT saw_stft64_forward_adjoint
#define INVERSE_ADJOINT saw_stft64_inverse_adjoint
#define DTYPE           SAW_F64
#else
#define FORWARD         saw_stft_forward
#define INVERSE         saw_stft_inverse
#define FORWARD_ADJOINT saw_stft_forward_adjoint
#define INVERSE_ADJOINT saw_stft_inverse_adjoint
#define DTYPE           SAW_F32
#endif

/* Channel ch of item b, of audio or of a spectrum. */
static real *audio_at(const saw_tensor *x, int64_t b, int64_t ch)
{
    return (real *)x->data + b * x->strides[0] + ch * x->strides[1];
}

static real *spectrum_at(const saw_tensor *s, int64_t b, int64_t ch)
{
    return (real *)s->data + b * s->strides[0] + ch * s->strides[3];
}

/* Memory behind what the transform itself takes. */
static real *aside(const saw_call *c)
{
    const stft_attr *a = c->attr;
    return (real *)((char *)c->scratch + saw_stft_scratch_bytes(a->plan, DTYPE));
}

SAW_REF_KERNEL(stft_forward)
{
    const stft_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    int64_t bins = y->dims[2];
    for (int64_t b = 0; b < y->dims[0]; b++)
        for (int64_t ch = 0; ch < y->dims[3]; ch++) {
            const real *from = audio_at(x, b, ch);
            if (!saw_adds(c, 0)) {
                FORWARD(a->plan, from, a->samples, c->origin[1], y->dims[1], spectrum_at(y, b, ch),
                        y->strides[1], y->strides[2], c->scratch);
                continue;
            }
            for (int64_t t = 0; t < y->dims[1]; t++) {
                FORWARD(a->plan, from, a->samples, c->origin[1] + t, 1, aside(c), 2 * bins, 2,
                        c->scratch);
                real *to = spectrum_at(y, b, ch) + t * y->strides[1];
                for (int64_t i = 0; i < 2 * bins; i++)
                    to[i / 2 * y->strides[2] + i % 2] += aside(c)[i];
            }
        }
}

SAW_REF_KERNEL(stft_backward)
{
    const stft_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2], *dx = &c->out[0];
    start_sum(c, 0);
    for (int64_t b = 0; b < dx->dims[0]; b++)
        for (int64_t ch = 0; ch < dx->dims[1]; ch++)
            FORWARD_ADJOINT(a->plan, spectrum_at(dy, b, ch), dy->strides[1], dy->strides[2],
                            a->samples, 0, a->samples, audio_at(dx, b, ch), c->scratch);
}

SAW_REF_KERNEL(istft_forward)
{
    const stft_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    int64_t first = a->samples * c->part / c->parts, end = a->samples * (c->part + 1) / c->parts;
    for (int64_t b = 0; b < y->dims[0]; b++)
        for (int64_t ch = 0; ch < y->dims[1]; ch++)
            for (int64_t at = first; at < end; at += BLOCK_SAMPLES) {
                int64_t n = end - at < BLOCK_SAMPLES ? end - at : BLOCK_SAMPLES;
                real *to = audio_at(y, b, ch) + at, *out = saw_adds(c, 0) ? aside(c) : to;
                INVERSE(a->plan, spectrum_at(x, b, ch), x->dims[1], x->strides[1], x->strides[2],
                        at, n, out, c->scratch);
                for (int64_t i = 0; out != to && i < n; i++)
                    to[i] += out[i];
            }
}

SAW_REF_KERNEL(istft_backward)
{
    const stft_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2], *dx = &c->out[0];
    start_sum(c, 0);
    for (int64_t b = 0; b < dx->dims[0]; b++)
        for (int64_t ch = 0; ch < dx->dims[3]; ch++)
            INVERSE_ADJOINT(a->plan, audio_at(dy, b, ch), a->samples, a->frames, c->origin[1],
                            dx->dims[1], spectrum_at(dx, b, ch), dx->strides[1], dx->strides[2],
                            c->scratch);
}

#else

/* The kernels are the float reference's. */

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static double transform_flops(const saw_stft *plan, double frames)
{
    double n = saw_stft_get_options(plan)->n_fft;
    return frames * 2.5 * n * log2(n);
}

static void list(const void *attr, saw_buffer *out)
{
    const saw_stft_options *o = saw_stft_get_options(((const stft_attr *)attr)->plan);
    saw_buffer_printf(out, " n_fft %d hop %d", o->n_fft, o->hop);
}

static bool stft_shape(saw_shape *s)
{
    const stft_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (x->n != 3)
        return saw_refuse(s, "needs audio [B,C,N]");
    if (saw_stft_check(NULL, a->plan, x->d[2]))
        return saw_refuse(s, "%lld samples are too few for a transform of %d", (long long)x->d[2],
                          saw_stft_get_options(a->plan)->n_fft);
    s->out[0] =
        SAW_DIMS(x->d[0], saw_stft_frames(a->plan, x->d[2]), saw_stft_bins(a->plan), x->d[1], 2);
    return true;
}

static uint32_t stft_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)in;
    return operand < n_in ? SAW_AXIS(0) : SAW_AXIS(0) | SAW_AXIS(1);
}

static size_t stft_scratch(const saw_call *c)
{
    const stft_attr *a = c->attr;
    return saw_stft_scratch_bytes(a->plan, c->out[0].dtype) +
           2 * (size_t)saw_stft_bins(a->plan) * saw_dtype_bytes(c->out[0].dtype);
}

static double stft_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in, (void)in;
    return transform_flops(((const stft_attr *)attr)->plan,
                           (double)(out->d[0] * out->d[1] * out->d[3]));
}

const saw_op saw_op_stft = {
    .name = "stft",
    .attr_bytes = sizeof(stft_attr),
    .shape = stft_shape,
    .axes = stft_axes,
    .keep = keep,
    .scratch = stft_scratch,
    .flops = stft_flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_stft_op(saw_graph *g, saw_val audio, const saw_stft *plan)
{
    stft_attr a = {.plan = plan, .samples = audio ? saw_dim(g, audio, -1) : 0};
    return SAW_RECORD(g, &saw_op_stft, &a, audio);
}

static bool istft_shape(saw_shape *s)
{
    const stft_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (x->n != 5 || x->d[2] != saw_stft_bins(a->plan) || x->d[4] != 2)
        return saw_refuse(s, "needs a spectrum [B,T,%lld,C,2]", (long long)saw_stft_bins(a->plan));
    if (a->samples < 1)
        return saw_refuse(s, "a length of %lld samples", (long long)a->samples);
    s->out[0] = SAW_DIMS(x->d[0], x->d[3], a->samples);
    return true;
}

static uint32_t istft_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)in;
    return operand < n_in ? SAW_AXIS(0) | SAW_AXIS(1) : SAW_AXIS(0);
}

static int64_t istft_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in, (void)in, (void)out;
    return (((const stft_attr *)attr)->samples + BLOCK_SAMPLES - 1) / BLOCK_SAMPLES;
}

static size_t istft_scratch(const saw_call *c)
{
    const stft_attr *a = c->attr;
    return saw_stft_scratch_bytes(a->plan, c->out[0].dtype) +
           BLOCK_SAMPLES * saw_dtype_bytes(c->out[0].dtype);
}

static double istft_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in, (void)out;
    return transform_flops(((const stft_attr *)attr)->plan,
                           (double)(in->d[0] * in->d[1] * in->d[3]));
}

const saw_op saw_op_istft = {
    .name = "istft",
    .attr_bytes = sizeof(stft_attr),
    .shape = istft_shape,
    .axes = istft_axes,
    .keep = keep,
    .scratch = istft_scratch,
    .parts = istft_parts,
    .flops = istft_flops,
    .list = list,
    .differentiable = true,
    .tolerance_db = 120,
};

saw_val saw_istft_op(saw_graph *g, saw_val spectrum, const saw_stft *plan, int64_t samples)
{
    stft_attr a = {plan, samples, spectrum ? saw_dim(g, spectrum, 1) : 0};
    return SAW_RECORD(g, &saw_op_istft, &a, spectrum);
}

#endif
