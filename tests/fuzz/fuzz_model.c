/* fuzz_model.c - the input as a configuration: configure every family that takes it, record the
 * model and plan it. */
#include "core/program.h"
#include "fuzz/fuzz.h"
#include "models/model.h"

enum { MOST_ENTRIES = 600 }; /* longer tapes are recorded but not planned here, for speed alone */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    saw_context *ctx = fuzz_context();
    saw_config *config;
    saw_model_spec spec;
    saw_graph *g;
    if (!saw_config_parse_yaml(ctx, "input", (const char *)bytes, n, &config)) {
        if (!saw_model_configure(ctx, config, NULL, &spec)) {
            const saw_model_common *c = saw_model_common_of(&spec);
            FUZZ_PROMISE(c->channels >= 1 && c->channels <= SAW_MAX_CHANNELS && c->stems >= 1 &&
                         c->stems <= SAW_MAX_STEMS && c->rate_hz > 0 && c->min_samples > 0 &&
                         c->hop_samples > 0 && c->chunk_samples >= c->min_samples);
            if (!saw_graph_open(ctx, &g)) {
                int64_t samples = c->chunk_fixed ? c->chunk_samples : c->min_samples;
                spec.model->record(g, spec.options,
                                   saw_input(g, "mix", SAW_DIMS(1, c->channels, samples)));
                saw_program *p = NULL;
                if (saw_graph_entries(g) > MOST_ENTRIES)
                    saw_graph_close(g);
                else if (!saw_program_build(g, NULL, &p))
                    FUZZ_PROMISE(saw_program_run_bytes(p) > 0);
                saw_program_close(p);
            }
            saw_model_spec_close(ctx, &spec);
        }
        saw_config_free(config);
    }
    FUZZ_PROMISE(saw_context_memory(ctx).now_bytes == 0);
    return 0;
}
