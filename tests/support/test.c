#include "support/test.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

char *test_temp_folder(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/bandsaw-test-XXXXXX", base && *base ? base : "/tmp") < 0 ||
        !mkdtemp(path))
        abort();
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void test_remove_folder(char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}

char *test_enter_folder(void)
{
    char *path = test_temp_folder();
    assert_int_equal(chdir(path), 0);
    return path;
}

void test_leave_folder(char *path)
{
    assert_int_equal(chdir("/"), 0);
    test_remove_folder(path);
}

static void energies(const float *got, const float *want, size_t n, double *error, double *signal)
{
    *error = *signal = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - want[i];
        *error += d * d;
        *signal += (double)want[i] * want[i];
    }
}

double test_relative_l2(const float *got, const float *want, size_t n)
{
    double error, signal;
    energies(got, want, n, &error, &signal);
    if (error == 0)
        return 0;
    return signal == 0 ? INFINITY : sqrt(error / signal);
}

double test_snr_db(const float *got, const float *want, size_t n)
{
    double r = test_relative_l2(got, want, n);
    return r == 0 ? 999 : -20 * log10(r);
}
