/*
 * op_case.h - one table of cases tests every op; every op must have a case.
 *
 * A case records one op with its public recorder on inputs of given dims; the harness takes the
 * last entry of that tape and calls the op's kernels by hand. To add an op: write its cases in
 * tests/support/cases_<area>.c and name that list in op_case_lists.
 */
#ifndef SAW_TEST_OP_CASE_H
#define SAW_TEST_OP_CASE_H

#include "kernels/ops.h"

enum { OP_CASE_INPUTS = 24 };

typedef struct op_case {
    const char *name;
    saw_val (*record)(saw_graph *g, const saw_val *in);
    /* Dims of the inputs as the recorder orders them, which must be the order of the entry's
     * operands; n == 0: absent. */
    saw_dims in[OP_CASE_INPUTS];
    uint32_t params; /* bits of the inputs that are weights: always whole and dense, packed when the
                        op asks so */
    uint32_t
        fixed; /* bits of the inputs that have no gradient, then of the outputs that take none */
    double gain, offset; /* values of the inputs lie in offset +- gain; gain 0: 1 */
    bool dense_last;     /* the reference too needs the last axis contiguous */
} op_case;

typedef struct op_case_list {
    const op_case *cases;
    int count;
} op_case_list;

/** Ends with a list of no cases. */
extern const op_case_list *const op_case_lists[];

/** For a case's dims: OP_DIMS(2, 3, 4). */
#define OP_DIMS(...)                                                                               \
    {                                                                                              \
        .n = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .d = { __VA_ARGS__ }              \
    }

/** The op of a case. */
const saw_op *op_case_op(const op_case *k);

/* Each of these fails the running cmocka test with the case's name and what is wrong. */

/** Every CPU kernel against the double reference, in dB, on every instruction set; likewise the
 * float reference. */
void op_case_check_accuracy(const op_case *k);
/** The gradients of the double reference against central differences; one by one, added, with only
 * what `keep` keeps, and in float. */
void op_case_check_gradients(const op_case *k);
/** cpu_backward on every instruction set, called as a program does (gradients of data, of weights,
 * of one operand alone): against the double reference in dB; any cut, number of parts and layout
 * gives the same bits; gradients are added when asked; nothing beside them and the scratch is
 * written. */
void op_case_check_backward(const op_case *k);
/** Any cut along each axis that the op allows gives the bits of the whole. */
void op_case_check_cuts(const op_case *k);
/** Values that lie apart give the bits of dense ones; nothing beside the outputs and the scratch is
 * written; outputs are added to when asked. */
void op_case_check_views(const op_case *k);

/** An op that may work in place gives the same bits when it does, on any input of the output's
 * dims. */
void op_case_check_in_place(const op_case *k);

/** Output 0 of the double reference on given inputs (whole, dense); the caller frees it. */
double *op_forward64(saw_val (*record)(saw_graph *g, const saw_val *in), int n_in,
                     const saw_dims *dims, const double *const *in);

#endif
