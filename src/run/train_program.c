#include "run/train_program.h"

#include "kernels/ops.h"

#include <string.h>

static saw_val stem_output(saw_graph *g, int stem)
{
    char name[16];
    snprintf(name, sizeof name, "stem%d", stem);
    return saw_graph_find(g, name);
}

static saw_val record_loss(saw_graph *g, const saw_train_setup *t)
{
    saw_val stems[SAW_MAX_STEMS];
    for (int i = 0; i < t->n_trained; i++)
        stems[i] = stem_output(g, t->trained[i]);
    saw_dims d = saw_dims_val(g, stems[0]);
    saw_val target = saw_input(g, "target", SAW_DIMS(d.d[0], t->n_trained, d.d[1], d.d[2]));
    saw_val loss = nn_loss(g, t->loss, t->n_loss, t->n_trained, stems, target);
    for (int i = 0; i < t->n_rehearsed; i++) {
        char name[32];
        snprintf(name, sizeof name, "rehearsal%d", i);
        saw_val was = saw_input(g, name, d);
        loss = saw_add(g, loss,
                       saw_l1_loss(g, stem_output(g, t->rehearsed[i]), was,
                                   t->rehearsal_weight / t->n_rehearsed));
    }
    return loss;
}

static void record(saw_graph *g, const saw_train_setup *t)
{
    const saw_model_common *c = saw_model_common_of(t->spec);
    if (t->before)
        t->before(g, t->user);
    saw_graph_checkpoint(g, t->n_loss ? t->checkpointing : SAW_CHECKPOINT_NONE);
    t->spec->model->record(g, t->spec->options,
                           saw_input(g, "mix", SAW_DIMS(t->batch, c->channels, t->samples)));
    if (!t->n_loss || saw_graph_status(g))
        return;
    saw_val loss = record_loss(g, t);
    if (t->after)
        t->after(g, t->user);
    saw_graph_differentiate(g, loss);
}

saw_status saw_train_program_build(saw_context *ctx, const saw_train_setup *t, saw_program **out)
{
    saw_graph *g;
    *out = NULL;
    saw_status status = saw_graph_open(ctx, &g);
    if (status)
        return status;
    record(g, t);
    char names[SAW_MAX_STEMS][16];
    const char *outputs[SAW_MAX_STEMS];
    for (int i = 0; i < t->n_rehearsed; i++) {
        snprintf(names[i], sizeof names[i], "stem%d", t->rehearsed[i]);
        outputs[i] = names[i];
    }
    return saw_program_build(g,
                             &(saw_program_options){.device = SAW_DEVICE_CPU,
                                                    .outputs = t->n_loss ? NULL : outputs,
                                                    .n_outputs = t->n_loss ? 0 : t->n_rehearsed},
                             out);
}
