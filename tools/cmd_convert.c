/*
 * cmd_convert.c - any readable checkpoint to the single-file format.
 */
#include "cli.h"

#include "run/convert.h"

#include <string.h>

typedef struct options {
    const char *dtype, *config;
    bool json;
} options;

static const flag flags[] = {{"dtype", 0, FLAG_TEXT, offsetof(options, dtype), "f32|f16|bf16|int8",
                              "of the weights of products, default f32; everything else stays f32",
                              0, 0},
                             {"config", 0, FLAG_TEXT, offsetof(options, config), "FILE",
                              "configuration, when it is not beside the checkpoint", 0, 0},
                             {"json", 0, FLAG_SWITCH, offsetof(options, json), NULL,
                              "one JSON object on standard output", 0, 0},
                             {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw convert model.ckpt model.safetensors", "weights and configuration in one file"},
    {"bandsaw convert model.ckpt small.safetensors --dtype bf16", "half as large"},
    {NULL, NULL}};

static int run_convert(int argc, char **argv);

const command command_convert = {
    .name = "convert",
    .operands = "IN OUT",
    .summary = "make a single file of a checkpoint and its configuration",
    .description = "Reads any checkpoint that `separate` reads and writes one safetensors file "
                   "with the configuration "
                   "in its metadata. int8 weights have one scale a row.",
    .flags = flags,
    .examples = examples,
    .least_operands = 2,
    .most_operands = 2,
    .run = run_convert};

static int run_convert(int argc, char **argv)
{
    options o = {.dtype = "f32"};
    int count, code;
    if (!flags_parse(&command_convert, argc, argv, &o, &count, &code))
        return code;
    saw_context *ctx = cli_open(0);
    if (!ctx)
        return EXIT_FAILED;
    saw_dtype dtype = !strcmp(o.dtype, "f16")    ? SAW_F16
                      : !strcmp(o.dtype, "bf16") ? SAW_BF16
                      : !strcmp(o.dtype, "int8") ? SAW_I8
                                                 : SAW_F32;
    saw_convert_report r;
    if (saw_convert(ctx, argv[0], o.config, argv[1], dtype, &r)) {
        code = cli_failed(ctx);
    } else {
        code = 0;
        if (r.assumed)
            fprintf(stderr, "assumed: %s\n", r.assumed);
        if (o.json)
            cli_print_json(json_pack("{s:o,s:i,s:I,s:s}", "path", cli_json_text(argv[1]), "tensors",
                                     r.tensors, "bytes", (json_int_t)r.bytes, "dtype", o.dtype));
        else
            printf("%s: %d tensors, %.1f MB\n", argv[1], r.tensors, (double)r.bytes * 1e-6);
        saw_free(ctx, r.assumed);
    }
    cli_close(ctx);
    return code;
}
