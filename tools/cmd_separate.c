/*
 * cmd_separate.c - songs in, stems out: which files, which names, what is skipped, and what is
 * said.
 */
#include "cli.h"

#include "run/catalogue.h"
#include "run/paths.h"
#include "run/separate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct options {
    const char *output, *template_text, *format, *subtype;
    texts models, configs, settings, stems, weights;
    const char *adapter, *adapter_scale;
    const char *residual, *chunk, *stitch, *precision, *ensemble, *device;
    int64_t overlap, batch, threads;
    double start_s, duration_s;
    size_t memory_bytes;
    bool tta, json, overwrite, list_models;
} options;

#define AT(member) offsetof(options, member)

static const flag flags[] = {
    {NULL, 0, FLAG_HEADING, 0, NULL, "What goes in and out", 0, 0},
    {"output", 'o', FLAG_TEXT, AT(output), "DIR",
     "folder for the stems, default `separated`; - writes one stem as WAV to standard output", 0,
     0},
    {"template", 0, FLAG_TEXT, AT(template_text), "TEXT",
     "names of the outputs, with {track}, {stem} and {model}; default '{track}/{stem}'. Files "
     "found in a folder keep "
     "their place below it",
     0, 0},
    {"format", 0, FLAG_TEXT, AT(format), "wav|flac|ogg|opus|mp3",
     "kind of the outputs, default wav", 0, 0},
    {"subtype", 0, FLAG_TEXT, AT(subtype), "pcm_16|pcm_24|float",
     "samples of the outputs: wav has all three, default float; flac pcm_16 and pcm_24, default "
     "pcm_24",
     0, 0},
    {"start", 0, FLAG_SECONDS, AT(start_s), "TIME", "begin here: seconds or mm:ss", 0, 0},
    {"duration", 0, FLAG_SECONDS, AT(duration_s), "TIME", "take only so much: seconds or mm:ss",
     1e-3, 0},
    {"overwrite", 0, FLAG_SWITCH, AT(overwrite), NULL, "separate again what is already there", 0,
     0},
    {NULL, 0, FLAG_HEADING, 0, NULL, "The model", 0, 0},
    {"model", 'm', FLAG_TEXTS, AT(models), "FILE|NAME",
     "checkpoint, or the name of one in the models folder; may be left out when there is only one. "
     "Several: see "
     "--ensemble",
     0, 0},
    {"config", 0, FLAG_TEXTS, AT(configs), "FILE",
     "configuration, when it is not beside the checkpoint; with several models one for each, in "
     "their order",
     0, 0},
    {"set", 0, FLAG_TEXTS, AT(settings), "KEY=VALUE",
     "a setting that goes before the configuration, or before what was inferred", 0, 0},
    {"adapter", 'a', FLAG_TEXT, AT(adapter), "DIR",
     "an adapter of `bandsaw finetune` or of peft, merged into the model when it is loaded", 0, 0},
    {"adapter-scale", 0, FLAG_TEXT, AT(adapter_scale), "SHARE",
     "how much of its change is made, default 1", 0, 0},
    {"list-models", 0, FLAG_SWITCH, AT(list_models), NULL, "list the models folder and stop", 0, 0},
    {"stems", 0, FLAG_LIST, AT(stems), "A,B",
     "only these; what no wanted stem needs is not computed", 0, 0},
    {"residual", 0, FLAG_TEXT, AT(residual), "NAME",
     "also write the mix minus the chosen stems, under this name", 0, 0},
    {"ensemble", 0, FLAG_TEXT, AT(ensemble), SAW_ENSEMBLE_KINDS,
     "how the estimates of several models become one: of waveforms, or of spectrogram magnitudes "
     "with the phase of the "
     "mean waveform",
     0, 0},
    {"weights", 0, FLAG_LIST, AT(weights), "A,B", "weights of the models in a mean, in their order",
     0, 0},
    {NULL, 0, FLAG_HEADING, 0, NULL, "How it is computed", 0, 0},
    {"chunk", 0, FLAG_TEXT, AT(chunk), "SECONDS|whole",
     "length of a window, default the model's; whole: one forward over the whole input, memory "
     "grows with it",
     0, 0},
    {"stitch", 0, FLAG_TEXT, AT(stitch), "NAME",
     "how windows are joined: msst, demucs, fade or spleeter, default the model's", 0, 0},
    {"overlap", 0, FLAG_INT, AT(overlap), "N", "windows over every sample, default the model's", 1,
     64},
    {"batch", 0, FLAG_INT, AT(batch), "N",
     "windows a forward, default 1; changes no bit of the result", 1, 256},
    {"tta", 0, FLAG_SWITCH, AT(tta), NULL,
     "mean of the mix as it is, with its channels swapped and with its sign turned: slightly "
     "better, 3 times slower",
     0, 0},
    {"precision", 0, FLAG_TEXT, AT(precision), "f32|bf16|int8",
     "what products are made in, default the model's", 0, 0},
    {"device", 0, FLAG_TEXT, AT(device), "cpu", "where it is computed", 0, 0},
    {"threads", 0, FLAG_INT, AT(threads), "N",
     "default one per processor; changes no bit of the result", 1, 1024},
    {"memory", 0, FLAG_BYTES, AT(memory_bytes), "LIMIT",
     "refuse to start when it would need more, as 2G", 0, 0},
    {NULL, 0, FLAG_HEADING, 0, NULL, "What is said", 0, 0},
    {"json", 0, FLAG_SWITCH, AT(json), NULL, "one JSON object a line on standard output", 0, 0},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw separate song.mp3 --model model.ckpt",
     "all stems, as separated/song/vocals.wav and so on"},
    {"bandsaw separate album/ -o stems --format flac",
     "every song of a folder; run it again to go on after a break"},
    {"bandsaw separate song.wav --stems vocals --residual instrumental",
     "the vocals, and all the rest"},
    {"bandsaw separate song.wav -m a.ckpt -m b.ckpt --ensemble mean_wave --weights 2,1",
     "two models joined"},
    {"ffmpeg -i film.mkv -f wav - | bandsaw separate - -o - --stems vocals > vocals.wav",
     "in a pipe"},
    {NULL, NULL}};

static int run_separate(int argc, char **argv);

const command command_separate = {.name = "separate",
                                  .operands = "INPUT...",
                                  .summary = "separate songs into stems",
                                  .description =
                                      "Separates audio files, folders of them, or standard input "
                                      "(-) with a checkpoint. Outputs have the input's "
                                      "rate, channels and length, appear only when they are whole, "
                                      "and are skipped when they are already there.",
                                  .flags = flags,
                                  .examples = examples,
                                  .least_operands = 0,
                                  .most_operands = -1,
                                  .run = run_separate};

/* ---- the command line ------------------------------------------------------------------------ */

static int bad(const char *sentence)
{
    return usage_error("separate", "%s", sentence);
}

/* Contradictions; 0 when there are none. */
static int check_options(const options *o, int inputs, char **input)
{
    int standard = 0;
    for (int i = 0; i < inputs; i++)
        standard += !strcmp(input[i], "-");
    bool to_stdout = !strcmp(o->output, "-");
    if (o->list_models)
        return inputs ? bad("--list-models takes no inputs") : 0;
    if (!inputs)
        return bad("what should be separated? Usage is `bandsaw separate [FLAGS] INPUT...`");
    if (standard > 1)
        return bad("standard input (-) can be read only once");
    if (to_stdout && (inputs > 1 || o->stems.count != 1 || o->residual))
        return bad("-o - writes one stem of one input: name it with --stems, without --residual");
    if (to_stdout && o->json)
        return bad("--json and -o - would both write to standard output");
    if (to_stdout && strcmp(o->format, "wav"))
        return bad("-o - writes wav only: leave --format out");
    if (to_stdout && isatty(STDOUT_FILENO))
        return bad("-o - would write audio to the terminal: redirect it, as > vocals.wav");
    if (o->models.count > 1 && !o->ensemble)
        return bad("several models need --ensemble: how should their estimates become one?");
    if (o->models.count < 2 && o->ensemble)
        return bad("--ensemble needs two --model or more");
    if (o->models.count > SAW_ENSEMBLE_MODELS)
        return bad("there are too many models for an ensemble");
    if (o->configs.count && o->models.count && o->configs.count != o->models.count)
        return bad("--config is wanted once for every --model, or not at all");
    if (o->adapter && o->models.count > 1)
        return bad("--adapter is for one model: leave it out, or merge it with `bandsaw merge`");
    if (o->adapter_scale && !o->adapter)
        return bad("--adapter-scale needs --adapter");
    if (o->weights.count && o->weights.count != o->models.count)
        return bad("--weights needs one number for every --model");
    if (o->weights.count && strncmp(o->ensemble, "mean", 4))
        return bad("--weights belong to mean_wave and mean_mag, not to a median, min or max");
    if (o->chunk && !strcmp(o->chunk, "whole") && (o->overlap || o->batch))
        return bad("--chunk whole has no windows: leave --overlap and --batch out");
    return 0;
}

/* The job that the flags ask for; the models are found later. 0, or the exit code. */
static int make_job_options(saw_context *ctx, const options *o, saw_job_options *job,
                            double *weights)
{
    *job = (saw_job_options){.precision = SAW_PRECISION_DEFAULT,
                             .device = o->device,
                             .settings = o->settings.item,
                             .n_settings = o->settings.count,
                             .adapter = o->adapter,
                             .stems = o->stems.count ? o->stems.item : NULL,
                             .n_stems = o->stems.count,
                             .residual = o->residual,
                             .overlap = (int)o->overlap,
                             .stitch = o->stitch,
                             .batch = (int)o->batch,
                             .tta = o->tta,
                             .start_s = o->start_s,
                             .duration_s = o->duration_s,
                             .memory_bytes = o->memory_bytes};
    if (saw_audio_format_parse(ctx, o->format, o->subtype, &job->format))
        return bad(saw_context_error(ctx));
    if (o->precision)
        job->precision = !strcmp(o->precision, "f32")    ? SAW_PRECISION_F32
                         : !strcmp(o->precision, "bf16") ? SAW_PRECISION_BF16
                                                         : SAW_PRECISION_INT8;
    if (o->adapter_scale && !(saw_parse_double(o->adapter_scale, &job->adapter_strength) &&
                              job->adapter_strength > 0 && job->adapter_strength <= 2))
        return usage_error("separate",
                           "--adapter-scale %s makes no sense: a share above 0 is wanted, as 0.5",
                           o->adapter_scale);
    if (o->ensemble)
        saw_ensemble_kind_parse(o->ensemble, &job->ensemble);
    for (int i = 0; i < o->weights.count; i++)
        if (!saw_parse_double(o->weights.item[i], &weights[i]) || !(weights[i] >= 0))
            return usage_error("separate",
                               "--weights %s makes no sense: numbers from 0 on are wanted",
                               o->weights.item[i]);
    job->weights = o->weights.count ? weights : NULL;
    job->whole = o->chunk && !strcmp(o->chunk, "whole");
    if (o->chunk && !job->whole &&
        !(saw_parse_double(o->chunk, &job->chunk_s) && job->chunk_s >= 0.01 &&
          job->chunk_s <= 36000))
        return usage_error("separate",
                           "--chunk %s makes no sense: seconds from 0.01 on, or whole, are wanted",
                           o->chunk);
    return 0;
}

static int list_models(saw_context *ctx, bool json)
{
    saw_known_models known;
    saw_status status = saw_known_models_list(ctx, &known);
    for (int i = 0; i < known.count; i++)
        if (json)
            cli_print_json(json_pack("{s:o,s:o}", "name", cli_json_text(known.models[i].name),
                                     "path", cli_json_text(known.models[i].path)));
        else
            printf("%-32s %s\n", known.models[i].name, known.models[i].path);
    if (!status && !known.count && !json)
        printf("There are no models yet in %s\n                        or %s: `bandsaw model get` "
               "fetches one\n",
               known.folders[0], known.folders[1]);
    saw_known_models_free(&known);
    return status ? cli_failed(ctx) : 0;
}

/* Paths of the models that were named, or of the only one there is, or of the catalogue's default.
 */
static saw_status find_models(saw_context *ctx, const saw_known_models *known, const options *o,
                              const char **paths, int *count)
{
    saw_status status = SAW_OK;
    *count = o->models.count;
    for (int i = 0; i < o->models.count && !status; i++)
        status = saw_known_models_find(known, o->models.item[i], &paths[i]);
    if (o->models.count)
        return status;
    *count = 1;
    for (int i = 0; i < known->count; i++)
        if (known->count == 1 || !strcmp(known->models[i].name, saw_catalogue_default())) {
            paths[0] = known->models[i].path;
            return SAW_OK;
        }
    if (known->count)
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "there are %d models in the models folder: choose one with --model (`bandsaw "
            "separate --list-models` shows them)",
            known->count);
    return saw_fail(
        ctx, SAW_ERR_ARGUMENT,
        "no model was named, and none is here yet: fetch one with `bandsaw model get`, or "
        "use --model FILE");
}

/* ---- progress -------------------------------------------------------------------------------- */

/* Seconds of audio of the whole batch. Only on a terminal. */
static struct {
    bool wanted, visible;
    double total_s, before_s, started, shown;
    int files, file;
} bar;

static void clear_bar(void)
{
    if (bar.visible)
        fprintf(stderr, "\r\033[K");
    bar.visible = false;
}

static void show_bar(void *user, int64_t done, int64_t total, int rate_hz)
{
    (void)user, (void)total;
    enum { WIDTH = 24 };
    double now = saw_seconds(), audio_s = bar.before_s + (double)done / rate_hz,
           speed = audio_s / (now - bar.started);
    if (now - bar.shown < 0.1)
        return;
    bar.shown = now;
    char line[160], cells[WIDTH + 1];
    double part = bar.total_s > 0 ? fmin(audio_s / bar.total_s, 1) : 0;
    for (int i = 0; i < WIDTH; i++)
        cells[i] = i < part * WIDTH ? '#' : '-';
    cells[WIDTH] = 0;
    int n = 0;
    if (bar.total_s > 0) {
        int left = (int)ceil((bar.total_s - audio_s) / fmax(speed, 1e-9));
        n = snprintf(line, sizeof line, "[%s] %3.0f %%  %.2f x real time  %d:%02d left", cells,
                     part * 100, speed, left / 60, left % 60);
    } else {
        n = snprintf(line, sizeof line, "%.0f s done  %.2f x real time", audio_s, speed);
    }
    if (bar.files > 1)
        snprintf(line + n, sizeof line - (size_t)n, "  file %d of %d", bar.file, bar.files);
    struct winsize size = {0};
    int columns =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col - 1 : 79;
    fprintf(stderr, "\r\033[K%.*s", columns, line);
    bar.visible = true;
}

/* Length of a file in the section that is wanted; 0 when it cannot be told. */
static double input_seconds(saw_context *ctx, const char *path, const options *o)
{
    saw_audio_reader *r;
    if (!strcmp(path, "-") || saw_audio_open(ctx, path, &r))
        return 0;
    const saw_audio_info *info = saw_audio_reader_info(r);
    double s = info->frames > 0 ? (double)info->frames / info->rate_hz - o->start_s : 0;
    saw_audio_close(r);
    return s > 0 && o->duration_s > 0 ? fmin(s, o->duration_s) : fmax(s, 0);
}

/* ---- the batch ------------------------------------------------------------------------------- */

typedef struct item {
    const saw_input_file *input;
    char *paths[SAW_JOB_OUTPUTS];
    bool skipped;
    double seconds;
} item;

typedef struct batch {
    saw_context *ctx;
    const options *o;
    saw_job *job;
    item *items;
    int count, done, skipped, failed;
    double audio_s;
} batch;

static bool is_there(const char *path)
{
    struct stat s;
    return strcmp(path, "-") && stat(path, &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0;
}

typedef struct named {
    const char *path;
    const item *of;
} named;

static int by_path(const void *a, const void *b)
{
    return strcmp(((const named *)a)->path, ((const named *)b)->path);
}

/* No two outputs may have the same name, nor the name of an input. */
static saw_status check_names(batch *b)
{
    int outputs = saw_job_outputs(b->job), n = 0;
    named *all = saw_calloc(b->ctx, (size_t)(b->count * (outputs + 1)) + 1, sizeof *all);
    if (!all)
        return SAW_ERR_MEMORY;
    saw_status status = SAW_OK;
    for (int i = 0; i < b->count; i++) {
        for (int k = 0; k < outputs; k++)
            all[n++] = (named){b->items[i].paths[k], &b->items[i]};
    }
    qsort(all, (size_t)n, sizeof *all, by_path);
    for (int i = 1; i < n && !status; i++)
        if (!strcmp(all[i].path, all[i - 1].path))
            status = saw_fail(
                b->ctx, SAW_ERR_ARGUMENT,
                all[i].of == all[i - 1].of
                    ? "%s: all its stems would be written to %s%s: put {stem} into --template"
                    : "%s and %s would both write %s: separate them into different folders",
                all[i - 1].of->input->path,
                all[i].of == all[i - 1].of ? all[i].path : all[i].of->input->path,
                all[i].of == all[i - 1].of ? "" : all[i].path);
    for (int i = 0; i < n && !status; i++) {
        struct stat in, out;
        if (!stat(all[i].of->input->path, &in) && !stat(all[i].path, &out) &&
            in.st_dev == out.st_dev && in.st_ino == out.st_ino)
            status =
                saw_fail(b->ctx, SAW_ERR_ARGUMENT, "%s: the output %s would overwrite the input",
                         all[i].of->input->path, all[i].path);
    }
    saw_free(b->ctx, all);
    return status;
}

/* Name all outputs, and find out what is already there. */
static saw_status name_outputs(batch *b, const saw_input_list *inputs,
                               const saw_audio_format *format)
{
    bool to_stdout = !strcmp(b->o->output, "-");
    char *model = saw_path_stem(b->ctx, saw_job_model(b->job, 0)->path);
    saw_status status = model ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < inputs->count && !status; i++) {
        item *it = &b->items[i];
        it->input = &inputs->files[i];
        it->skipped = !b->o->overwrite && !to_stdout;
        for (int k = 0; k < saw_job_outputs(b->job) && !status; k++) {
            if (to_stdout)
                status = (it->paths[k] = saw_strdup(b->ctx, "-")) ? SAW_OK : SAW_ERR_MEMORY;
            else
                status = saw_output_path(b->ctx, b->o->output, b->o->template_text, it->input,
                                         saw_job_output(b->job, k), model,
                                         saw_audio_extension(format->kind), &it->paths[k]);
            it->skipped = it->skipped && !status && is_there(it->paths[k]);
        }
    }
    saw_free(b->ctx, model);
    return status ? status : check_names(b);
}

static void say_result(batch *b, const item *it, const saw_job_report *r, const char *error)
{
    clear_bar();
    if (b->o->json) {
        json_t *outputs = json_array();
        for (int k = 0; !error && k < saw_job_outputs(b->job); k++) {
            json_t *output =
                json_pack("{s:o,s:o}", "stem", cli_json_text(saw_job_output(b->job, k)), "path",
                          cli_json_text(it->paths[k]));
            if (!it->skipped) {
                const saw_audio_report *w = &r->outputs[k];
                json_object_set_new(output, "frames", json_integer(w->frames));
                json_object_set_new(output, "rate_hz", json_integer(w->rate_hz));
                json_object_set_new(output, "clipped_samples", json_integer(w->clipped));
                json_object_set_new(output, "peak", json_real(w->peak));
            }
            json_array_append_new(outputs, output);
        }
        json_t *line = json_pack("{s:s,s:o,s:s,s:o}", "type", "file", "input",
                                 cli_json_text(it->input->path), "status",
                                 error         ? "failed"
                                 : it->skipped ? "skipped"
                                               : "done",
                                 "outputs", outputs);
        if (error) {
            json_object_set_new(line, "error", cli_json_text(error));
        } else if (!it->skipped) {
            json_object_set_new(line, "rate_hz", json_integer(r->rate_hz));
            json_object_set_new(line, "channels", json_integer(r->channels));
            json_object_set_new(line, "frames", json_integer(r->frames));
            json_object_set_new(line, "seconds", json_real(r->seconds));
            json_object_set_new(line, "times_real_time",
                                json_real((double)r->frames / r->rate_hz / fmax(r->seconds, 1e-9)));
            json_object_set_new(line, "memory_bytes", json_integer((json_int_t)r->memory_bytes));
        }
        cli_print_json(line);
        return;
    }
    const char *name = strcmp(it->input->path, "-") ? it->input->path : "standard input";
    if (error) {
        bool says_name = strstr(error, name) == error;
        fprintf(stderr, "bandsaw: %s%s%s\n", says_name ? "" : name, says_name ? "" : ": ", error);
        return;
    }
    FILE *out = strcmp(b->o->output, "-") ? stdout : stderr;
    if (it->skipped) {
        fprintf(out, "%s: skipped, its stems are there already (--overwrite makes them again)\n",
                name);
        return;
    }
    double audio_s = (double)r->frames / r->rate_hz;
    fprintf(out, "%s: %.1f s in %.1f s (%.2f x real time)\n", name, audio_s, r->seconds,
            audio_s / fmax(r->seconds, 1e-9));
    for (int k = 0; k < saw_job_outputs(b->job) && out == stdout; k++)
        fprintf(out, "  %s\n", it->paths[k]);
    for (int k = 0; k < saw_job_outputs(b->job); k++)
        if (r->outputs[k].clipped)
            fprintf(stderr,
                    "bandsaw: %s: %lld samples beyond full scale were clamped (peak %.3f): "
                    "--subtype float keeps them\n",
                    strcmp(it->paths[k], "-") ? it->paths[k] : "standard output",
                    (long long)r->outputs[k].clipped, r->outputs[k].peak);
}

static void say_assumptions(const batch *b, int models)
{
    for (int m = 0; m < models; m++) {
        const saw_separator_info *info = saw_job_model(b->job, m);
        json_t *list = json_array();
        if (info->assumed_count)
            fprintf(stderr, "assumed: ");
        for (int i = 0; i < info->assumed_count; i++) {
            fprintf(stderr, "%s%s", i ? "; " : "", info->assumed[i]);
            json_array_append_new(list, cli_json_text(info->assumed[i]));
        }
        if (info->assumed_count)
            fprintf(stderr, "%s%s\n", models > 1 ? " - " : "", models > 1 ? info->path : "");
        if (b->o->json)
            cli_print_json(json_pack("{s:s,s:o,s:s,s:s,s:o}", "type", "model", "path",
                                     cli_json_text(info->path), "architecture", info->architecture,
                                     "precision", info->precision, "assumed", list));
        else
            json_decref(list);
    }
}

static int run_batch(batch *b)
{
    double started = saw_seconds();
    for (int i = 0; i < b->count && bar.wanted; i++)
        if (!b->items[i].skipped)
            bar.total_s += b->items[i].seconds =
                input_seconds(b->ctx, b->items[i].input->path, b->o);
    bar.started = saw_seconds();
    bar.files = b->count;
    for (int i = 0; i < b->count; i++) {
        item *it = &b->items[i];
        saw_job_report report = {0};
        saw_status status = SAW_OK;
        bar.file = i + 1;
        if (!it->skipped)
            status = saw_job_run(b->job, it->input->path, (const char *const *)it->paths, &report);
        if (status == SAW_ERR_CANCELLED)
            return cli_failed(b->ctx);
        say_result(b, it, &report, status ? saw_context_error(b->ctx) : NULL);
        b->failed += status != SAW_OK;
        b->skipped += it->skipped;
        b->done += !status && !it->skipped;
        b->audio_s += status || it->skipped ? 0 : (double)report.frames / report.rate_hz;
        bar.before_s += it->seconds;
    }
    clear_bar();
    double seconds = saw_seconds() - started;
    if (b->o->json)
        cli_print_json(json_pack("{s:s,s:i,s:i,s:i,s:f,s:f,s:I}", "type", "summary", "done",
                                 b->done, "skipped", b->skipped, "failed", b->failed,
                                 "audio_seconds", b->audio_s, "seconds", seconds, "memory_bytes",
                                 (json_int_t)saw_context_memory(b->ctx).peak_bytes));
    else if (b->count > 1)
        fprintf(stderr, "%d done, %d skipped, %d failed: %.1f s of audio in %.1f s\n", b->done,
                b->skipped, b->failed, b->audio_s, seconds);
    return b->failed ? EXIT_FAILED : 0;
}

static int run_inputs(saw_context *ctx, const options *o, saw_job_options *job_options, int count,
                      char **arguments)
{
    saw_input_list inputs = {.ctx = ctx};
    saw_known_models known;
    const char *models[FLAG_MAX_TEXTS];
    batch b = {.ctx = ctx, .o = o};
    saw_status status = saw_known_models_list(ctx, &known);
    for (int i = 0; i < count && !status; i++)
        status = saw_inputs_add(&inputs, arguments[i], strcmp(o->output, "-") ? o->output : NULL);
    if (!status)
        status = find_models(ctx, &known, o, models, &job_options->n_models);
    job_options->models = models;
    job_options->configs = o->configs.count ? o->configs.item : NULL;
    bar.wanted = isatty(STDERR_FILENO);
    if (bar.wanted)
        job_options->progress = show_bar;
    if (!status)
        status = saw_job_open(ctx, job_options, &b.job);
    b.count = inputs.count;
    b.items = status ? NULL : saw_calloc(ctx, (size_t)b.count + 1, sizeof *b.items);
    if (!status)
        status = b.items ? name_outputs(&b, &inputs, &job_options->format) : SAW_ERR_MEMORY;
    if (!status)
        say_assumptions(&b, job_options->n_models);
    int code = status ? cli_failed(ctx) : run_batch(&b);
    for (int i = 0; b.items && i < b.count; i++)
        for (int k = 0; k < SAW_JOB_OUTPUTS; k++)
            saw_free(ctx, b.items[i].paths[k]);
    saw_free(ctx, b.items);
    saw_job_close(b.job);
    saw_known_models_free(&known);
    saw_inputs_free(&inputs);
    return code;
}

static int run_separate(int argc, char **argv)
{
    options o = {.output = "separated", .template_text = "{track}/{stem}", .format = "wav"};
    saw_job_options job;
    double weights[FLAG_MAX_TEXTS];
    int inputs, code;
    if (!flags_parse(&command_separate, argc, argv, &o, &inputs, &code))
        return code;
    code = check_options(&o, inputs, argv);
    if (code)
        return code;
    saw_context *ctx = cli_open(o.threads);
    if (!ctx)
        return EXIT_FAILED;
    cli_before_line = clear_bar;
    if (o.list_models)
        code = list_models(ctx, o.json);
    else if (!(code = make_job_options(ctx, &o, &job, weights)))
        code = run_inputs(ctx, &o, &job, inputs, argv);
    cli_close(ctx);
    return code;
}
