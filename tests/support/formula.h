/*
 * formula.h - numbers that tests and golden data make from a name (tests/golden/README.md,
 * "Formulas").
 */
#ifndef SAW_TEST_FORMULA_H
#define SAW_TEST_FORMULA_H

#include <stdint.h>

/** Value number i of name, in [-1, 1). */
double test_value(const char *name, int64_t i);
/** Sample i of channel c of the golden input, with key prefix P ("" normally). */
float test_input(const char *prefix, int c, int64_t i, int sample_rate);

#endif
