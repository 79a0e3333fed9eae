/*
 * product.h - how ops call the packed matrix product on rows of a walk.
 */
#ifndef SAW_PRODUCT_H
#define SAW_PRODUCT_H

#include "kernels/kernel.h"
#include "kernels/simd/simd.h"

static inline saw_dtype product_dtype(int precision)
{
    return precision == SAW_PRECISION_BF16   ? SAW_BF16
           : precision == SAW_PRECISION_INT8 ? SAW_I8
                                             : SAW_F32;
}

static inline size_t product_scratch(const saw_call *c)
{
    (void)c;
    return SAW_GEMM_SCRATCH_BYTES;
}

/** One step of a walk over x (tensor 0) and y (tensor 1): y = x w^T + bias, added to y where output
 * 0 is added to. bias may be NULL. */
static inline void product_rows(const saw_call *c, const saw_walk *w, const saw_packed *weights,
                                const float *bias)
{
    c->simd->gemm(&(saw_gemm){.dtype = product_dtype(weights->precision),
                              .m = w->rows,
                              .n = weights->rows,
                              .k = weights->inner,
                              .a = SAW_ROW(const float, *w, 0, 0),
                              .a_stride = w->stride[0],
                              .b = weights->data,
                              .c = SAW_ROW(float, *w, 1, 0),
                              .c_stride = w->stride[1],
                              .bias = bias,
                              .accumulate = saw_adds(c, 0),
                              .scratch = c->scratch});
}

#endif
