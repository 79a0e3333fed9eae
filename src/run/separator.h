/*
 * separator.h - what the command line and the tests need of a separator beside bandsaw.h.
 */
#ifndef SAW_SEPARATOR_H
#define SAW_SEPARATOR_H

#include "core/program.h"
#include "models/model.h"

/** A model as a configuration says, with first values (saw_model_start) instead of a checkpoint. */
saw_status saw_separator_begin(saw_context *ctx, const char *config, const char *const *settings,
                               int n_settings, uint64_t seed, saw_separator **out);
const saw_model_spec *saw_separator_spec(const saw_separator *s);
const saw_checkpoint *saw_separator_checkpoint(const saw_separator *s);
/** Plan the program of a stream without loading weights: for listings and memory figures. */
saw_status saw_separator_plan(saw_separator *s, const saw_stream_options *options,
                              saw_program **out);
/** Source of the weights of a separator's checkpoint; borrows the separator. */
saw_weight_source saw_separator_source(saw_separator *s);
/** Source of weights over an open checkpoint; borrows it. */
saw_weight_source saw_checkpoint_source(saw_checkpoint *ck);

#endif
