/* test_bsrnn.c - the BSRNN cases of the compact golden set: outputs, stages,
 * gradients. */
#include "support/golden.h"
#include "support/test.h"

static const golden_case cases[] = {
    {"bsrnn_magron", "bsrnn", ""},
    {"bsrnn_magron_opt", "bsrnn", ""},
    {"bsrnn_amanteur", "bsrnn_amanteur", "model"},
    {"bsrnn_amanteur_mono_gru", "bsrnn_amanteur", "model"},
    {"bsrnn_crlandsc", "bsrnn_crlandsc", "model"},
};
enum { CASES = sizeof cases / sizeof *cases };

static void outputs_ref64(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++)
    golden_check_outputs(&cases[i], SAW_DEVICE_REF64);
}

static void outputs_ref32(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++)
    golden_check_outputs(&cases[i], SAW_DEVICE_REF32);
}

static void outputs_cpu(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++)
    golden_check_outputs(&cases[i], SAW_DEVICE_CPU);
}

static void gradients_ref64(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++)
    golden_check_gradients(&cases[i], SAW_DEVICE_REF64);
}

static void gradients_cpu(void **state) {
  (void)state;
  for (int i = 0; i < CASES; i++)
    golden_check_gradients(&cases[i], SAW_DEVICE_CPU);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(outputs_ref64), cmocka_unit_test(outputs_ref32),
      cmocka_unit_test(outputs_cpu),   cmocka_unit_test(gradients_ref64),
      cmocka_unit_test(gradients_cpu),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
