/*
 * test.h - what every test includes: cmocka with its needed headers, folders for files, error in
 * dB.
 */
#ifndef SAW_TEST_H
#define SAW_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

/** A fresh folder under $TMPDIR or /tmp; the caller removes it with test_remove_folder, which frees
 * the name. */
char *test_temp_folder(void);
void test_remove_folder(char *path);
/** The same, and the test works in it; out of it again, which removes it and frees the name. */
char *test_enter_folder(void);
void test_leave_folder(char *path);

/** Relative L2 error of got against want: |got - want| / |want|; 0 when both are all zero. */
double test_relative_l2(const float *got, const float *want, size_t n);
/** 10 log10(|want|^2 / |got - want|^2); 999 when equal. */
double test_snr_db(const float *got, const float *want, size_t n);

#endif
