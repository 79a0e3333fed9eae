#include "models/adapters/methods.h"

#include <stdlib.h>
#include <string.h>

static const saw_method methods[] = {
    {"full", "* train", "every tensor of the model"},
    {"head", "{head} train", "the layers that make the masks, on a frozen trunk"},
    {"last-k", "{last} train; {head} train", "the last quarter of the layers, and the masks"},
    {"bitfit", "* bias", "every bias (arXiv 2106.10199)"},
    {"norms", "* norm", "gains and biases of every norm"},
    {"lora", "* lora rank={rank} alpha={alpha}", "low-rank changes of all matrices"},
    {"lora-attn", "{attention} lora rank={rank} alpha={alpha}",
     "the same of attention or, without one, of recurrent layers alone"},
    {"rslora", "* lora rank={rank} alpha={alpha} rslora=true", "LoRA scaled by the rank's root"},
    {"dora", "* dora rank={rank} alpha={alpha}", "LoRA, and the length of every row"},
    {"pissa", "* lora rank={rank} alpha={alpha} start=pissa",
     "LoRA that starts from the largest part of each matrix"},
    {"oft", "* oft", "rotations of what goes into a matrix"},
    {"ia3", "* ia3", "a factor for every output of a matrix"},
    {"road", "* road", "rotations of pairs of outputs"},
    {"houlsby", "* houlsby; * norm", "small networks behind every part of a layer, and norms"},
    {"spafit", "{first} freeze; {middle} bias; {attention} lora rank={rank} alpha={alpha}; * bias",
     "nothing in the first layers, biases, then LoRA (arXiv 2405.00201)"}};

const saw_method *saw_method_at(int i)
{
    return i >= 0 && i < (int)(sizeof methods / sizeof *methods) ? &methods[i] : NULL;
}

/* Parts of the families of models, told by the names of their tensors. Globs with blanks between.
 */
static const struct {
    const char *layers; /* %d: the layer */
    const char *head, *attention;
} parts[] = {{"layers.%d", "mask_estimators.*", "*.to_qkv* *.to_out* *.to_gates"},
             {"separator.%d", "maskers.*", "*_net.main_layer* *_net.proj *.attn_block.*"},
             {"bandsequence.bsrnn.%d", "maskest.*", "*.rnn.* *.fc"},
             {"", "*.up7*", ""}};

static int layer_of(const char *name, const char *layers, int *layer)
{
    size_t n = strcspn(layers, "%");
    char *end;
    if (!n || strncmp(name, layers, n) || name[n] < '0' || name[n] > '9')
        return 0;
    long i = strtol(name + n, &end, 10);
    *layer = (int)(i < 10000 ? i : 10000);
    return *end == '.';
}

/* Which row of `parts` the model is, and how many layers it has. */
static int family(const saw_checkpoint *base, int *layers)
{
    enum { FAMILIES = sizeof parts / sizeof *parts };
    for (int f = 0; f < FAMILIES; f++) {
        *layers = 0;
        for (int i = 0, at; i < saw_checkpoint_count(base); i++)
            if (layer_of(saw_checkpoint_at(base, i)->name, parts[f].layers, &at))
                *layers = at + 1 > *layers ? at + 1 : *layers;
        if (*layers)
            return f;
    }
    return FAMILIES - 1;
}

/* The globs that a word in braces stands for, blanks between. */
static saw_status expand(saw_context *ctx, const char *word, size_t n, int f, int layers, int last,
                         saw_buffer *out)
{
    static const char *const words[] = {"head", "attention", "first", "middle", "last"};
    int first = 0, end = 0;
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    if (!strcmp(name, "head"))
        saw_buffer_printf(out, "%s", parts[f].head);
    else if (!strcmp(name, "attention"))
        saw_buffer_printf(out, "%s", parts[f].attention);
    else if (!strcmp(name, "first"))
        end = layers / 3;
    else if (!strcmp(name, "middle"))
        first = layers / 3, end = layers - layers / 3;
    else if (!strcmp(name, "last"))
        first = last < layers ? layers - last : 0, end = layers;
    else {
        const char *near = saw_nearest_word(name, words, 5);
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "{%s} is no part of a model: %s%s", name,
                        near ? "did you mean " : "head, attention, first, middle and last are",
                        near ? near : "");
    }
    for (int i = first; i < end; i++) {
        int digits = (int)strcspn(parts[f].layers, "%");
        saw_buffer_printf(out, "%s%.*s%d.*", i > first ? " " : "", digits, parts[f].layers, i);
    }
    return SAW_OK;
}

/* One row of text, its globs in braces written out, one row each. */
static saw_status add_row(saw_context *ctx, const char *row, size_t n, int f, int layers, int last,
                          saw_buffer *out)
{
    size_t blank = strspn(row, " \t");
    row += blank;
    n -= blank < n ? blank : n;
    const char *close = n && *row == '{' ? memchr(row, '}', n) : NULL;
    if (!close) {
        saw_buffer_printf(out, "%.*s\n", (int)n, row);
        return SAW_OK;
    }
    saw_buffer globs = {.ctx = ctx};
    saw_status status = expand(ctx, row + 1, (size_t)(close - row) - 1, f, layers, last, &globs);
    for (const char *glob = globs.data; glob && *glob && !status;) {
        size_t size = strcspn(glob, " ");
        saw_buffer_printf(out, "%.*s%.*s\n", (int)size, glob, (int)(row + n - close - 1),
                          close + 1);
        glob += size + (glob[size] == ' ');
    }
    if (!status && globs.failed)
        status = SAW_ERR_MEMORY;
    saw_buffer_free(&globs);
    return status;
}

static saw_status add_rows(saw_context *ctx, const char *text, int f, int layers, int last,
                           saw_buffer *out)
{
    saw_status status = SAW_OK;
    while (*text && !status) {
        size_t n = strcspn(text, ";\n");
        status = add_row(ctx, text, n, f, layers, last, out);
        text += n + (text[n] != 0);
    }
    return status;
}

/* text with {rank} and {alpha} replaced. */
static void add_numbers(const char *text, int rank, double alpha, saw_buffer *out)
{
    char number[32];
    snprintf(number, sizeof number, "%.17g", alpha);
    number[strcspn(number, ",")] = number[strcspn(number, ",")] ? '.' : 0; /* of some locales */
    while (*text) {
        size_t n = strcspn(text, "{");
        saw_buffer_add(out, text, n);
        text += n;
        if (!strncmp(text, "{rank}", 6)) {
            saw_buffer_printf(out, "%d", rank);
            text += 6;
        } else if (!strncmp(text, "{alpha}", 7)) {
            saw_buffer_printf(out, "%s", number);
            text += 7;
        } else if (*text) {
            saw_buffer_add(out, text++, 1);
        }
    }
}

saw_status saw_method_table(saw_context *ctx, const char *method, const saw_method_options *options,
                            const saw_checkpoint *base, saw_adapters **out)
{
    saw_method_options o = {0};
    const char *names[sizeof methods / sizeof *methods];
    int n = 0, layers, m = -1;
    if (options)
        o = *options;
    *out = NULL;
    for (; saw_method_at(n); n++) {
        names[n] = methods[n].name;
        m = strcmp(names[n], method) ? m : n;
    }
    if (m < 0) {
        const char *near = saw_nearest_word(method, names, n);
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "there is no method %s%s%s%s", method,
                        near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
    }
    int f = family(base, &layers), rank = o.rank > 0 ? o.rank : 16;
    int last = o.layers > 0 ? o.layers : (layers + 3) / 4;
    if (strstr(methods[m].rows, "{last}") && !layers)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "the method %s needs a model with layers in a row",
                        method);
    saw_buffer rows = {.ctx = ctx}, text = {.ctx = ctx};
    saw_status status = SAW_OK;
    if (o.rules)
        add_numbers(o.rules, rank, o.alpha > 0 ? o.alpha : 2 * rank, &text);
    saw_buffer_printf(&text, "\n");
    add_numbers(methods[m].rows, rank, o.alpha > 0 ? o.alpha : 2 * rank, &text);
    status = text.failed ? SAW_ERR_MEMORY : add_rows(ctx, text.data, f, layers, last, &rows);
    if (!status)
        status = rows.failed ? SAW_ERR_MEMORY : saw_adapters_parse(ctx, rows.data, out);
    saw_buffer_free(&text);
    saw_buffer_free(&rows);
    return status;
}
