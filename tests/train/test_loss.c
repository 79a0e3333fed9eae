/*
 * test_loss.c - every loss against its formula in double, spectra by a plain sum over samples; its
 * gradient against differences; the sum that a recipe asks for, and what it refuses; silence,
 * perfect estimates and batches of one; equal bits for any number of threads.
 */
#include "nn/loss.h"

#include "core/program.h"
#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- signals and a run ----------------------------------------------------------------------- */

typedef struct signals {
    int64_t batch, channels, samples;
    int stems;
    float *y, *target; /* [S,B,C,N], [B,S,C,N] */
} signals;

static int64_t count_of(const signals *s)
{
    return s->stems * s->batch * s->channels * s->samples;
}

static signals signals_of(int64_t batch, int stems, int64_t channels, int64_t samples)
{
    signals s = {.batch = batch, .stems = stems, .channels = channels, .samples = samples};
    size_t n = (size_t)count_of(&s);
    s.y = malloc(n * sizeof *s.y);
    s.target = malloc(n * sizeof *s.target);
    for (size_t i = 0; i < n; i++) {
        s.y[i] = (float)(0.3 * test_value("estimate", (int64_t)i));
        s.target[i] = (float)(0.2 * test_value("target", (int64_t)i));
    }
    return s;
}

static void free_signals(signals *s)
{
    free(s->y);
    free(s->target);
}

static float *y_row(const signals *s, int stem, int64_t b, int64_t c)
{
    return s->y + ((stem * s->batch + b) * s->channels + c) * s->samples;
}

static float *target_row(const signals *s, int stem, int64_t b, int64_t c)
{
    return s->target + ((b * s->stems + stem) * s->channels + c) * s->samples;
}

typedef struct outcome {
    double loss, term[NN_LOSS_TERMS];
    double *gradient; /* like y */
} outcome;

static double get(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((double *)t->data)[i] : ((float *)t->data)[i];
}

static void set(const saw_tensor *t, int64_t i, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

/* The losses of text and their gradient by y, which is y + step * direction (NULL: y). */
static outcome run_loss(const char *text, const signals *s, saw_device device, int threads,
                        double step, const double *direction)
{
    saw_context *ctx;
    saw_graph *g;
    saw_weights *w;
    saw_program *p;
    saw_run *run;
    nn_loss_term terms[NN_LOSS_TERMS];
    int n;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = threads}), SAW_OK);
    if (nn_loss_parse(ctx, text, terms, &n))
        fail_msg("%s", saw_context_error(ctx));
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    assert_int_equal(saw_weights_open(ctx, NULL, &w), SAW_OK);
    int64_t each = count_of(s) / s->stems;
    saw_dims dims = SAW_DIMS(s->batch, s->channels, s->samples);
    float *zeros = calloc((size_t)each, sizeof *zeros);
    saw_val y[8];
    for (int i = 0; i < s->stems; i++) {
        char input[32], shift[32];
        snprintf(input, sizeof input, "y%d", i);
        snprintf(shift, sizeof shift, "shift%d", i);
        y[i] = saw_add(g, saw_input(g, input, dims), saw_param(g, shift, dims));
        assert_int_equal(saw_weights_set(w, shift, dims, zeros), SAW_OK);
    }
    free(zeros);
    saw_val target = saw_input(g, "target", SAW_DIMS(s->batch, s->stems, s->channels, s->samples));
    saw_val loss = nn_loss(g, terms, n, s->stems, y, target);
    assert_int_equal(saw_graph_train(g, "shift*"), s->stems);
    saw_graph_differentiate(g, loss);
    if (saw_program_build(g, &(saw_program_options){.device = device}, &p) ||
        saw_run_open(p, w, &run))
        fail_msg("%s: %s", text, saw_context_error(ctx));
    saw_tensor t = saw_run_named(run, "target");
    for (int64_t i = 0; i < count_of(s); i++)
        set(&t, i, (double)s->target[i]);
    for (int j = 0; j < s->stems; j++) {
        char name[16];
        snprintf(name, sizeof name, "y%d", j);
        t = saw_run_named(run, name);
        for (int64_t i = 0; i < each; i++)
            set(&t, i,
                (double)s->y[j * each + i] + (direction ? step * direction[j * each + i] : 0));
    }
    t = saw_run_named(run, "gradient of the loss");
    set(&t, 0, 1);
    assert_int_equal(saw_run_execute(run), SAW_OK);
    outcome o = {.gradient = malloc((size_t)count_of(s) * sizeof(double))};
    t = saw_run_named(run, "loss");
    o.loss = get(&t, 0);
    for (int i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "loss.%s", nn_loss_name(terms[i].row));
        t = saw_run_named(run, name);
        o.term[i] = get(&t, 0);
    }
    const saw_range *ranges;
    assert_int_equal(saw_program_ranges(p, &ranges), s->stems);
    t = saw_run_gradients(run);
    for (int j = 0; j < s->stems; j++)
        for (int64_t i = 0; i < each; i++)
            o.gradient[j * each + i] = get(&t, ranges[j].first + i);
    saw_run_close(run);
    saw_program_close(p);
    saw_weights_close(w);
    saw_context_close(ctx);
    return o;
}

/* ---- the formulas again ---------------------------------------------------------------------- */

enum { WINDOWS = 5 };
typedef struct formula {
    const char *text, *name;
    double (*of)(const struct formula *f, const signals *s, int stem, int64_t item);
    double eps;
    int windows[WINDOWS], n_fft, hop; /* windows end with 0 */
    bool zeros;                       /* padding */
} formula;

/* The spectrum of frame t of x: n_fft / 2 + 1 pairs. */
static void spectrum_of(const double *x, int64_t samples, int64_t t, int hop, int n_fft, int window,
                        bool zeros, double *z)
{
    double *frame = calloc((size_t)n_fft, sizeof *frame);
    for (int i = 0; i < window; i++) {
        int64_t at = t * hop - n_fft / 2 + (n_fft - window) / 2 + i;
        bool outside = at < 0 || at >= samples;
        at = at < 0 ? -at : at >= samples ? 2 * (samples - 1) - at : at;
        double w = 0.5 - 0.5 * cos(2 * M_PI * i / window);
        frame[(n_fft - window) / 2 + i] = outside && zeros ? 0 : w * x[at];
    }
    double *turn = malloc(2 * (size_t)n_fft * sizeof *turn);
    for (int i = 0; i < n_fft; i++) {
        turn[2 * i] = cos(2 * M_PI * i / n_fft);
        turn[2 * i + 1] = -sin(2 * M_PI * i / n_fft);
    }
    for (int64_t k = 0; k <= n_fft / 2; k++) {
        z[2 * k] = z[2 * k + 1] = 0;
        for (int64_t i = 0; i < n_fft; i++) {
            z[2 * k] += frame[i] * turn[2 * (k * i % n_fft)];
            z[2 * k + 1] += frame[i] * turn[2 * (k * i % n_fft) + 1];
        }
    }
    free(turn);
    free(frame);
}

typedef double measure(double re, double im);
static double modulus(double re, double im)
{
    return sqrt(re * re + im * im);
}
static double sizes(double re, double im)
{
    return (fabs(re) + fabs(im)) / 2;
}
static double squares(double re, double im)
{
    return (re * re + im * im) / 2;
}

/* Mean over channels, frames and bins of a measure of the spectrum of a y + b target. */
static double spectral_mean(const formula *f, int window, const signals *s, int stem, int64_t item,
                            double a, double b, measure *of)
{
    int n_fft = window > f->n_fft ? window : f->n_fft;
    int64_t frames = s->samples / f->hop + 1;
    double *x = malloc((size_t)s->samples * sizeof *x), *z = malloc((n_fft + 2) * sizeof *z),
           sum = 0;
    for (int64_t c = 0; c < s->channels; c++) {
        for (int64_t i = 0; i < s->samples; i++)
            x[i] = a * (double)y_row(s, stem, item, c)[i] +
                   b * (double)target_row(s, stem, item, c)[i];
        for (int64_t t = 0; t < frames; t++) {
            spectrum_of(x, s->samples, t, f->hop, n_fft, window, f->zeros, z);
            for (int k = 0; k <= n_fft / 2; k++)
                sum += of(z[2 * k], z[2 * k + 1]);
        }
    }
    free(x);
    free(z);
    return sum / (double)(s->channels * frames * (n_fft / 2 + 1));
}

static double over_windows(const formula *f, const signals *s, int stem, int64_t item, measure *of)
{
    double sum = 0;
    for (int i = 0; i < WINDOWS && f->windows[i]; i++)
        sum += spectral_mean(f, f->windows[i], s, stem, item, 1, -1, of);
    return sum;
}

static double of_modulus(const formula *f, const signals *s, int stem, int64_t item)
{
    return over_windows(f, s, stem, item, modulus);
}

static double of_parts(const formula *f, const signals *s, int stem, int64_t item)
{
    return over_windows(f, s, stem, item, sizes);
}

static double of_squares(const formula *f, const signals *s, int stem, int64_t item)
{
    return over_windows(f, s, stem, item, squares);
}

static double of_l1snr_spectrum(const formula *f, const signals *s, int stem, int64_t item)
{
    double energy = 0; /* of the window, by the square root of which the spectrum is divided */
    for (int i = 0; i < f->n_fft; i++)
        energy += pow(0.5 - 0.5 * cos(2 * M_PI * i / f->n_fft), 2);
    double error = spectral_mean(f, f->n_fft, s, stem, item, 1, -1, sizes) / sqrt(energy),
           size = spectral_mean(f, f->n_fft, s, stem, item, 0, 1, sizes) / sqrt(energy);
    return -20 * log10((size + f->eps) / (error + f->eps));
}

/* Mean of |a y + b target|^power. */
static double mean_power(const signals *s, int stem, int64_t item, double a, double b, double power)
{
    double sum = 0;
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t i = 0; i < s->samples; i++)
            sum += pow(fabs(a * (double)y_row(s, stem, item, c)[i] +
                            b * (double)target_row(s, stem, item, c)[i]),
                       power);
    return sum / (double)(s->channels * s->samples);
}

static double of_l1(const formula *f, const signals *s, int stem, int64_t item)
{
    (void)f;
    return mean_power(s, stem, item, 1, -1, 1);
}

static double of_l2(const formula *f, const signals *s, int stem, int64_t item)
{
    (void)f;
    return mean_power(s, stem, item, 1, -1, 2);
}

static double of_snr(const formula *f, const signals *s, int stem, int64_t item)
{
    return -10 * log10((mean_power(s, stem, item, 0, 1, 2) + f->eps) /
                       (mean_power(s, stem, item, 1, -1, 2) + f->eps));
}

static double of_l1snr(const formula *f, const signals *s, int stem, int64_t item)
{
    return -20 * log10((mean_power(s, stem, item, 0, 1, 1) + f->eps) /
                       (mean_power(s, stem, item, 1, -1, 1) + f->eps));
}

static double of_si_sdr(const formula *f, const signals *s, int stem, int64_t item)
{
    double product = 0;
    for (int64_t c = 0; c < s->channels; c++)
        for (int64_t i = 0; i < s->samples; i++)
            product += (double)y_row(s, stem, item, c)[i] * (double)target_row(s, stem, item, c)[i];
    product /= (double)(s->channels * s->samples);
    double a = product / (mean_power(s, stem, item, 0, 1, 2) + f->eps);
    return -10 * log10((mean_power(s, stem, item, 0, a, 2) + f->eps) /
                       (mean_power(s, stem, item, 1, -a, 2) + f->eps));
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile 0.8 of the squares, interpolated as numpy and torch do; what is above it is left out. */
static double of_masked(const formula *f, const signals *s, int stem, int64_t item)
{
    (void)f;
    int64_t n = s->channels * s->samples;
    double *e = malloc((size_t)n * sizeof *e), sum = 0;
    const float *y = y_row(s, stem, item, 0), *target = target_row(s, stem, item, 0);
    for (int64_t i = 0; i < n; i++)
        e[i] = pow((double)y[i] - (double)target[i], 2);
    qsort(e, (size_t)n, sizeof *e, rising);
    double at = 0.8 * (double)(n - 1), part = at - floor(at);
    int64_t k = (int64_t)at;
    double quantile = e[k] + part * (e[k + 1] - e[k]);
    for (int64_t i = 0; i < n; i++)
        sum += e[i] <= quantile ? e[i] : 0;
    free(e);
    return sum / (double)n;
}

static const formula formulas[] = {
    {"l1", "l1", .of = of_l1},
    {"l2", "l2", .of = of_l2},
    {"l1_spectrum(n_fft=128,hop=50)", "l1_spectrum", .of = of_parts, .windows = {128}, .hop = 50},
    {"l2_spectrum ( n_fft = 64 , hop = 33 )", "l2_spectrum", .of = of_squares, .windows = {64},
     .hop = 33},
    {"mrstft(windows=200:128:31, n_fft=64, hop=21)", "mrstft", .of = of_modulus,
     .windows = {200, 128, 31}, .n_fft = 64, .hop = 21},
    {"mrstft_parts(windows=16:90, n_fft=32, hop=21)", "mrstft_parts", .of = of_parts,
     .windows = {16, 90}, .n_fft = 32, .hop = 21},
    {"snr", "snr", .of = of_snr, .eps = 1e-8},
    {"si_sdr(eps=1e-3)", "si_sdr", .of = of_si_sdr, .eps = 1e-3},
    {"l1snr", "l1snr", .of = of_l1snr, .eps = 1e-3},
    {"l1snr_spectrum(n_fft=64,hop=20,eps=1e-2)", "l1snr_spectrum", .of = of_l1snr_spectrum,
     .eps = 1e-2, .n_fft = 64, .hop = 20, .zeros = true},
    {"masked(q=0.8)", "masked", .of = of_masked},
};
enum { FORMULAS = sizeof formulas / sizeof *formulas };

static double expected(const formula *f, const signals *s)
{
    double sum = 0;
    for (int stem = 0; stem < s->stems; stem++)
        for (int64_t b = 0; b < s->batch; b++)
            sum += f->of(f, s, stem, b);
    return sum / (double)(s->stems * s->batch);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void expect_near(const char *what, double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("%s: %.15g, not %.15g", what, got, want);
}

static void test_formulas(void **state)
{
    (void)state;
    signals s = signals_of(2, 3, 2, 407);
    for (int i = 0; nn_loss_at(i); i++) {
        int j = 0;
        while (j < FORMULAS && strcmp(formulas[j].name, nn_loss_name(nn_loss_at(i))))
            j++;
        if (j == FORMULAS)
            fail_msg("the loss %s has no formula here", nn_loss_name(nn_loss_at(i)));
        double want = expected(&formulas[j], &s);
        outcome exact = run_loss(formulas[j].text, &s, SAW_DEVICE_REF64, 1, 0, NULL),
                fast = run_loss(formulas[j].text, &s, SAW_DEVICE_CPU, 2, 0, NULL);
        expect_near(formulas[j].text, exact.loss, want, 1e-11);
        expect_near(formulas[j].text, fast.loss, want, 2e-6);
        for (int64_t k = 0; k < count_of(&s); k++)
            if (!(fabs(fast.gradient[k] - exact.gradient[k]) <=
                  1e-3 * fabs(exact.gradient[k]) + 1e-6))
                fail_msg("%s: gradient %lld is %g, in double %g", formulas[j].text, (long long)k,
                         fast.gradient[k], exact.gradient[k]);
        free(exact.gradient);
        free(fast.gradient);
    }
    free_signals(&s);
}

/* The defaults are those of the RoFormer trainers. */
static void test_defaults(void **state)
{
    (void)state;
    signals s = signals_of(1, 1, 1, 2300);
    const formula trainers = {
        .of = of_modulus, .windows = {4096, 2048, 1024, 512, 256}, .n_fft = 2048, .hop = 147};
    outcome got = run_loss("mrstft", &s, SAW_DEVICE_REF64, 1, 0, NULL);
    expect_near("mrstft", got.loss, expected(&trainers, &s), 1e-11);
    free(got.gradient);
    free_signals(&s);
}

/* Several blocks of samples; frames lie in the middle of both sides of a border, and on it. */
static void test_blocks(void **state)
{
    (void)state;
    signals s = signals_of(1, 1, 1, 132000);
    const formula f = {.of = of_modulus, .windows = {256, 64}, .n_fft = 128, .hop = 1000};
    outcome got =
        run_loss("mrstft(windows=256:64,n_fft=128,hop=1000)", &s, SAW_DEVICE_REF64, 1, 0, NULL);
    expect_near("blocks", got.loss, expected(&f, &s), 1e-11);
    free(got.gradient);
    free_signals(&s);
}

static void expect_gradient(const char *text, const signals *s)
{
    const double h = 1e-5;
    int64_t n = count_of(s);
    double *direction = calloc((size_t)n, sizeof *direction), got = 0, size_g = 0, size_d = 0;
    for (int64_t i = 0; i < n; i++)
        direction[i] = 0.1 * test_value("direction", i);
    outcome at = run_loss(text, s, SAW_DEVICE_REF64, 2, 0, NULL),
            up = run_loss(text, s, SAW_DEVICE_REF64, 2, h, direction),
            down = run_loss(text, s, SAW_DEVICE_REF64, 2, -h, direction);
    for (int64_t i = 0; i < n; i++) {
        got += at.gradient[i] * direction[i];
        size_g += at.gradient[i] * at.gradient[i];
        size_d += direction[i] * direction[i];
    }
    double want = (up.loss - down.loss) / (2 * h);
    if (!(fabs(got - want) <= 1e-7 * (fabs(want) + sqrt(size_g * size_d / (double)n))))
        fail_msg("%s: the gradient along a direction is %.12g, differences say %.12g", text, got,
                 want);
    free(direction);
    free(at.gradient);
    free(up.gradient);
    free(down.gradient);
}

/* Whole losses, of several stems, items and (the last) blocks of samples. */
static void test_gradients(void **state)
{
    (void)state;
    signals s = signals_of(2, 3, 2, 407);
    for (int j = 0; j < FORMULAS; j++)
        expect_gradient(formulas[j].text, &s);
    expect_gradient("l1*0.5 + mrstft(windows=64:32,n_fft=64,hop=20)*2e-1+snr", &s);
    free_signals(&s);
    s = signals_of(1, 1, 1, 140001);
    expect_gradient("mrstft(windows=4096:512, n_fft=1024, hop=1500)", &s);
    free_signals(&s);
}

static void test_sum(void **state)
{
    (void)state;
    signals s = signals_of(1, 2, 2, 300);
    const char *text = " l1*0.25+ snr *1e-1 +mrstft_parts(hop=40,windows=64,n_fft=32)*.5";
    const double weights[] = {0.25, 0.1, 0.5};
    outcome all = run_loss(text, &s, SAW_DEVICE_REF64, 1, 0, NULL);
    const char *alone[] = {"l1", "snr", "mrstft_parts(windows=64,n_fft=32,hop=40)"};
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        outcome one = run_loss(alone[i], &s, SAW_DEVICE_REF64, 1, 0, NULL);
        assert_true(one.loss == all.term[i] && one.loss == one.term[0]);
        sum += weights[i] * one.loss;
        for (int64_t k = 0; k < count_of(&s); k++)
            all.gradient[k] -= weights[i] * one.gradient[k];
        free(one.gradient);
    }
    expect_near("the sum", all.loss, sum, 1e-14);
    for (int64_t k = 0; k < count_of(&s); k++)
        assert_true(fabs(all.gradient[k]) < 1e-15);
    free(all.gradient);
    free_signals(&s);
}

static void test_equal_bits(void **state)
{
    (void)state;
    signals s = signals_of(2, 1, 2, 140001);
    const char *text = "l1+mrstft(windows=4096:512,n_fft=1024,hop=1500)+masked+si_sdr";
    outcome one = run_loss(text, &s, SAW_DEVICE_CPU, 1, 0, NULL);
    for (int threads = 2; threads < 4; threads++) {
        outcome more = run_loss(text, &s, SAW_DEVICE_CPU, threads, 0, NULL);
        assert_true(more.loss == one.loss);
        assert_memory_equal(more.term, one.term, sizeof one.term);
        assert_memory_equal(more.gradient, one.gradient, (size_t)count_of(&s) * sizeof(double));
        free(more.gradient);
    }
    free(one.gradient);
    free_signals(&s);
}

static void expect_finite(const char *what, const outcome *o, int64_t n)
{
    bool finite = isfinite(o->loss);
    for (int64_t i = 0; i < n; i++)
        finite = finite && isfinite(o->gradient[i]);
    if (!finite)
        fail_msg("%s: the loss %g or its gradient is not finite", what, o->loss);
}

static void test_silence_and_perfection(void **state)
{
    (void)state;
    for (int j = 0; j < FORMULAS; j++)
        for (int silent = 0; silent < 4; silent++) /* bit 0: target, bit 1: estimate */
            for (saw_device on = SAW_DEVICE_CPU; on <= SAW_DEVICE_REF64; on++) {
                signals s = signals_of(1, 2, 1, 300);
                int64_t n = count_of(&s);
                if (silent & 1)
                    memset(s.target, 0, (size_t)n * sizeof(float));
                if (silent & 2)
                    memset(s.y, 0, (size_t)n * sizeof(float));
                outcome o = run_loss(formulas[j].text, &s, on, 1, 0, NULL);
                expect_finite(formulas[j].text, &o, n);
                free(o.gradient);
                memcpy(s.y, s.target, (size_t)n * sizeof(float)); /* batch 1: the same layout */
                o = run_loss(formulas[j].text, &s, on, 1, 0, NULL);
                expect_finite(formulas[j].text, &o, n);
                /* the best value of a loss is flat, but for si_sdr's eps */
                for (int64_t i = 0; i < n; i++)
                    if (fabs(o.gradient[i]) > (strstr(formulas[j].text, "si_sdr") ? 1 : 0))
                        fail_msg("%s: y is the target, but gradient %lld is %g", formulas[j].text,
                                 (long long)i, o.gradient[i]);
                free(o.gradient);
                free_signals(&s);
            }
}

/* A loud estimate of a silent stem is pushed down, whatever the loss. */
static void test_silent_target_pulls_to_silence(void **state)
{
    (void)state;
    for (int j = 0; j < FORMULAS; j++) {
        signals s = signals_of(1, 1, 1, 300);
        memset(s.target, 0, (size_t)count_of(&s) * sizeof(float));
        outcome o = run_loss(formulas[j].text, &s, SAW_DEVICE_CPU, 1, 0, NULL);
        double along = 0;
        for (int64_t i = 0; i < count_of(&s); i++)
            along += o.gradient[i] * (double)s.y[i];
        if (!(along > 0))
            fail_msg("%s: the gradient along y is %g", formulas[j].text, along);
        free(o.gradient);
        free_signals(&s);
    }
}

static double loss_of(const char *text, const signals *s)
{
    outcome o = run_loss(text, s, SAW_DEVICE_REF64, 1, 0, NULL);
    free(o.gradient);
    return o.loss;
}

static void test_masked(void **state)
{
    (void)state;
    signals one = signals_of(1, 1, 2, 50);
    assert_true(loss_of("masked(coarse=1)", &one) == loss_of("l2", &one)); /* not 0 */
    assert_true(loss_of("masked(coarse=1,power=1)", &one) == loss_of("l1", &one));
    expect_near("q = 1", loss_of("masked(q=1)", &one), loss_of("l2", &one), 1e-15);
    free_signals(&one);
    signals four = signals_of(4, 1, 1, 10);
    for (int64_t b = 0; b < 4; b++)
        for (int64_t i = 0; i < 10; i++) {
            target_row(&four, 0, b, 0)[i] = 1;
            y_row(&four, 0, b, 0)[i] = (float)(b == 1 ? 9 : 2 + b); /* errors 1, 8, 3, 4 */
        }
    expect_near("the worst of four left out", loss_of("masked(coarse=1,power=1,q=0.9)", &four),
                (1 + 3 + 4) / 4.0, 1e-15);
    expect_near("of equal errors none", loss_of("masked(power=1,q=0.5)", &four),
                (1 + 8 + 3 + 4) / 4.0, 1e-15);
    free_signals(&four);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
    } wrong[] = {
        {"mrsfft", "there is no loss \"mrsfft\"; did you mean \"mrstft\"?"},
        {"l1+perceptual", "there is no loss \"perceptual\"; known are l1, l2, l1_spectrum"},
        {"", "the name of a loss is missing"},
        {"l1+", "the name of a loss is missing"},
        {"l1 l2", "cannot read \"l2\""},
        {"l1*", "a number is missing"},
        {"l1*x", "a number is missing before \"x\""},
        {"l1*-1", "a number is missing before \"-1\""},
        {"l1*1e", "a number is missing"},
        {"l1*0x10", "cannot read \"x10\""},
        {"l1*1111111111111111111111111111111111111111", "a number has more than 31 letters"},
        {"l1+l2+l1", "l1 is there twice"},
        {"l1(q=1)", "there is no option of l1 \"q\"; known are none"},
        {"mrstft(window=512)",
         "there is no option of mrstft \"window\"; did you mean \"windows\"?"},
        {"mrstft(hop)", "the option hop has no value"},
        {"mrstft(hop=)", "a number is missing"},
        {"mrstft(hop=10", "\")\" is missing"},
        {"mrstft(hop=10:20)", "the option hop takes no more than 1 numbers"},
        {"mrstft(hop=0)", "the option hop takes whole numbers from 1 to 65536"},
        {"mrstft(hop=1.5)", "the option hop takes whole numbers"},
        {"mrstft(windows=1:2:3)", "the option windows takes whole numbers from 2 to 65536"},
        {"mrstft(windows=2:2:2:2:2:2:2:2:2)", "takes no more than 8 numbers"},
        {"masked(q=1.5)", "the option q takes numbers from 1e-06 to 1"},
        {"masked(power=3)", "the option power takes whole numbers from 1 to 2"},
        {"l1+l2+snr+si_sdr+l1snr+mrstft+mrstft_parts+masked+l1_spectrum", "more than 8 terms"},
    };
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        nn_loss_term terms[NN_LOSS_TERMS];
        int n;
        assert_int_equal(nn_loss_parse(ctx, wrong[i].text, terms, &n), SAW_ERR_ARGUMENT);
        if (!strstr(saw_context_error(ctx), wrong[i].says))
            fail_msg("%s: it says: %s", wrong[i].text, saw_context_error(ctx));
    }
    saw_context_close(ctx);
}

static void test_shapes_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
        saw_dims y, target;
        int stems;
    } wrong[] = {
        {"mrstft", "2048 samples are too few for a transform of 4096", SAW_DIMS(1, 2, 2048),
         SAW_DIMS(1, 1, 2, 2048), 1},
        {"l1", "the target of a loss of 2 stems is not [B,2,C,N]", SAW_DIMS(1, 2, 40),
         SAW_DIMS(1, 3, 2, 40), 2},
        {"l1", "the target of a loss of 2 stems", SAW_DIMS(1, 2, 40), SAW_DIMS(1, 2, 40), 2},
        {"l1", "needs y and a target of the same dims", SAW_DIMS(1, 2, 40), SAW_DIMS(1, 2, 2, 41),
         2},
        {"masked", "needs y and a target of the same dims", SAW_DIMS(1, 2, 40),
         SAW_DIMS(2, 2, 2, 40), 2},
        {"mrstft(windows=16,n_fft=16)", "needs y and a target of the same dims [B,C,N]",
         SAW_DIMS(1, 2, 40), SAW_DIMS(1, 1, 40), 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        saw_context *ctx;
        saw_graph *g;
        nn_loss_term terms[NN_LOSS_TERMS];
        int n;
        assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
        assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
        assert_int_equal(nn_loss_parse(ctx, wrong[i].text, terms, &n), SAW_OK);
        saw_val y[] = {saw_input(g, "y0", wrong[i].y), saw_input(g, "y1", wrong[i].y)};
        assert_int_equal(
            nn_loss(g, terms, n, wrong[i].stems, y, saw_input(g, "target", wrong[i].target)), 0);
        if (!strstr(saw_context_error(ctx), wrong[i].says))
            fail_msg("%s: it says: %s", wrong[i].text, saw_context_error(ctx));
        saw_graph_close(g);
        saw_context_close(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_equal_bits),
        cmocka_unit_test(test_silence_and_perfection),
        cmocka_unit_test(test_silent_target_pulls_to_silence),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
