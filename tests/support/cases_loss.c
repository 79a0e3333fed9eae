/*
 * cases_loss.c - cases of the losses. The gradient that a spectral loss hands on (output 1) has
 * none of its own, and where it has several blocks of samples no weights that differ from block to
 * block: that case is held to differences as a whole loss in tests/train/test_loss.c.
 */
#include "nn/nn.h"
#include "support/op_case.h"

#define WAVE(name, distance, eps)                                                                  \
    static saw_val name(saw_graph *g, const saw_val *in)                                           \
    {                                                                                              \
        return saw_wave_loss(g, in[0], in[1], distance, eps);                                      \
    }
WAVE(l1, SAW_WAVE_L1, 0)
WAVE(l2, SAW_WAVE_L2, 0)
WAVE(snr, SAW_WAVE_SNR, 1e-3)
WAVE(si_sdr, SAW_WAVE_SI_SDR, 1e-3)
WAVE(l1snr, SAW_WAVE_L1SNR, 1e-3)

#define MASKED(name, q, power, coarse)                                                             \
    static saw_val name(saw_graph *g, const saw_val *in)                                           \
    {                                                                                              \
        return saw_masked_loss(g, in[0], in[1], q, power, coarse);                                 \
    }
MASKED(masked_l1, 0.8, 1, false)
MASKED(masked_l2, 0.33, 2, false)
MASKED(masked_coarse, 0.7, 2, true)

static saw_val spectral(saw_graph *g, const saw_val *in, saw_spectral_distance distance, int n,
                        const saw_stft_options *options)
{
    const saw_stft *plans[SAW_SPECTRAL_STFTS];
    for (int i = 0; i < n; i++)
        plans[i] = nn_stft_plan(g, &options[i]);
    return saw_spectral_loss(g, in[0], in[1], n, plans, distance);
}

static saw_val modulus(saw_graph *g, const saw_val *in)
{
    const saw_stft_options three[] = {{.n_fft = 64, .hop = 7, .center = true},
                                      {.n_fft = 32, .win_length = 20, .hop = 7, .center = true},
                                      {.n_fft = 15, .hop = 4, .center = true}};
    return spectral(g, in, SAW_SPECTRAL_MODULUS, 3, three);
}

static saw_val parts(saw_graph *g, const saw_val *in)
{
    const saw_stft_options two[] = {
        {.n_fft = 32, .hop = 8, .center = true, .norm = SAW_STFT_NORM_WINDOW},
        {.n_fft = 18, .hop = 5, .center = true, .pad = SAW_STFT_ZEROS}};
    return spectral(g, in, SAW_SPECTRAL_PARTS, 2, two);
}

static saw_val squares(saw_graph *g, const saw_val *in)
{
    return spectral(g, in, SAW_SPECTRAL_SQUARES, 1,
                    &(saw_stft_options){.n_fft = 32, .hop = 9, .center = true});
}

static saw_val blocks(saw_graph *g, const saw_val *in)
{
    const saw_stft_options two[] = {{.n_fft = 4096, .hop = 1500, .center = true},
                                    {.n_fft = 1024, .win_length = 512, .hop = 900, .center = true}};
    return spectral(g, in, SAW_SPECTRAL_SQUARES, 2, two);
}

#define D OP_DIMS
enum { GRADIENT = 8, INPUTS = 3 }; /* bits of operands */
static const op_case cases[] = {
    {.name = "wave_loss, l1", .record = l1, .in = {D(3, 2, 19), D(3, 2, 19)}},
    {.name = "wave_loss, l2", .record = l2, .in = {D(2, 5, 19), D(2, 5, 19)}},
    {.name = "wave_loss, snr", .record = snr, .in = {D(2, 2, 31), D(2, 2, 31)}},
    {.name = "wave_loss, si_sdr", .record = si_sdr, .in = {D(2, 2, 31), D(2, 2, 31)}},
    {.name = "wave_loss, l1snr", .record = l1snr, .in = {D(3, 31), D(3, 31)}},
    {.name = "masked_loss, l1", .record = masked_l1, .in = {D(3, 2, 19), D(3, 2, 19)}},
    {.name = "masked_loss, l2", .record = masked_l2, .in = {D(2, 2, 40), D(2, 2, 40)}},
    {.name = "masked_loss, coarse", .record = masked_coarse, .in = {D(5, 2, 7), D(5, 2, 7)}},
    {.name = "spectral_loss, modulus",
     .record = modulus,
     .in = {D(3, 2, 101), D(3, 2, 101)},
     .fixed = GRADIENT},
    {.name = "spectral_loss, parts",
     .record = parts,
     .in = {D(2, 2, 60), D(2, 2, 60)},
     .fixed = GRADIENT},
    {.name = "spectral_loss, squares",
     .record = squares,
     .in = {D(1, 3, 77), D(1, 3, 77)},
     .fixed = GRADIENT},
    {.name = "spectral_loss, blocks",
     .record = blocks,
     .in = {D(1, 2, 140001), D(1, 2, 140001)},
     .fixed = GRADIENT | INPUTS,
     .gain = 30},
};
const op_case_list op_cases_loss = {cases, sizeof cases / sizeof *cases};
