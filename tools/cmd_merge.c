/*
 * cmd_merge.c - an adapter folded into its model, checkpoints averaged, both a part of the way.
 */
#include "cli.h"

#include "run/merge.h"

#include <math.h>
#include <string.h>

enum { STEPS = 10 }; /* of a sweep */

typedef struct options {
    const char *model, *config, *adapter, *alpha, *output, *data;
    bool sweep, json;
} options;

static const flag flags[] = {
    {"model", 'm', FLAG_TEXT, offsetof(options, model), "FILE",
     "the base; of averaged checkpoints the first one when it is left out", 0, 0},
    {"config", 0, FLAG_TEXT, offsetof(options, config), "FILE",
     "its configuration, when it is not beside the checkpoint", 0, 0},
    {"adapter", 'a', FLAG_TEXT, offsetof(options, adapter), "DIR", "the adapter to fold into it", 0,
     0},
    {"output", 'o', FLAG_TEXT, offsetof(options, output), "FILE",
     "the new checkpoint, safetensors with the configuration in it", 0, 0},
    {"alpha", 0, FLAG_TEXT, offsetof(options, alpha), "SHARE",
     "go only so much of the way from the base, default 1: some of what was learnt for more of "
     "what the base could do",
     0, 0},
    {"sweep", 0, FLAG_SWITCH, offsetof(options, sweep), NULL,
     "try 0, 0.1, ... 1 and keep the share whose separations of --data have the highest SDR", 0, 0},
    {"data", 'd', FLAG_TEXT, offsetof(options, data), "DIR", "songs with stems for --sweep", 0, 0},
    {"json", 0, FLAG_SWITCH, offsetof(options, json), NULL,
     "one JSON object a line on standard output", 0, 0},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw merge --model base.ckpt --adapter run-santoor/best -o santoor.safetensors",
     "a plain checkpoint that every program can load"},
    {"bandsaw merge --model base.ckpt --adapter run-santoor/best --sweep --data songs -o "
     "santoor.safetensors",
     "as much of the adapter as helps on these songs"},
    {"bandsaw merge a.ckpt b.ckpt c.ckpt -o mean.safetensors", "the mean of three runs"},
    {"bandsaw merge --model base.ckpt tuned.ckpt --alpha 0.5 -o between.safetensors",
     "half way between two checkpoints"},
    {NULL, NULL}};

static int run_merge(int argc, char **argv);

const command command_merge = {
    .name = "merge",
    .operands = "[CHECKPOINT...]",
    .summary = "fold an adapter into a checkpoint, or average checkpoints",
    .description = "Writes a plain checkpoint: a model with an adapter folded into it, or the mean "
                   "of checkpoints of one model, or a point on the way from the model to either.",
    .flags = flags,
    .examples = examples,
    .least_operands = 0,
    .most_operands = -1,
    .run = run_merge};

static void print_score(void *user, double alpha, double sdr_db)
{
    if (*(const bool *)user)
        cli_print_json(json_pack("{s:f,s:f}", "alpha", alpha, "sdr_db", sdr_db));
    else
        printf("alpha %.1f: SDR %.3f dB\n", alpha, sdr_db);
    fflush(stdout);
}

static int check(const options *o, int count, double *alpha)
{
    if (!o->output)
        return usage_error("merge", "where should it go? Name a file with --output");
    if (!count && !(o->model && o->adapter))
        return usage_error("merge", "give --model and --adapter, or checkpoints to average");
    if (count && o->adapter)
        return usage_error("merge", "either --adapter or checkpoints: merge the adapter first");
    if (o->sweep != (o->data != NULL))
        return usage_error("merge", "--sweep and --data belong together");
    if (o->sweep && o->alpha)
        return usage_error("merge", "--sweep finds alpha: leave --alpha out");
    *alpha = 1;
    if (o->alpha && !(saw_parse_double(o->alpha, alpha) && *alpha >= -1 && *alpha <= 2))
        return usage_error("merge", "--alpha %s makes no sense: a share is wanted, as 0.5",
                           o->alpha);
    return 0;
}

static int run_merge(int argc, char **argv)
{
    options o = {0};
    int count, code;
    double alphas[STEPS + 1];
    if (!flags_parse(&command_merge, argc, argv, &o, &count, &code))
        return code;
    code = check(&o, count, &alphas[0]);
    if (code)
        return code;
    for (int i = 0; i <= STEPS && o.sweep; i++)
        alphas[i] = (double)i / STEPS;
    saw_context *ctx = cli_open(0);
    if (!ctx)
        return EXIT_FAILED;
    saw_merge_report r;
    saw_merge_options merge = {.model = o.model,
                               .config = o.config,
                               .adapter = o.adapter,
                               .others = (const char *const *)argv,
                               .n_others = count,
                               .alphas = alphas,
                               .n_alphas = o.sweep ? STEPS + 1 : 1,
                               .data = o.data,
                               .output = o.output,
                               .scored = print_score,
                               .user = &o.json};
    if (saw_merge(ctx, &merge, &r)) {
        code = cli_failed(ctx);
    } else if (o.json) {
        cli_print_json(json_pack("{s:o,s:i,s:i,s:f}", "path", cli_json_text(o.output), "tensors",
                                 r.tensors, "changed", r.changed, "alpha", r.alpha));
    } else {
        printf("%s: %d tensors, %d of them merged, alpha %g\n", o.output, r.tensors, r.changed,
               r.alpha);
    }
    cli_close(ctx);
    return code;
}
