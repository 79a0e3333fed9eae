/*
 * cmd_inspect.c - what a checkpoint is, what it needs, and what could not be told from it.
 */
#include "cli.h"

#include "run/separator.h"
#include "run/stitch.h"

#include <string.h>

typedef struct options {
    const char *config;
    texts settings;
    double chunk_s;
    bool plan, tensors, json;
} options;

static const flag flags[] = {
    {"config", 0, FLAG_TEXT, offsetof(options, config), "FILE",
     "configuration, when it is not beside the checkpoint", 0, 0},
    {"set", 0, FLAG_TEXTS, offsetof(options, settings), "KEY=VALUE",
     "a setting that goes before the configuration, or before what was inferred", 0, 0},
    {"chunk", 0, FLAG_SECONDS, offsetof(options, chunk_s), "SECONDS",
     "plan for windows of this length, default the model's", 0.01, 36000},
    {"plan", 0, FLAG_SWITCH, offsetof(options, plan), NULL,
     "list the program: groups, tiles, ops, sizes", 0, 0},
    {"tensors", 0, FLAG_SWITCH, offsetof(options, tensors), NULL,
     "list all tensors: name, shape, dtype, and the FNV-1a-64 of the "
     "little-endian bytes in C order",
     0, 0},
    {"json", 0, FLAG_SWITCH, offsetof(options, json), NULL, "one JSON object on standard output", 0,
     0},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw inspect model.ckpt", "architecture, stems, memory, what was assumed"},
    {"bandsaw inspect model.ckpt --tensors", "every tensor with its checksum"},
    {NULL, NULL}};

static int run_inspect(int argc, char **argv);

const command command_inspect = {.name = "inspect",
                                 .operands = "MODEL",
                                 .summary = "say what a checkpoint is and what it needs",
                                 .description =
                                     "Reads a checkpoint and says which model it is, its options, "
                                     "stems, timing and memory, what was "
                                     "assumed because neither tensors nor a configuration told it, "
                                     "and what else the file holds. Of a "
                                     "file that is no separation model it lists the tensors.",
                                 .flags = flags,
                                 .examples = examples,
                                 .least_operands = 1,
                                 .most_operands = 1,
                                 .run = run_inspect};

/* ---- tensors --------------------------------------------------------------------------------- */

static saw_status checksum(saw_checkpoint *ck, const saw_ckpt_tensor *t, uint64_t *out)
{
    enum { BLOCK = 8192 };
    uint8_t bytes[BLOCK * 8];
    size_t size = saw_dtype_bytes(t->dtype);
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t at = 0, n; at < t->count; at += n) {
        n = t->count - at < BLOCK ? t->count - at : BLOCK;
        saw_status status = saw_checkpoint_read_raw(ck, t, at, n, bytes);
        if (status)
            return status;
        for (size_t i = 0; i < (size_t)n * size; i++)
            h = (h ^ bytes[i]) * 0x100000001b3u;
    }
    *out = h;
    return SAW_OK;
}

static saw_status list_tensors(saw_checkpoint *ck, json_t *json)
{
    json_t *list = json_array();
    for (int i = 0; i < saw_checkpoint_count(ck); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        char dims[160] = "", sum[20];
        uint64_t h;
        json_t *shape = json_array();
        for (int d = 0, n = 0; d < t->ndim; d++) {
            n += snprintf(dims + n, sizeof dims - (size_t)n, "%s%lld", d ? ", " : "",
                          (long long)t->dims[d]);
            json_array_append_new(shape, json_integer(t->dims[d]));
        }
        saw_status status = checksum(ck, t, &h);
        if (status) {
            json_decref(shape);
            json_decref(list);
            return status;
        }
        snprintf(sum, sizeof sum, "%016llx", (unsigned long long)h);
        json_array_append_new(list, json_pack("{s:o,s:s,s:o,s:s}", "name", cli_json_text(t->name),
                                              "dtype", saw_dtype_name(t->dtype), "shape", shape,
                                              "fnv1a64", sum));
        if (!json)
            printf("  %s  %-5s %s [%s]\n", sum, saw_dtype_name(t->dtype), t->name, dims);
    }
    if (json)
        json_object_set(json, "tensors", list);
    json_decref(list);
    return SAW_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void describe_file(saw_checkpoint *ck, json_t *json)
{
    json_t *notes = json_array();
    if (!json) {
        printf("  container      %s, %d tensors%s%s\n", saw_checkpoint_container(ck),
               saw_checkpoint_count(ck),
               *saw_checkpoint_prefix(ck) ? ", without their prefix " : "",
               saw_checkpoint_prefix(ck));
    } else {
        json_object_set_new(json, "container", json_string(saw_checkpoint_container(ck)));
        json_object_set_new(json, "tensor_count", json_integer(saw_checkpoint_count(ck)));
        json_object_set_new(json, "prefix", cli_json_text(saw_checkpoint_prefix(ck)));
    }
    for (int i = 0; i < saw_checkpoint_note_count(ck); i++) {
        if (!json)
            printf("  also there     %s\n", saw_checkpoint_note(ck, i));
        json_array_append_new(notes, cli_json_text(saw_checkpoint_note(ck, i)));
    }
    if (json)
        json_object_set(json, "notes", notes);
    json_decref(notes);
}

static bool is_known(const saw_checkpoint *ck)
{
    for (int i = 0; saw_model_at(i); i++)
        if (saw_model_at(i)->recognise(ck))
            return true;
    return false;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* A program of the model at one precision; what a stream would need, in bytes. */
static saw_status plan_at(saw_context *ctx, const char *path, const options *o,
                          saw_precision precision, saw_program **plan, size_t *bytes)
{
    saw_separator *s;
    saw_status status = saw_separator_open(ctx, path,
                                           &(saw_separator_options){.config = o->config,
                                                                    .settings = o->settings.item,
                                                                    .n_settings = o->settings.count,
                                                                    .precision = precision},
                                           &s);
    if (status)
        return status;
    const saw_separator_info *info = saw_separator_get_info(s);
    int64_t hop = info->hop_samples > 0 ? info->hop_samples : 1;
    int64_t chunk = o->chunk_s > 0 ? (int64_t)(o->chunk_s * info->rate_hz + hop - 1) / hop * hop
                                   : info->chunk_samples;
    status = saw_separator_plan(s, &(saw_stream_options){.chunk_samples = chunk}, plan);
    if (!status)
        *bytes = saw_program_run_bytes(*plan) + saw_program_weight_bytes(*plan) +
                 saw_stitcher_memory_bytes(&(saw_stitch_options){.channels = info->channels,
                                                                 .stems = info->stems,
                                                                 .chunk_samples = chunk,
                                                                 .overlap = info->overlap});
    saw_separator_close(s);
    return status;
}

static void print_model(saw_context *ctx, const saw_separator *s, const options *o,
                        const size_t *bytes, double flops)
{
    const saw_separator_info *info = saw_separator_get_info(s);
    const saw_model_spec *spec = saw_separator_spec(s);
    saw_buffer text = {.ctx = ctx};
    spec->model->describe(spec->options, &text);
    int64_t chunk = o->chunk_s > 0 ? (int64_t)(o->chunk_s * info->rate_hz) : info->chunk_samples;
    double chunk_s = (double)chunk / info->rate_hz;
    printf("  architecture   %s (%s)\n", spec->model->title, info->architecture);
    printf("  configuration  %s\n", info->config_path   ? info->config_path
                                    : spec->from_config ? "inside the file"
                                                        : "inferred from names and shapes");
    printf("  options       %s\n", text.data ? text.data : "");
    printf("  stems          ");
    for (int i = 0; i < info->stems; i++)
        printf("%s%s", i ? ", " : "", info->stem_names[i]);
    printf("\n  audio          %d Hz, %d channel%s%s\n", info->rate_hz, info->channels,
           info->channels == 1 ? "" : "s",
           info->normalize ? ", whole file normalised before (needs a first pass over the file)"
                           : "");
    printf("  parameters     %.3f million\n", (double)info->parameters * 1e-6);
    printf("  chunk          %.3f s, overlap %d: one every %.3f s, %.1f GFLOP each\n", chunk_s,
           info->overlap, chunk_s / info->overlap, flops * 1e-9);
    printf("  timing         not causal: a sample comes out when the chunks over it are whole, at "
           "most %.2f s later\n",
           2 * chunk_s);
    printf("  memory         to separate: %.0f MB in f32, %.0f MB in bf16, %.0f MB in int8\n",
           (double)bytes[0] * 1e-6, (double)bytes[1] * 1e-6, (double)bytes[2] * 1e-6);
    printf("  precision      %s when none is asked for\n", info->precision);
    for (int i = 0; i < info->assumed_count; i++)
        printf("%s%s%s", i ? "; " : "assumed: ", info->assumed[i],
               i + 1 == info->assumed_count ? "\n" : "");
    if (!info->assumed_count)
        printf("assumed: nothing, %s told everything\n",
               spec->from_config ? "the configuration" : "the tensors");
    saw_buffer_free(&text);
}

static void json_model(saw_context *ctx, const saw_separator *s, const size_t *bytes, double flops,
                       json_t *json)
{
    const saw_separator_info *info = saw_separator_get_info(s);
    const saw_model_spec *spec = saw_separator_spec(s);
    saw_buffer text = {.ctx = ctx};
    spec->model->describe(spec->options, &text);
    json_t *stems = json_array(), *assumed = json_array();
    for (int i = 0; i < info->stems; i++)
        json_array_append_new(stems, cli_json_text(info->stem_names[i]));
    for (int i = 0; i < info->assumed_count; i++)
        json_array_append_new(assumed, cli_json_text(info->assumed[i]));
    json_object_set_new(json, "architecture", json_string(info->architecture));
    json_object_set_new(json, "config",
                        info->config_path ? cli_json_text(info->config_path) : json_null());
    json_object_set_new(json, "inferred", json_boolean(!spec->from_config));
    json_object_set_new(json, "options", cli_json_text(text.data ? text.data : ""));
    json_object_set_new(json, "stems", stems);
    json_object_set_new(json, "rate_hz", json_integer(info->rate_hz));
    json_object_set_new(json, "channels", json_integer(info->channels));
    json_object_set_new(json, "normalize", json_boolean(info->normalize));
    json_object_set_new(json, "parameters", json_integer(info->parameters));
    json_object_set_new(json, "chunk_samples", json_integer(info->chunk_samples));
    json_object_set_new(json, "hop_samples", json_integer(info->hop_samples));
    json_object_set_new(json, "overlap", json_integer(info->overlap));
    json_object_set_new(json, "flops_per_chunk", json_real(flops));
    json_object_set_new(json, "memory_bytes",
                        json_pack("{s:I,s:I,s:I}", "f32", (json_int_t)bytes[0], "bf16",
                                  (json_int_t)bytes[1], "int8", (json_int_t)bytes[2]));
    json_object_set_new(json, "precision", json_string(info->precision));
    json_object_set_new(json, "assumed", assumed);
    saw_buffer_free(&text);
}

static saw_status inspect_model(saw_context *ctx, const char *path, const options *o, json_t *json)
{
    saw_separator *s;
    saw_program *plans[3] = {NULL};
    size_t bytes[3];
    saw_status status =
        saw_separator_open(ctx, path,
                           &(saw_separator_options){.config = o->config,
                                                    .settings = o->settings.item,
                                                    .n_settings = o->settings.count,
                                                    .precision = SAW_PRECISION_DEFAULT},
                           &s);
    for (int i = 0; i < 3 && !status; i++)
        status = plan_at(ctx, path, o, (saw_precision)i, &plans[i], &bytes[i]);
    if (!status) {
        double flops = saw_program_flops(plans[0]);
        if (json)
            json_model(ctx, s, bytes, flops, json);
        else
            print_model(ctx, s, o, bytes, flops);
    }
    if (!status && o->plan) {
        saw_buffer listing = {.ctx = ctx};
        saw_program_list(plans[0], &listing);
        if (json)
            json_object_set_new(json, "plan", cli_json_text(listing.data ? listing.data : ""));
        else
            printf("\n%s", listing.data ? listing.data : "");
        saw_buffer_free(&listing);
    }
    for (int i = 0; i < 3; i++)
        saw_program_close(plans[i]);
    saw_separator_close(s);
    return status;
}

static int run_inspect(int argc, char **argv)
{
    options o = {0};
    int count, code;
    if (!flags_parse(&command_inspect, argc, argv, &o, &count, &code))
        return code;
    saw_context *ctx = cli_open(0);
    if (!ctx)
        return EXIT_FAILED;
    const char *path = argv[0];
    saw_checkpoint *ck;
    json_t *json = o.json ? json_object() : NULL;
    saw_status status = saw_checkpoint_open(ctx, path, &ck);
    if (!status)
        status = saw_model_import(ck);
    if (!status) {
        bool known = is_known(ck);
        if (json)
            json_object_set_new(json, "path", cli_json_text(path));
        else
            printf("%s\n", path);
        describe_file(ck, json);
        if (known || o.config)
            status = inspect_model(ctx, path, &o, json);
        else if (json)
            json_object_set_new(json, "architecture", json_null());
        else
            printf("This is not a separation model that bandsaw knows.\n");
        if (!status && (o.tensors || !known))
            status = list_tensors(ck, json);
    }
    code = status ? cli_failed(ctx) : 0;
    if (json && !status)
        cli_print_json(json);
    else
        json_decref(json);
    saw_checkpoint_close(ck);
    cli_close(ctx);
    return code;
}
