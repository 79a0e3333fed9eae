/*
 * methods.h - ways to finetune by name ("lora", "head", "last-k"): each is a few rows of the table
 * of what trains (nn/adapter.h), in which words in braces stand for parts of the model at hand.
 */
#ifndef SAW_METHODS_H
#define SAW_METHODS_H

#include "io/checkpoint.h"
#include "nn/adapter.h"

typedef struct saw_method {
    const char *name, *rows, *help;
} saw_method;
/** Row i, NULL at the end. */
const saw_method *saw_method_at(int i);

typedef struct saw_method_options {
    const char *rules; /* rows that go before the method's own; the same braces. NULL: none */
    int rank;          /* of adapters that have one; 0: 16 */
    double alpha;      /* 0: twice the rank */
    int layers;        /* k of last-k; 0: a quarter of all */
} saw_method_options;

/**
 * The table for a model whose tensors are those of the checkpoint. An unknown method, adapter or
 * option is SAW_ERR_ARGUMENT, with the nearest name that is known. Freed by saw_adapters_free.
 */
saw_status saw_method_table(saw_context *ctx, const char *method, const saw_method_options *options,
                            const saw_checkpoint *base, saw_adapters **out);

#endif
