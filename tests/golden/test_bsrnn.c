/* test_bsrnn.c - the BSRNN cases of the compact golden set: outputs, stages, gradients. */
#include "support/golden.h"
#include "support/formula.h"
#include "support/npy.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>

static const golden_case cases[] = {
    {"bsrnn_amanteur", "bsrnn_amanteur", "model"},
    {"bsrnn_amanteur_mono_gru", "bsrnn_amanteur", "model"},
    {"bsrnn_crlandsc", "bsrnn_crlandsc", "model"},
};
/* Channels are their batch: the stages lie in another order than the golden ones, and only outputs
 * are compared. */
static const golden_case batched[] = {{"bsrnn_magron", "bsrnn", ""},
                                      {"bsrnn_magron_opt", "bsrnn", ""}};
enum { CASES = sizeof cases / sizeof *cases, BATCHED = sizeof batched / sizeof *batched };

static double relative(double got, double want, double scale)
{
    return fabs(got - want) / scale;
}

/* Worst error of the rows of stem 0: ends sample by sample, norm and probe over the whole. */
static double worst_row(golden_model *m, saw_run *run)
{
    saw_tensor y = saw_run_named(run, "stem0");
    const float *first = npy_f32(npz_get(m->npz, "out_first")),
                *last = npy_f32(npz_get(m->npz, "out_last"));
    const double *l2 = npy_f64(npz_get(m->npz, "out_l2")),
                 *probe = npy_f64(npz_get(m->npz, "out_probe"));
    double worst = 0;
    for (int r = 0; r < m->channels; r++) {
        char name[32];
        snprintf(name, sizeof name, "probe.output.%d", r);
        double error = 0, ends = 0, energy = 0, sum = 0;
        for (int64_t i = 0, n = y.dims[2]; i < n; i++) {
            int64_t at = r * n + i;
            double v = y.dtype == SAW_F64 ? ((double *)y.data)[at] : (double)((float *)y.data)[at];
            energy += v * v;
            sum += v * test_value(name, i);
            if (i >= 256 && i < n - 256)
                continue;
            double want = i < 256 ? first[r * 256 + i] : last[r * 256 + i - (n - 256)];
            error += (v - want) * (v - want);
            ends += want * want;
        }
        worst = fmax(worst, sqrt(error / ends));
        worst = fmax(worst, relative(sqrt(energy), l2[1 + r], l2[1 + r]));
        worst = fmax(worst, relative(sum, probe[r], l2[0]));
    }
    return worst;
}

static void check_batched(const golden_case *c, saw_device device)
{
    golden_model *m = golden_open(c, 2);
    saw_program *p;
    saw_run *run;
    if (saw_program_build(golden_record(m, false), &(saw_program_options){.device = device}, &p) ||
        saw_run_open(p, m->weights, &run))
        fail_msg("%s: %s", c->name, saw_context_error(m->ctx));
    golden_fill(m, run);
    assert_int_equal(saw_run_execute(run), SAW_OK);
    double error = worst_row(m, run);
    printf("%-28s device %d output %.1e\n", c->name, device, error);
    assert_true(error < 1e-5);
    saw_run_close(run);
    saw_program_close(p);
    golden_close(m);
}

static void check_outputs(saw_device device)
{
    for (int i = 0; i < CASES; i++)
        golden_check_outputs(&cases[i], device);
    for (int i = 0; i < BATCHED; i++)
        check_batched(&batched[i], device);
}

static void outputs_ref64(void **state)
{
    (void)state;
    check_outputs(SAW_DEVICE_REF64);
}

static void outputs_ref32(void **state)
{
    (void)state;
    check_outputs(SAW_DEVICE_REF32);
}

static void outputs_cpu(void **state)
{
    (void)state;
    check_outputs(SAW_DEVICE_CPU);
}

static void gradients_ref64(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        golden_check_gradients(&cases[i], SAW_DEVICE_REF64);
    for (int i = 0; i < BATCHED; i++)
        golden_check_gradients(&batched[i], SAW_DEVICE_REF64);
}

static void gradients_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        golden_check_gradients(&cases[i], SAW_DEVICE_CPU);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_ref64), cmocka_unit_test(outputs_ref32),
        cmocka_unit_test(outputs_cpu),   cmocka_unit_test(gradients_ref64),
        cmocka_unit_test(gradients_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
