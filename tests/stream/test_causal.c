/*
 * test_causal.c - a causal model recorded for blocks of any number of hops: the same bits as in one
 * block.
 */
#include "core/program.h"
#include "models/causal_lstm.h"
#include "nn/nn.h"
#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_FFT = 24, HOP = 7, HOPS = 42, SAMPLES = HOPS * HOP, CHANNELS = 2, BATCH = 2, STEMS = 2 };

static const causal_lstm_options options = {
    .common = {.channels = CHANNELS, .stems = STEMS},
    .n_fft = N_FFT,
    .hop = HOP,
    .dim = 12,
    .hidden = 10,
    .depth = 2,
    .bands = 3,
    .freqs_per_bands = {2, 4, 7},
};

typedef struct net {
    saw_context *ctx;
    saw_weights *w;
    saw_program *p;
    saw_run *run;
    int hops;
} net;

/* Only the transforms and a mask of one. */
static void record_transforms(saw_graph *g, const void *o, saw_val mix)
{
    (void)o;
    const saw_stft *plan = nn_stft_plan(g, &(saw_stft_options){.n_fft = N_FFT, .hop = HOP});
    saw_val spectrum = saw_stream_stft(g, mix, plan);
    saw_output(g, "spectrum", spectrum);
    saw_output(g, "stem0", saw_stream_istft(g, spectrum, plan));
}

static net net_open(int hops, int threads, saw_device device,
                    void (*record)(saw_graph *, const void *, saw_val))
{
    net n = {.hops = hops};
    saw_graph *g;
    assert_int_equal(saw_context_open(&n.ctx, &(saw_options){.threads = threads}), SAW_OK);
    assert_int_equal(saw_graph_open(n.ctx, &g), SAW_OK);
    assert_int_equal(saw_weights_open(n.ctx, NULL, &n.w), SAW_OK);
    record(g, &options, saw_input(g, "mix", SAW_DIMS(BATCH, CHANNELS, hops * HOP)));
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM)
            continue;
        int64_t count = saw_dims_count(&x->dims);
        float *data = malloc((size_t)count * sizeof *data);
        for (int64_t i = 0; i < count; i++)
            data[i] = (float)(0.6 * test_value(x->name, i));
        assert_int_equal(saw_weights_set(n.w, x->name, x->dims, data), SAW_OK);
        free(data);
    }
    if (saw_program_build(g, &(saw_program_options){.device = device}, &n.p) ||
        saw_run_open(n.p, n.w, &n.run))
        fail_msg("%s", saw_context_error(n.ctx));
    return n;
}

static void net_close(net *n)
{
    saw_run_close(n->run);
    saw_program_close(n->p);
    saw_weights_close(n->w);
    saw_context_close(n->ctx);
}

static double number(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static float input(int64_t row, int64_t i)
{
    return i < 0 ? 0 : test_input("causal.", (int)row, i, 8000);
}

/* The whole signal, block by block: out [row][sample], of all stems. */
static void process(net *n, int stems, double *out)
{
    int64_t block = (int64_t)n->hops * HOP, rows = BATCH * CHANNELS;
    saw_tensor mix = saw_run_named(n->run, "mix");
    for (int64_t at = 0; at < SAMPLES; at += block) {
        for (int64_t k = 0; k < rows * block; k++) {
            float v = input(k / block, at + k % block);
            if (mix.dtype == SAW_F64)
                ((double *)mix.data)[k] = v;
            else
                ((float *)mix.data)[k] = v;
        }
        assert_int_equal(saw_run_execute(n->run), SAW_OK);
        for (int s = 0; s < stems; s++) {
            char name[16];
            snprintf(name, sizeof name, "stem%d", s);
            saw_tensor y = saw_run_named(n->run, name);
            for (int64_t k = 0; k < rows * block; k++)
                out[(s * rows + k / block) * SAMPLES + at + k % block] = number(&y, k);
        }
    }
}

enum { ALL = STEMS * BATCH * CHANNELS * SAMPLES };

static void any_block_gives_the_same_bits(void **state)
{
    (void)state;
    static const int blocks[] = {1, 2, 3, 7, 21};
    for (int device = SAW_DEVICE_CPU; device <= SAW_DEVICE_REF64; device++) {
        double *want = calloc(ALL, sizeof *want), *got = calloc(ALL, sizeof *got), energy = 0;
        net whole = net_open(HOPS, 1, device, causal_lstm_record);
        process(&whole, STEMS, want);
        for (int64_t i = 0; i < ALL; i++)
            energy += want[i] * want[i];
        assert_true(energy / ALL > 1e-6);
        for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++)
            for (int threads = 1; threads <= 2; threads++) {
                net n = net_open(blocks[k], threads, device, causal_lstm_record);
                process(&n, STEMS, got);
                for (int64_t i = 0; i < ALL; i++)
                    if (got[i] != want[i])
                        fail_msg("blocks of %d: sample %lld is %.9g and should be %.9g", blocks[k],
                                 (long long)(i % SAMPLES), got[i], want[i]);
                net_close(&n);
            }
        net_close(&whole);
        free(want);
        free(got);
    }
}

static void reset_starts_again(void **state)
{
    (void)state;
    double *first = calloc(ALL, sizeof *first), *on = calloc(ALL, sizeof *on),
           *again = calloc(ALL, sizeof *again);
    net n = net_open(3, 2, SAW_DEVICE_CPU, causal_lstm_record);
    process(&n, STEMS, first);
    process(&n, STEMS, on);
    saw_run_reset(n.run);
    process(&n, STEMS, again);
    assert_memory_equal(first, again, ALL * sizeof *first);
    assert_memory_not_equal(first, on, ALL * sizeof *first); /* without it the past goes on */
    net_close(&n);
    free(first);
    free(on);
    free(again);
}

/* No sample of the input comes out early: what follows is changed, what came before is not. */
static void nothing_looks_ahead(void **state)
{
    (void)state;
    net n = net_open(HOPS, 1, SAW_DEVICE_CPU, causal_lstm_record);
    saw_tensor mix = saw_run_named(n.run, "mix"), y = saw_run_named(n.run, "stem1");
    float *before = malloc(SAMPLES * sizeof *before);
    for (int at = 5 * HOP; at < SAMPLES; at += 9 * HOP) {
        for (int changed = 0; changed < 2; changed++) {
            saw_run_reset(n.run);
            for (int64_t k = 0; k < BATCH * CHANNELS * SAMPLES; k++)
                ((float *)mix.data)[k] =
                    input(k / SAMPLES, k % SAMPLES) + (changed && k == at ? 1 : 0);
            assert_int_equal(saw_run_execute(n.run), SAW_OK);
            if (!changed)
                memcpy(before, y.data, SAMPLES * sizeof *before);
        }
        const float *after = y.data;
        assert_memory_equal(before, after, (size_t)at * sizeof *before);
        int first = at;
        while (first < SAMPLES && after[first] == before[first])
            first++;
        assert_true(first < at + N_FFT); /* and it does come through */
    }
    free(before);
    net_close(&n);
}

/* Frames are those of the plain transform of the signal behind zeros; without a mask the signal
 * comes back, later. */
static void transforms(void **state)
{
    (void)state;
    net n = net_open(HOPS, 1, SAW_DEVICE_REF64, record_transforms);
    int64_t delay = causal_lstm_delay_samples(&options), bins = N_FFT / 2 + 1;
    double *out = calloc(ALL, sizeof *out);
    process(&n, 1, out);
    double error = 0, energy = 0;
    for (int64_t r = 0; r < BATCH * CHANNELS; r++)
        for (int64_t i = 0; i < SAMPLES; i++) {
            double d = out[r * SAMPLES + i] - (double)input(r, i - delay);
            error += d * d;
            energy += out[r * SAMPLES + i] * out[r * SAMPLES + i];
        }
    assert_true(error < 1e-26 * energy);
    saw_tensor spectrum = saw_run_named(n.run, "spectrum");
    for (int64_t r = 0; r < BATCH * CHANNELS; r++)
        for (int64_t t = 0; t < HOPS; t++)
            for (int64_t k = 0; k < bins; k++) {
                double re = 0, im = 0;
                for (int i = 0; i < N_FFT; i++) {
                    double w = 0.5 - 0.5 * cos(2 * M_PI * i / N_FFT),
                           p = -2 * M_PI * (double)(k * i) / N_FFT;
                    double v = w * (double)input(r, t * HOP - delay + i);
                    re += v * cos(p);
                    im += v * sin(p);
                }
                int64_t at = (((r / CHANNELS * HOPS + t) * bins + k) * CHANNELS + r % CHANNELS) * 2;
                assert_true(fabs(number(&spectrum, at) - re) < 1e-12);
                assert_true(fabs(number(&spectrum, at + 1) - im) < 1e-12);
            }
    free(out);
    net_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_block_gives_the_same_bits),
        cmocka_unit_test(reset_starts_again),
        cmocka_unit_test(nothing_looks_ahead),
        cmocka_unit_test(transforms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
