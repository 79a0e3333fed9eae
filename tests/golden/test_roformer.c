/* test_roformer.c - the RoFormer cases of the compact golden set: outputs, stages, gradients. */
#include "support/golden.h"
#include "support/test.h"

static const golden_case cases[] = {
    {"bs_roformer_stereo2", "bs_roformer", "model"},
    {"bs_roformer_mono_skip", "bs_roformer", "model"},
    {"bs_roformer_pope", "bs_roformer", "model"},
    {"mel_band_roformer_stereo1", "mel_band_roformer", "model"},
    {"mel_band_roformer_mono2", "mel_band_roformer", "model"},
};
enum { CASES = sizeof cases / sizeof *cases };

static void outputs_ref64(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        golden_check_outputs(&cases[i], SAW_DEVICE_REF64);
}

static void outputs_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        golden_check_outputs(&cases[i], SAW_DEVICE_CPU);
}

static void gradients_ref64(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        golden_check_gradients(&cases[i], SAW_DEVICE_REF64);
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
        cmocka_unit_test(outputs_ref64),
        cmocka_unit_test(outputs_cpu),
        cmocka_unit_test(gradients_ref64),
        cmocka_unit_test(gradients_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
