/*
 * golden.h - hold a model against a case of the compact golden set (tests/golden/README.md).
 */
#ifndef SAW_TEST_GOLDEN_H
#define SAW_TEST_GOLDEN_H

#include "core/program.h"
#include "models/model.h"

typedef struct golden_case {
    const char *name;    /* folder in tests/golden */
    const char *model;   /* row of the model table */
    const char *section; /* where the model's options stand in a configuration */
} golden_case;

/** Outputs and every stage on a device, in the tolerances of the README; prints the worst of both.
 */
void golden_check_outputs(const golden_case *c, saw_device device);
/** Loss and the gradient of every tensor on a device. */
void golden_check_gradients(const golden_case *c, saw_device device);
/** The recorded graph, its weights and its inputs, for tests of passes. Closed by golden_close. */
typedef struct golden_model {
    saw_context *ctx;
    void *meta; /* json_t */
    void *npz;
    saw_model_spec spec;
    saw_weights *weights;
    int channels, samples, stems;
} golden_model;
golden_model *golden_open(const golden_case *c, int threads);
void golden_close(golden_model *m);
/** A fresh graph of the model; with_loss adds inputs "target<s>" and the output "loss". */
saw_graph *golden_record(golden_model *m, bool with_loss);
/** The same on a graph that the caller opened (and adapted). */
void golden_record_on(golden_model *m, saw_graph *g, bool with_loss);
/** Fill "mix" and, where they are, the targets. */
void golden_fill(golden_model *m, saw_run *run);

#endif
