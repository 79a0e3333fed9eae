/*
 * train_program.h - a model, its loss and what of it trains, as one program.
 *
 * Inputs: "mix" [B,C,N], "target" [B,S,C,N'] of the trained stems and, of each stem that is
 * rehearsed, "rehearsal<i>" [B,C,N']. Outputs: "loss", "loss.<term>". N' is the length of what the
 * model gives.
 */
#ifndef SAW_TRAIN_PROGRAM_H
#define SAW_TRAIN_PROGRAM_H

#include "core/program.h"
#include "models/model.h"
#include "nn/loss.h"

typedef struct saw_train_setup {
    const saw_model_spec *spec;
    int batch;
    int64_t samples;
    int trained[SAW_MAX_STEMS], n_trained;     /* stems of the model that have targets */
    int rehearsed[SAW_MAX_STEMS], n_rehearsed; /* stems that are held to what they were */
    double rehearsal_weight;                   /* of the mean of their L1 losses */
    const nn_loss_term *loss;
    int n_loss;
    saw_checkpointing checkpointing;
    /** Before the model is recorded: what adapts it and how its layers train. After it: mark what
     * trains. Either may be NULL. */
    void (*before)(saw_graph *g, void *user);
    void (*after)(saw_graph *g, void *user);
    void *user;
} saw_train_setup;

/** Record, differentiate and plan; frozen alone (n_loss 0): the model without a loss, its
 * rehearsed stems the outputs "stem<number>", what a rehearsal is made with. */
saw_status saw_train_program_build(saw_context *ctx, const saw_train_setup *setup,
                                   saw_program **out);

#endif
