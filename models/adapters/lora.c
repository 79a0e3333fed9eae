/*
 * lora.c - low-rank adaptation (Hu et al., arXiv 2106.09685): W_eff = W + s B A, y = x W^T + s (x
 * A^T) B^T.
 *
 * A [rank, in], B [out, rank]; B = 0 at the start. The names are those of PEFT:
 * module.lora_A.weight, .lora_B.weight.
 */
#include "models/adapters/lora.h"
#include "kernels/ops.h"
#include "nn/adapter.h"

enum { A, B, TENSORS };

static void declare(saw_graph *g, const void *options, const char *module, int64_t out, int64_t in,
                    saw_val *tensors)
{
    const saw_lora_options *o = options;
    char name[300];
    snprintf(name, sizeof name, "%s%slora_A.weight", module, *module ? "." : "");
    tensors[A] = saw_param(g, name, SAW_DIMS(o->rank, in));
    snprintf(name, sizeof name, "%s%slora_B.weight", module, *module ? "." : "");
    tensors[B] = saw_param(g, name, SAW_DIMS(out, o->rank));
}

static saw_val weight(saw_graph *g, const void *options, const saw_val *tensors, saw_val w)
{
    const saw_lora_options *o = options;
    saw_val a = saw_permute(g, tensors[A], (const int[]){1, 0}); /* [in, rank] */
    return saw_add(g, w, saw_scale(g, saw_linear(g, tensors[B], a, 0), o->scale));
}

static saw_val apply(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, saw_val y)
{
    const saw_lora_options *o = options;
    int n = site->bands ? site->bands : 1;
    saw_val *a = saw_calloc(saw_graph_context(g), 2 * (size_t)n, sizeof *a), *b = a ? a + n : NULL;
    if (!a)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "no memory to adapt %s", site->module);
    for (int m = 0; m < n; m++) {
        a[m] = tensors[m * TENSORS + A];
        b[m] = tensors[m * TENSORS + B];
    }
    saw_site down = *site;
    down.ragged = false; /* every band gives `rank` features */
    saw_val low = nn_site_product(g, &down, x, a, NULL);
    y = saw_add(g, y, saw_scale(g, nn_site_product(g, site, low, b, NULL), o->scale));
    saw_free(saw_graph_context(g), a);
    return y;
}

const saw_adapter saw_adapter_lora = {.name = "lora",
                                      .options_bytes = sizeof(saw_lora_options),
                                      .tensors = TENSORS,
                                      .declare = declare,
                                      .weight = weight,
                                      .apply = apply};
