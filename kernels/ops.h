/*
 * ops.h - the recorders of all ops: what a model is written with.
 *
 * Every recorder returns its output, or 0 when an input is invalid or the shapes do not fit (the
 * graph then holds the sentence). Dims: B batch, T frames, F bands, H heads, R the ragged features
 * of all bands of a frame, one band after the other. "..." are leading axes, the same in all
 * operands. An axis is counted from 0.
 */
#ifndef SAW_OPS_H
#define SAW_OPS_H

#include "core/graph.h"
#include "dsp/stft.h"

/** Zeros of these dims. */
saw_val saw_zero(saw_graph *g, saw_dims dims);

/* ---- element by element ---------------------------------------------------------------------- */

saw_val saw_gelu(saw_graph *g, saw_val x); /* the exact form: x/2 (1 + erf(x / sqrt 2)) */
saw_val saw_tanh(saw_graph *g, saw_val x);
saw_val saw_sigmoid(saw_graph *g, saw_val x);
saw_val saw_softplus(saw_graph *g, saw_val x); /* log(1 + e^x) */
saw_val saw_silu(saw_graph *g, saw_val x);     /* x sigmoid(x) */
saw_val saw_relu(saw_graph *g, saw_val x);
saw_val saw_elu(saw_graph *g, saw_val x); /* x > 0 ? x : e^x - 1 */
saw_val saw_exp(saw_graph *g, saw_val x);
/** a + b and a * b. As many axes in both; an axis of size 1 is repeated. */
saw_val saw_add(saw_graph *g, saw_val a, saw_val b);
saw_val saw_mul(saw_graph *g, saw_val a, saw_val b);
/** x > 0 ? x : slope x: slope [1], or [D] for the features of x [..., D]. */
saw_val saw_prelu(saw_graph *g, saw_val x, saw_val slope);
/** factor * x. */
saw_val saw_scale(saw_graph *g, saw_val x, double factor);
/** Mean of every `group` neighbours along a leading axis: [..., n, ..., D] -> [..., n / group, ...,
 * D]. */
saw_val saw_mean(saw_graph *g, saw_val x, int axis, int64_t group);
/** n values one after another on the last axis. On a leading axis a value may be shorter than the
 * first by a whole factor: each of its elements then serves so many neighbours. */
saw_val saw_concat(saw_graph *g, int n, const saw_val *values);
/** factor times the mean of all numbers of x -> [1]. */
saw_val saw_mean_all(saw_graph *g, saw_val x, double factor);
/** Complex product, (re, im) interleaved: a, b [..., 2m]. */
saw_val saw_cmul(saw_graph *g, saw_val a, saw_val b);

/* ---- products, norms ------------------------------------------------------------------------- */

/** y[..., N] = x[..., K] w^T + bias: w [N, K], bias [N] or 0. */
saw_val saw_linear(saw_graph *g, saw_val x, saw_val w, saw_val bias);
/** One linear layer a band: w[b] [out_b, in_b], bias[b] [out_b] (bias NULL: none). x is [B,T,F,D]
 * (all in_b = D) or ragged [B,T,R]. The output is ragged [B,T,R'], or [B,T,F,N] (all out_b = N)
 * when `ragged` is false. */
saw_val saw_band_linear(saw_graph *g, saw_val x, int bands, const saw_val *w, const saw_val *bias,
                        bool ragged);
/** b a of few columns: b [N, r], a [r, K] -> [N, K]. */
saw_val saw_rank_product(saw_graph *g, saw_val b, saw_val a);
/** x / max(|x|, 1e-12) sqrt(D) gamma over the last axis: gamma [D]. */
saw_val saw_rmsnorm(saw_graph *g, saw_val x, saw_val gamma);
/** The same within every band of ragged x [..., R]: gamma[b] [width of band b]. */
saw_val saw_band_rmsnorm(saw_graph *g, saw_val x, int bands, const saw_val *gamma);

/* ---- attention ------------------------------------------------------------------------------- */

/** Rotations of positions 0 .. n-1: freqs [m] -> [n, m, 2], cos and sin of position * freq. Not
 * differentiable. */
saw_val saw_rope_table(saw_graph *g, saw_val freqs, int64_t n);
/** Rotary embedding: pairs (2i, 2i+1) of x [..., H, d] turned by table [n, d/2, 2], the position
 * being the index along `axis`, of size n at most. */
saw_val saw_rope(saw_graph *g, saw_val x, saw_val table, int axis);
/** Rotations of PoPE's learned bias [H, d] -> [H, d, 2]: cos and sin of clamp(bias, -2 pi, 0). */
saw_val saw_pope_phase(saw_graph *g, saw_val bias);
/** PoPE: x [..., H, d] -> [..., H, 2d]: softplus(x_i) turned to the angle of table [n, d, 2] at the
 * position along `axis`, plus that of phase [H, d, 2] (0: none), as pairs (2i, 2i+1) = (cos, sin).
 */
saw_val saw_pope(saw_graph *g, saw_val x, saw_val table, saw_val phase, int axis);
/** softmax(scale q k^T) v along `axis` for every other index: q [..., H, dq], k [..., H, dq], v
 * [..., H, dv] ->
 * [..., H, dv]. k and v may be longer or shorter than q along `axis`. */
saw_val saw_attention(saw_graph *g, saw_val q, saw_val k, saw_val v, int axis, double scale);
/** Attention over channels (El-Nouby et al. 2021, XCiT): q, k, v [B,T,F,H,d], temperature [H,1,1].
 * The sequence is all (T,F); q and k are normalised along it, the scores are scale *
 * exp(temperature) q^T k [d, d]. -> [B,T,F,H,d]. */
saw_val saw_linear_attention(saw_graph *g, saw_val q, saw_val k, saw_val v, saw_val temperature,
                             double scale);
/** x [..., H, d] times gate [..., H]. */
saw_val saw_mul_heads(saw_graph *g, saw_val x, saw_val gate);

/* ---- recurrent layers, norms over several axes ----------------------------------------------- */

typedef enum saw_rnn_kind { SAW_RNN_LSTM, SAW_RNN_GRU } saw_rnn_kind;
/** One direction: w_ih [G H, D], w_hh [G H, H], b_ih [G H], b_hh [G H]; gates i,f,g,o (G = 4) or
 * r,z,n (G = 3). */
typedef struct saw_rnn_weights {
    saw_val w_ih, w_hh, b_ih, b_hh;
} saw_rnn_weights;
/** Recurrent layer along axis 1 or 2 of x [B,T,F,D] -> [B,T,F,H * directions]: forward, then the
 * reverse direction's features. `stateful` (one direction, along time): h and c go on from call to
 * call; gradients take them as constants of zero. */
saw_val saw_rnn(saw_graph *g, saw_val x, saw_rnn_kind kind, int axis, int directions,
                const saw_rnn_weights *weights, bool stateful);

/** How a norm works on x [B, ...]. */
enum { SAW_NORM_AXES = 3 };
typedef struct saw_norm_form {
    uint32_t over;             /* mask of the axes whose elements share a mean and a variance */
    int affine[SAW_NORM_AXES]; /* axes along which weight and bias lie, slowest first; 0 is none */
    double eps;
} saw_norm_form;
/** y = (x - mean) / sqrt(var + eps) * weight + bias, var without Bessel's correction; weight, bias
 * 0: none. */
saw_val saw_norm(saw_graph *g, saw_val x, saw_val weight, saw_val bias, const saw_norm_form *form);
/** The same with a weight and a bias for each band, and (x ragged [B,T,R], the band widths given)
 * statistics of each band; widths NULL: x is [B,T,F,D]. */
saw_val saw_band_norm(saw_graph *g, saw_val x, int bands, const int64_t *widths,
                      const saw_val *weight, const saw_val *bias, const saw_norm_form *form);

/** Everything but the batch brought to mean 0 and deviation 1: (x - mean) / (s + eps), s with
 * Bessel's correction. x [B, ..., n components]; `components` 2: complex numbers. *statistics [B,
 * components + 1]: mean, s. */
saw_val saw_standardize(saw_graph *g, saw_val x, int components, double eps, saw_val *statistics);
/** y s + mean. */
saw_val saw_restore(saw_graph *g, saw_val y, saw_val statistics);

/* ---- convolutions ---------------------------------------------------------------------------- */

/** Index 0 is axis 1 (frames), index 1 axis 2 (bands). A stride, dilation or number of groups of 0
 * means 1. */
typedef struct saw_conv_form {
    int axis; /* of a kernel of one dimension: 1 or 2 */
    int64_t stride[2], dilation[2];
    int64_t before[2],
        after[2]; /* zeros put around; transposed: what is cut off. May be negative */
    int64_t groups;
} saw_conv_form;
/** x [B,T,F,C] or [B,T,C], weight [C', C / groups, kT, kF] or [C', C / groups, k], bias [C'] or 0
 * -> [B,T',F',C']. */
saw_val saw_conv(saw_graph *g, saw_val x, saw_val weight, saw_val bias, const saw_conv_form *form);
/** Its adjoint: weight [C, C' / groups, kT, kF] or [C, C' / groups, k]. */
saw_val saw_conv_transpose(saw_graph *g, saw_val x, saw_val weight, saw_val bias,
                           const saw_conv_form *form);
/** (x - mean) / sqrt(var + eps) * weight + bias for every feature: all [D]. mean and var are
 * constants without a gradient. */
saw_val saw_batch_norm(saw_graph *g, saw_val x, saw_val weight, saw_val bias, saw_val mean,
                       saw_val var, double eps);
/** The same by the mean and variance of all rows of x, two at least. *mean and *var (unbiased: what
 * a running variance is averaged from) are [D] and take no gradient. */
saw_val saw_batch_norm_train(saw_graph *g, saw_val x, saw_val weight, saw_val bias, double eps,
                             saw_val *mean, saw_val *var);
/** 0 with probability `rate` (below 1), else x / (1 - rate); drawn from the run's seed. */
saw_val saw_dropout(saw_graph *g, saw_val x, double rate);
/** x > 0 ? x : slope x. */
saw_val saw_leaky_relu(saw_graph *g, saw_val x, double slope);
/** `before` and `after` zeros along an axis; negative counts cut away. */
saw_val saw_pad(saw_graph *g, saw_val x, int axis, int64_t before, int64_t after);

/* ---- bands and spectra ----------------------------------------------------------------------- */

/** Gated linear unit of every band: x [..., 2R] holds for band b widths[b] values, then as many
 * gates -> [..., R]: value * sigmoid(gate). bands == 1: the plain GLU. */
saw_val saw_glu(saw_graph *g, saw_val x, int bands, const int64_t *widths);
/** out[..., r] = x[..., table[r]], 0 where table[r] is -1; n entries. The table is copied. */
saw_val saw_gather(saw_graph *g, saw_val x, const int32_t *table, int64_t n);
/** out[..., i] = mean of all x[..., r] with table[r] == i, 0 where there is none; entries of -1 are
 * dropped. x [..., n], out [..., size]. The table is copied. */
saw_val saw_scatter(saw_graph *g, saw_val x, const int32_t *table, int64_t size);
/** |re + j im| of the pairs of x [..., 2m] -> [..., m]. */
saw_val saw_magnitude(saw_graph *g, saw_val x);
/** Share of estimate `which` in n (not negative, of the same dims): (e^power + eps / n) / (sum of
 * all e^power + eps). */
saw_val saw_ratio_mask(saw_graph *g, int n, const saw_val *estimates, int which, double power,
                       double eps);
/** The numbers of each band of ragged x [B,T,R], [T, width] in memory, read as [width, T]. */
saw_val saw_band_reinterpret(saw_graph *g, saw_val x, int bands, const int64_t *widths);
/** Spectrum of audio [B,C,N] -> [B,T,K,C,2]. Borrows the plan, as long as programs of this graph
 * live. */
saw_val saw_stft_op(saw_graph *g, saw_val audio, const saw_stft *plan);
/** Its inverse: [B,T,K,C,2] -> [B,C,samples]. Borrows the plan likewise. */
saw_val saw_istft_op(saw_graph *g, saw_val spectrum, const saw_stft *plan, int64_t samples);
/** The same for a signal without end, block by block, with state: audio [B,C,n hop] -> [B,n,K,C,2],
 * of which frame t ends with the samples of hop t, and [B,n,K,C,2] -> [B,C,n hop], later than the
 * audio by n_fft - hop samples. The plan is not centred. Not differentiable. */
saw_val saw_stream_stft(saw_graph *g, saw_val audio, const saw_stft *plan);
saw_val saw_stream_istft(saw_graph *g, saw_val spectrum, const saw_stft *plan);

/* ---- adapters -------------------------------------------------------------------------------- */

/** 1 / |row| of a matrix [rows, D] -> [rows, 1], a constant to differentiation. */
saw_val saw_row_norm(saw_graph *g, saw_val x);
/** Orthogonal matrices from v [n, b (b - 1) / 2], the numbers above the diagonal of skew ones ->
 * [n, b, b]: by Cayley's transform (terms 0), or so many terms (2 .. 32) of its series, which turns
 * the other way. See cayley.c. */
saw_val saw_cayley(saw_graph *g, saw_val v, int64_t block, int terms);
/** x diag(R_0, R_1, ...)^T: x [..., n b], blocks [n, b, b], or [1, b, b] for one that serves all.
 */
saw_val saw_block_linear(saw_graph *g, saw_val x, saw_val blocks);
/** radius, angle [m] -> [3 m]: all r cos t, all r sin t, all -r sin t. */
saw_val saw_rotation(saw_graph *g, saw_val radius, saw_val angle);

/* ---- losses ---------------------------------------------------------------------------------- */

/** A loss of every item: y and target [B, ...] -> [B]. See wave_loss.c for the formulas and eps. */
typedef enum saw_wave_distance {
    SAW_WAVE_L1,
    SAW_WAVE_L2,
    SAW_WAVE_SNR,
    SAW_WAVE_SI_SDR,
    SAW_WAVE_L1SNR
} saw_wave_distance;
saw_val saw_wave_loss(saw_graph *g, saw_val y, saw_val target, saw_wave_distance distance,
                      double eps);
/** mean |y - target|^power (1 or 2) of every item without its errors above their q-quantile;
 * coarse: without the items whose mean is above that of the batch. y and target [B, ...] -> [B]. */
saw_val saw_masked_loss(saw_graph *g, saw_val y, saw_val target, double q, int power, bool coarse);

enum { SAW_SPECTRAL_STFTS = 8 };
typedef enum saw_spectral_distance {
    SAW_SPECTRAL_MODULUS, /* mean |Z| */
    SAW_SPECTRAL_PARTS,   /* mean over re and im of their size */
    SAW_SPECTRAL_SQUARES  /* mean over re and im of their square */
} saw_spectral_distance;
/** Sum over n centred STFTs (1 .. SAW_SPECTRAL_STFTS; borrowed as long as programs of this graph
 * live) of a mean over frames and bins of Z = STFT(y - target): y and target [B,C,N] -> [B,C,J],
 * each row adding up to the loss of its channel. Gradients take all numbers of a row to have the
 * same weight. */
saw_val saw_spectral_loss(saw_graph *g, saw_val y, saw_val target, int n,
                          const saw_stft *const *plans, saw_spectral_distance distance);
/** weight * mean |y - target| -> [1]. */
saw_val saw_l1_loss(saw_graph *g, saw_val y, saw_val target, double weight);

#endif
