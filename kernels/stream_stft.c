/*
 * stream_stft.c - the short-time Fourier transform and its inverse of a signal without end, a block
 * of hops at a time: audio [B,C,n hop], spectra [B,n,K,C,2].
 *
 * Analysis keeps the last n_fft - hop samples of every channel, so that frame t ends with hop t;
 * synthesis keeps the sums of overlapping frames that are not final. Both begin with zeros. All
 * delay, n_fft - hop samples, is in the synthesis window.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct stream_attr {
    const saw_stft *plan;
} stream_attr;

static inline int64_t hop_of(const saw_call *c)
{
    return saw_stft_get_options(((const stream_attr *)c->attr)->plan)->hop;
}

/* Samples of a channel that outlive a block. */
static inline int64_t kept_of(const saw_stft *plan)
{
    const saw_stft_options *o = saw_stft_get_options(plan);
    return o->n_fft - o->hop;
}

#ifdef SAW_REF

#if SAW_REF == 64
#define FORWARD saw_stft64_forward
#define INVERSE saw_stft64_stream_inverse
#define DTYPE   SAW_F64
#else
#define FORWARD saw_stft_forward
#define INVERSE saw_stft_stream_inverse
#define DTYPE   SAW_F32
#endif

/* Block of one channel, and then a frame, behind what the transform itself takes. */
static real *block_of(const saw_call *c)
{
    const stream_attr *a = c->attr;
    return (real *)((char *)c->scratch + saw_stft_scratch_bytes(a->plan, DTYPE));
}

static real *state_of(const saw_call *c, int64_t b, int64_t channel, int64_t channels)
{
    const stream_attr *a = c->attr;
    return (real *)c->state + ((c->origin[0] + b) * channels + channel) * kept_of(a->plan);
}

SAW_REF_KERNEL(stream_stft_forward)
{
    const stream_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    int64_t kept = kept_of(a->plan), n = x->dims[2];
    real *block = block_of(c), *frame = block + kept + n;
    for (int64_t b = 0; b < x->dims[0]; b++)
        for (int64_t ch = 0; ch < x->dims[1]; ch++) {
            const real *from = (const real *)x->data + b * x->strides[0] + ch * x->strides[1];
            real *state = state_of(c, b, ch, x->dims[1]);
            memcpy(block, state, (size_t)kept * sizeof *block);
            for (int64_t i = 0; i < n; i++)
                block[kept + i] = from[i * x->strides[2]];
            memcpy(state, block + n, (size_t)kept * sizeof *block);
            for (int64_t t = 0; t < y->dims[1]; t++) {
                FORWARD(a->plan, block, kept + n, t, 1, frame, 2, 2, c->scratch);
                real *to =
                    (real *)y->data + b * y->strides[0] + t * y->strides[1] + ch * y->strides[3];
                for (int64_t i = 0; i < 2 * y->dims[2]; i++)
                    put(to + i / 2 * y->strides[2] + i % 2 * y->strides[4], saw_adds(c, 0),
                        frame[i]);
            }
        }
}

SAW_REF_KERNEL(stream_istft_forward)
{
    const stream_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    real *block = block_of(c);
    for (int64_t b = 0; b < y->dims[0]; b++)
        for (int64_t ch = 0; ch < y->dims[1]; ch++) {
            real *to = (real *)y->data + b * y->strides[0] + ch * y->strides[1];
            INVERSE(a->plan, (const real *)x->data + b * x->strides[0] + ch * x->strides[3],
                    x->dims[1], x->strides[1], x->strides[2], state_of(c, b, ch, y->dims[1]), block,
                    c->scratch);
            for (int64_t i = 0; i < x->dims[1] * hop_of(c); i++)
                put(&to[i * y->strides[2]], saw_adds(c, 0), block[i]);
        }
}

#else

/* The kernels are the float reference's. */

static bool fits(saw_shape *s, const saw_stft *plan)
{
    const saw_stft_options *o = saw_stft_get_options(plan);
    return !o->center && o->hop <= o->n_fft
               ? true
               : saw_refuse(s, "needs a plan that is not centred, hop <= n_fft");
}

static bool stft_shape(saw_shape *s)
{
    const stream_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    int64_t hop = saw_stft_get_options(a->plan)->hop;
    if (x->n != 3 || x->d[2] < hop || x->d[2] % hop)
        return saw_refuse(s, "needs audio [B,C,N] of whole hops of %lld samples", (long long)hop);
    s->out[0] = SAW_DIMS(x->d[0], x->d[2] / hop, saw_stft_bins(a->plan), x->d[1], 2);
    return fits(s, a->plan);
}

static bool istft_shape(saw_shape *s)
{
    const stream_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (x->n != 5 || x->d[2] != saw_stft_bins(a->plan) || x->d[4] != 2)
        return saw_refuse(s, "needs a spectrum [B,T,%lld,C,2]", (long long)saw_stft_bins(a->plan));
    s->out[0] = SAW_DIMS(x->d[0], x->d[3], x->d[1] * saw_stft_get_options(a->plan)->hop);
    return fits(s, a->plan);
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return SAW_AXIS(0);
}

static size_t scratch(const saw_call *c)
{
    const stream_attr *a = c->attr;
    const saw_tensor *audio = c->in[0].ndim == 3 ? &c->in[0] : &c->out[0];
    return saw_stft_scratch_bytes(a->plan, audio->dtype) +
           (size_t)(kept_of(a->plan) + audio->dims[2] + 2 * saw_stft_bins(a->plan)) *
               saw_dtype_bytes(audio->dtype);
}

/* In double, whatever the device. */
static size_t state(const void *attr, int n_in, const saw_dims *in)
{
    const stream_attr *a = attr;
    (void)n_in;
    int64_t channels = in[0].n == 3 ? in[0].d[1] : in[0].d[3];
    return (size_t)(in[0].d[0] * channels * kept_of(a->plan)) * sizeof(double);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    const saw_dims *spectrum = in[0].n == 5 ? in : out;
    double n = saw_stft_get_options(((const stream_attr *)attr)->plan)->n_fft;
    (void)n_in;
    return (double)(spectrum->d[0] * spectrum->d[1] * spectrum->d[3]) * 2.5 * n * log2(n);
}

static void list(const void *attr, saw_buffer *out)
{
    const saw_stft_options *o = saw_stft_get_options(((const stream_attr *)attr)->plan);
    saw_buffer_printf(out, " n_fft %d hop %d", o->n_fft, o->hop);
}

const saw_op saw_op_stream_stft = {
    .name = "stream_stft",
    .attr_bytes = sizeof(stream_attr),
    .shape = stft_shape,
    .axes = axes,
    .scratch = scratch,
    .state = state,
    .flops = flops,
    .list = list,
    .tolerance_db = 120,
};

const saw_op saw_op_stream_istft = {
    .name = "stream_istft",
    .attr_bytes = sizeof(stream_attr),
    .shape = istft_shape,
    .axes = axes,
    .scratch = scratch,
    .state = state,
    .flops = flops,
    .list = list,
    .tolerance_db = 120,
};

saw_val saw_stream_stft(saw_graph *g, saw_val audio, const saw_stft *plan)
{
    return SAW_RECORD(g, &saw_op_stream_stft, &(stream_attr){plan}, audio);
}

saw_val saw_stream_istft(saw_graph *g, saw_val spectrum, const saw_stft *plan)
{
    return SAW_RECORD(g, &saw_op_stream_istft, &(stream_attr){plan}, spectrum);
}

#endif
