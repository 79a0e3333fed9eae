/*
 * npy.h - read the .npy and .npz files that numpy writes, for tests.
 */
#ifndef SAW_TEST_NPY_H
#define SAW_TEST_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** One array, C order whatever the order in the file. A complex array has a last axis of 2: re, im.
 */
typedef struct npy {
    int ndim;
    int64_t dims[9];
    int64_t count; /* product of dims, 1 for a scalar */
    char kind;  /* numpy's: 'f' float, 'i' integer, 'u' unsigned, 'b' bool (complex reads as 'f') */
    int bytes;  /* of one element */
    void *data; /* count elements of that kind */
    float *f32; /* owned by the two accessors below */
    double *f64;
} npy;

/** Read one .npy file. NULL, with a line on stderr, when that fails. */
npy *npy_load(const char *path);
void npy_free(npy *a);
/** The values converted once; valid as long as the array. */
const float *npy_f32(npy *a);
const double *npy_f64(npy *a);

/** An .npz file, compressed or not. Its arrays are read when asked for, and live until npz_close.
 */
typedef struct npz npz;
npz *npz_open(const char *path);
void npz_close(npz *z);
/** Array by name (without ".npy"); NULL when there is none or it cannot be read. */
npy *npz_get(npz *z, const char *name);
int npz_count(const npz *z);
/** Name of array i, without ".npy". */
const char *npz_name(const npz *z, int i);

#endif
