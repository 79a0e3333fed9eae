/*
 * convert.h - any readable checkpoint of a model becomes our single file: safetensors with the
 * configuration inside.
 *
 * Metadata: "bandsaw" the configuration as JSON (absent when there was none and all was inferred
 * from the tensors), "bandsaw.architecture" the family's name, for people. Weights of matrix
 * products take the asked dtype; everything else that is a number stays float32, so norms, biases
 * and position tables lose nothing. bool and integers are kept.
 *
 * int8: a weight w [rows, ...] is stored as I8 q, and beside it the float32 tensor "<name>.scale"
 * [rows]: w = q * scale[row], scale[row] = max |w[row]| / 127, q rounded to nearest even.
 */
#ifndef SAW_CONVERT_H
#define SAW_CONVERT_H

#include "io/checkpoint.h"

typedef struct saw_convert_report {
    int tensors;
    uint64_t bytes; /* of tensor data written */
    char *assumed;  /* what neither tensors nor a config told, joined with "; "; NULL: nothing.
                       saw_free it */
} saw_convert_report;

/** dtype: SAW_F32, SAW_F16, SAW_BF16 or SAW_I8. config may be NULL. The file appears only when it
 * is whole. */
saw_status saw_convert(saw_context *ctx, const char *in, const char *config, const char *out,
                       saw_dtype dtype, saw_convert_report *report);

#endif
