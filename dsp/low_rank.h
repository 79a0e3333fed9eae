/*
 * low_rank.h - the largest singular values of a matrix with their vectors.
 */
#ifndef SAW_LOW_RANK_H
#define SAW_LOW_RANK_H

#include "base/base.h"

/**
 * w [rows, columns] ~ sum over i < rank of s[i] u[i] v[i]^T: s[rank], largest first, u [rank, rows]
 * and v [rank, columns] orthonormal. Found by subspace iteration on the smaller Gram matrix; it
 * ends when the residuals are below 1e-13 of the largest, or after so many sweeps (the result is
 * then approximate). What is beyond the rank of w is zeros. The same bits in every call.
 */
saw_status saw_low_rank(saw_context *ctx, const float *w, int64_t rows, int64_t columns, int rank,
                        int sweeps, double *s, double *u, double *v);

#endif
