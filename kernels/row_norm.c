/*
 * row_norm.c - 1 / max(|row|, 1e-12) for the rows of a matrix, a constant to differentiation (as
 * DoRA has it, Liu et al., arXiv 2402.09353, section 4.3).
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#ifdef SAW_REF

SAW_REF_KERNEL(row_norm_forward)
{
    const saw_tensor *x = &c->in[0], *y = &c->out[0];
    for (int64_t r = 0; r < x->dims[0]; r++) {
        const real *row = (const real *)x->data + r * x->strides[0];
        double sum = 0;
        for (int64_t i = 0; i < x->dims[1]; i++)
            sum += (double)row[i * x->strides[1]] * row[i * x->strides[1]];
        put((real *)y->data + r * y->strides[0], saw_adds(c, 0), 1 / fmax(sqrt(sum), 1e-12));
    }
}

#else

static bool shape(saw_shape *s)
{
    if (s->in[0].n != 2)
        return saw_refuse(s, "needs a matrix");
    s->out[0] = SAW_DIMS(s->in[0].d[0], 1);
    return true;
}

const saw_op saw_op_row_norm = {.name = "row_norm",
                                .shape = shape,
                                .axes = saw_axes_first,
                                .constant = true,
                                .tolerance_db = 110};

saw_val saw_row_norm(saw_graph *g, saw_val x)
{
    return SAW_RECORD(g, &saw_op_row_norm, NULL, x);
}

#endif
