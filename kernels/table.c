/*
 * table.c - the kernels of every op, joined by name from ops.def.
 */
#include "kernels/ops.h"

#ifndef SAW_REF

#define SAW_OP_FORWARD(name)                                                                       \
    extern const saw_op saw_op_##name;                                                             \
    saw_kernel saw_##name##_forward_ref32, saw_##name##_forward_ref64;
#define SAW_OP(name)                                                                               \
    SAW_OP_FORWARD(name)                                                                           \
    saw_kernel saw_##name##_backward_ref32, saw_##name##_backward_ref64;
#include "kernels/ops.def"
#undef SAW_OP
#undef SAW_OP_FORWARD

static const saw_kernels table[] = {
#define SAW_OP(name)                                                                               \
    {&saw_op_##name, saw_##name##_forward_ref32, saw_##name##_backward_ref32,                      \
     saw_##name##_forward_ref64, saw_##name##_backward_ref64},
#define SAW_OP_FORWARD(name)                                                                       \
    {&saw_op_##name, saw_##name##_forward_ref32, NULL, saw_##name##_forward_ref64, NULL},
#include "kernels/ops.def"
};

const saw_kernels *saw_kernels_at(int i)
{
    return i >= 0 && i < (int)(sizeof table / sizeof *table) ? &table[i] : NULL;
}

const saw_kernels *saw_kernels_of(const saw_op *op)
{
    for (int i = 0; saw_kernels_at(i); i++)
        if (table[i].op == op)
            return &table[i];
    return NULL;
}

#endif
