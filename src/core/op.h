/*
 * op.h - what an op is, and what a kernel is called with.
 *
 * An op is one const struct in one file of kernels/. A kernel gets views of any range along the
 * axes that the op does not couple, is single-threaded, allocates nothing and checks nothing: the
 * shape rule did it. Its results do not depend on how the range was cut.
 *
 * Every op file is compiled three times (CMakeLists.txt): without SAW_REF for the struct, the
 * recorder and the CPU kernels; with SAW_REF 32 and 64 for the naive reference, where `real` is
 * float or double:
 *
 *     #ifdef SAW_REF
 *     SAW_REF_KERNEL(gelu_forward) { ... c->in[0] ... }
 *     SAW_REF_KERNEL(gelu_backward) { ... }
 *     #else
 *     const saw_op saw_op_gelu = {...};
 *     #endif
 */
#ifndef SAW_OP_H
#define SAW_OP_H

#include "core/tensor.h"

typedef struct saw_op saw_op;
typedef struct saw_call saw_call;
typedef struct saw_simd saw_simd;

/** What one call of a kernel is given. A backward call sees in = forward inputs, forward outputs,
 * gradients of the outputs (in this order; data NULL where not kept or absent) and out = gradients
 * of the inputs (data NULL where not wanted). */
struct saw_call {
    const void *attr;
    const saw_tensor *in, *out;
    int n_in, n_out;
    const struct saw_packed *const
        *packed;                  /* per input: the packed form the op asked for, else NULL */
    int64_t origin[SAW_MAX_DIMS]; /* where this range begins on each axis that is cut; else 0 */
    int64_t part, parts;          /* for ops that cut themselves: this part of so many */
    uint32_t add;                 /* see saw_adds */
    int precision;                /* saw_precision: what products are made in */
    void *scratch;                /* as many bytes as op->scratch said, 64-byte aligned */
    void *state;                  /* as many bytes as op->state said; lives from call to call */
    const saw_simd *simd;         /* CPU only */
    uint64_t seed;                /* of stochastic ops: saw_run_seed */
    int64_t entry; /* number of the entry on the tape; of a recomputed one, of the original */
};

typedef void saw_kernel(const saw_call *c);

enum { SAW_LAST_ADD_BIT = 31 }; /* outputs from this number on share the bit */
/** Is output j added to, instead of set? */
static inline bool saw_adds(const saw_call *c, int j)
{
    return c->add >> (j < SAW_LAST_ADD_BIT ? j : SAW_LAST_ADD_BIT) & 1;
}

/** Filled by a shape rule. */
typedef struct saw_shape {
    const void *attr;
    int n_in;
    const saw_dims *in; /* n == 0: absent */
    int n_out;          /* as the recorder asked */
    saw_dims *out;
    char why[256]; /* the rule's sentence when it refuses */
} saw_shape;

/** How weights of a product are wanted: dense, or packed for gemm as [rows, inner]. */
typedef enum saw_pack { SAW_PACK_NONE, SAW_PACK_GEMM } saw_pack;

/** Where a matrix [rows[0] rows[1], inner[0] inner[1] inner[2]] lies in a dense weight: strides in
 * elements. */
typedef struct saw_pack_matrix {
    int64_t first;
    int64_t rows[2], row_stride[2];
    int64_t inner[3], inner_stride[3];
} saw_pack_matrix;

/** A weight matrix [rows, inner] in the layout that the product wants. An op with a `matrix`
 * function finds its matrices one after another in data, each as simd->pack and pack_bytes say. */
typedef struct saw_packed {
    int precision; /* saw_precision of the elements */
    int64_t rows, inner;
    const void *data;
    size_t bytes;
} saw_packed;

#define SAW_ALL_AXES      0xffu
#define SAW_AXIS(i)       (1u << (i))
#define SAW_LEADING(lead) ((1u << (lead)) - 1u)

struct saw_op {
    const char *name;
    size_t attr_bytes;

    /** The only validator: output dims from input dims, or a sentence in s->why and false. */
    bool (*shape)(saw_shape *s);

    /** Axes of operand j (inputs, then outputs) that are cut along with the range; the op can be
     * cut along the axes that any output names. NULL: all but the last of every operand that is not
     * a parameter. */
    uint32_t (*axes)(const void *attr, int n_in, const saw_dims *in, int operand);

    /** Axes along which calls may be cut although an output is not: each call then writes its own,
     * disjoint part of that output. NULL: none. */
    uint32_t (*disjoint)(const void *attr, int n_in, const saw_dims *in);

    /** Bits of the operands (inputs, then outputs) that backward reads, given the bits of the
     * inputs whose gradient is wanted. NULL with a backward kernel: all inputs. */
    uint32_t (*keep)(const void *attr, uint32_t want, int n_in);

    /** Bytes of scratch for a call of these dims (data is NULL in all tensors). NULL: none. */
    size_t (*scratch)(const saw_call *c);
    /** Bytes of state for the whole entry. NULL: none. */
    size_t (*state)(const void *attr, int n_in, const saw_dims *in);
    /** Number of parts for an op that cuts itself. NULL: 1. */
    int64_t (*parts)(const void *attr, int n_in, const saw_dims *in, const saw_dims *out);

    /** How input j (a parameter or bind value) is wanted on the CPU. NULL: SAW_PACK_NONE. */
    saw_pack (*pack)(const void *attr, int operand);
    /** Matrix number i that the weight is packed as; false when there is none. An op has at most
     * one such weight, and it is packed one way only. NULL: one matrix, the weight as [dims[0],
     * rest]. */
    bool (*matrix)(const void *attr, int64_t i, saw_pack_matrix *out);
    /** Axis along which the parameters are dealt out (one set a band), or -1: a cut touches all of
     * them. 0 means -1. */
    int dealt_axis;

    /** Floating-point operations of the whole entry; multiply and add count as two. NULL: one an
     * output element. */
    double (*flops)(const void *attr, int n_in, const saw_dims *in, const saw_dims *out);
    /** Print the attributes for a listing, " key value" each. NULL: nothing. */
    void (*list)(const void *attr, saw_buffer *out);

    saw_kernel *cpu_forward, *cpu_backward; /* NULL: the float reference serves */
    /* Backward. An entry whose gradients go to data and to weights is recorded as two: one for the
     * data, which is cut like any other; one for the weights, which is not cut: each of its parts
     * writes rows of its own, and their number changes no bit. */
    /** The axes of cpu_backward, whose gradients of data may be cut along others; operands are
     * numbered as in forward. NULL: `axes`. */
    uint32_t (*backward_axes)(const void *attr, int n_in, const saw_dims *in, int operand);
    /** Parts of the gradients of weights. NULL: 1. */
    int64_t (*backward_parts)(const void *attr, int n_in, const saw_dims *in, const saw_dims *out);
    /** Bytes of scratch for a call of cpu_backward. NULL: none. */
    size_t (*backward_scratch)(const saw_call *c);
    bool backward_packed;   /* cpu_backward takes the weights that cpu_forward has packed */
    bool joint_backward;    /* one entry for data and weights, not cut, in backward_parts parts */
    bool in_place;          /* an output may lie on an input of the same dims and strides */
    bool backward_in_place; /* the same of the gradients and what backward reads */
    bool differentiable;    /* has a backward reference kernel */
    bool constant;          /* its outputs are constants to differentiation: gradients stop */
    double tolerance_db;    /* least SNR of the CPU kernel against the double reference */
};

/* ---- reference kernels ----------------------------------------------------------------------- */

#if SAW_REF == 64
typedef double real;
#define SAW_REF_NAME(name) saw_##name##_ref64
#define REAL(f)            f
#elif SAW_REF == 32
typedef float real;
#define SAW_REF_NAME(name) saw_##name##_ref32
#define REAL(f)            f##f
#endif
#ifdef SAW_REF
#define SAW_REF_KERNEL(name)                                                                       \
    void SAW_REF_NAME(name)(const saw_call *c);                                                    \
    void SAW_REF_NAME(name)(const saw_call *c)
#endif

/** The kernels of one device, in the order of ops.def. */
typedef struct saw_kernels {
    const saw_op *op;
    saw_kernel *ref32_forward, *ref32_backward, *ref64_forward, *ref64_backward;
} saw_kernels;
const saw_kernels *saw_kernels_of(const saw_op *op);
const saw_kernels *saw_kernels_at(int i); /* NULL at the end */

typedef enum saw_device { SAW_DEVICE_CPU, SAW_DEVICE_REF32, SAW_DEVICE_REF64 } saw_device;

#endif
