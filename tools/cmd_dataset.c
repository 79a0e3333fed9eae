/*
 * cmd_dataset.c - data sets: check one before training on it, list its songs.
 */
#include "cli.h"

#include "datasets/check.h"
#include "datasets/dataset.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

typedef struct options {
    const char *layout;
    texts stems;
    int64_t rate_hz, validation, seed;
    bool json;
} options;

enum { KIND_WIDTH = 10, STEM_WIDTH = 14 }; /* of the table's columns */

#define AT(member) offsetof(options, member)

static const flag flags[] = {
    {"layout", 0, FLAG_TEXT, AT(layout), "csv|pairs|moisesdb|musdb|folder",
     "how the files lie; recognised when it is not said", 0, 0},
    {"rate", 0, FLAG_INT, AT(rate_hz), "HZ",
     "check: the rate that files should have; else that of most", 1000, 768000},
    {"stems", 0, FLAG_LIST, AT(stems), "A,B",
     "list: only these, as santoor,other or keys=piano+organ; other is the rest of the mixture", 0,
     0},
    {"validation", 0, FLAG_INT, AT(validation), "PERCENT",
     "list: of the songs, to show which ones they would be", 0, 99},
    {"seed", 0, FLAG_INT, AT(seed), "N", "list: of that choice", 0, 0},
    {"json", 0, FLAG_SWITCH, AT(json), NULL, "one JSON object a line on standard output", 0, 0},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw dataset check my_songs", "what is wrong with it; exit code 1 when anything is"},
    {"bandsaw dataset check my_songs --rate 44100 --json", "for programs"},
    {"bandsaw dataset list my_songs --stems santoor,other --validation 10",
     "its songs, and which tenth would validate"},
    {NULL, NULL}};

static int run_dataset(int argc, char **argv);

const command command_dataset = {
    .name = "dataset",
    .operands = "check|list DIR",
    .summary = "songs to train with: find what is wrong with them, list them",
    .description =
        "check reads every file once and finds mixtures that are not the sum of their stems, "
        "silent and clipped stems, DC, odd rates, channels and lengths, bleed between stems, the "
        "same audio twice, damaged files and samples that are no numbers. DIR is a folder of songs "
        "(MUSDB18, MoisesDB), a folder with one folder for each stem, pairs of mixture and target, "
        "or a CSV file. The exit code is 1 when a fault was found; notes are no faults.",
    .flags = flags,
    .examples = examples,
    .least_operands = 2,
    .most_operands = 2,
    .run = run_dataset};

/* ---- check ----------------------------------------------------------------------------------- */

/* Only on a terminal. */
static struct {
    bool visible;
    double started, shown;
    const saw_check *check;
} bar;

static void clear_bar(void)
{
    if (bar.visible)
        fprintf(stderr, "\r\033[K");
    bar.visible = false;
}

static void show_bar(void *user, int song, double done_s, double total_s)
{
    (void)user;
    double now = saw_seconds(), part = total_s > 0 ? fmin(done_s / total_s, 1) : 0;
    if (now - bar.shown < 0.1)
        return;
    bar.shown = now;
    int left_s = part > 0 ? (int)ceil((now - bar.started) * (1 - part) / part) : 0;
    fprintf(stderr, "\r\033[Ksong %d of %d, %3.0f %%, %d:%02d left  %.40s", song + 1,
            saw_check_songs(bar.check), 100 * part, left_s / 60, left_s % 60,
            saw_check_song(bar.check, song));
    bar.visible = true;
}

static void print_fault(const saw_fault *f, bool json)
{
    if (!json) {
        printf("  %-*s %-*s %s%s\n", KIND_WIDTH, saw_fault_name(f->kind), STEM_WIDTH,
               f->stem ? f->stem : "-", f->note ? "note: " : "", f->text);
        return;
    }
    json_t *line =
        json_pack("{s:s,s:s,s:b,s:o,s:o,s:o}", "type", "fault", "kind", saw_fault_name(f->kind),
                  "note", f->note, "song", cli_json_text(f->song), "stem",
                  f->stem ? cli_json_text(f->stem) : json_null(), "text", cli_json_text(f->text));
    json_object_set_new(line, "value", isfinite(f->value) ? json_real(f->value) : json_null());
    cli_print_json(line);
}

/* Those from `first` on, below the names of their songs. */
static void print_faults(const saw_check *c, int first, bool json)
{
    clear_bar();
    for (int i = first; i < saw_check_faults(c); i++) {
        const saw_fault *f = saw_check_fault(c, i);
        if (!json && (i == first || strcmp(f->song, saw_check_fault(c, i - 1)->song)))
            printf("%s\n", f->song);
        print_fault(f, json);
    }
    fflush(stdout);
}

static int print_sum(const saw_check *c, bool json)
{
    int notes = 0, all = saw_check_faults(c);
    for (int i = 0; i < all; i++)
        notes += saw_check_fault(c, i)->note;
    int faults = all - notes, songs = saw_check_songs(c);
    if (json)
        cli_print_json(json_pack("{s:s,s:s,s:i,s:f,s:i,s:i}", "type", "summary", "layout",
                                 saw_check_layout(c), "songs", songs, "seconds",
                                 saw_check_seconds(c), "faults", faults, "notes", notes));
    else
        printf("%d song%s, %.1f minutes, layout %s: %d fault%s, %d note%s\n", songs,
               songs == 1 ? "" : "s", saw_check_seconds(c) / 60, saw_check_layout(c), faults,
               faults == 1 ? "" : "s", notes, notes == 1 ? "" : "s");
    return faults ? EXIT_FAILED : 0;
}

static int check(saw_context *ctx, const char *path, const options *o)
{
    saw_check_options wanted = {.layout = o->layout, .rate_hz = (int)o->rate_hz};
    saw_check *c = NULL;
    if (isatty(STDERR_FILENO))
        wanted.progress = show_bar;
    saw_status status = saw_check_open(ctx, path, &wanted, &c);
    bar.check = c;
    bar.started = saw_seconds();
    for (int i = 0; !status && i <= saw_check_songs(c); i++) {
        int first;
        status = saw_check_run(c, i, &first);
        if (!status)
            print_faults(c, first, o->json);
    }
    clear_bar();
    int code = status ? cli_failed(ctx) : print_sum(c, o->json);
    saw_check_close(c);
    return code;
}

/* ---- list ------------------------------------------------------------------------------------ */

static const char *const parts[] = {
    [SAW_SONG_TRAIN] = "train", [SAW_SONG_VALID] = "valid", [SAW_SONG_UNUSED] = "unused"};

static void list_song(const saw_dataset *d, const saw_song *g, bool json)
{
    double seconds = (double)g->samples / saw_dataset_rate_hz(d);
    json_t *names = json_array();
    if (!json)
        printf("%-6s %4d:%02d  %s:", parts[g->part], (int)seconds / 60, (int)seconds % 60, g->name);
    for (int s = 0; s < saw_dataset_sources(d); s++) {
        const char *name = saw_dataset_stem(d, s);
        if (!(g->has >> s & 1))
            continue;
        json_array_append_new(names, name ? cli_json_text(name) : json_null());
        if (!json)
            printf(" %s", name ? name : "(the rest)");
    }
    if (json)
        cli_print_json(json_pack("{s:s,s:o,s:s,s:f,s:O}", "type", "song", "song",
                                 cli_json_text(g->name), "part", parts[g->part], "seconds", seconds,
                                 "stems", names));
    else
        putchar('\n');
    json_decref(names);
}

static int list(saw_context *ctx, const char *path, const options *o)
{
    saw_dataset *d = NULL;
    const saw_dataset_options wanted = {.layout = o->layout,
                                        .stems = o->stems.count ? o->stems.item : NULL,
                                        .n_stems = o->stems.count};
    const saw_split_options split = {.fraction = (double)o->validation / 100,
                                     .seed = (uint64_t)o->seed};
    saw_status status = saw_dataset_open(ctx, path, &wanted, &d);
    if (!status)
        status = saw_dataset_split(d, &split);
    for (int i = 0; !status && i < saw_dataset_songs(d); i++)
        list_song(d, saw_dataset_song(d, i), o->json);
    if (!status && !o->json)
        printf("%d song%s, layout %s\n", saw_dataset_songs(d), saw_dataset_songs(d) == 1 ? "" : "s",
               saw_dataset_layout(d));
    saw_dataset_close(d);
    return status ? cli_failed(ctx) : 0;
}

static int run_dataset(int argc, char **argv)
{
    options o = {0};
    int count, code;
    if (!flags_parse(&command_dataset, argc, argv, &o, &count, &code))
        return code;
    bool checks = !strcmp(argv[0], "check");
    if (!checks && strcmp(argv[0], "list"))
        return usage_error("dataset", "unknown word %s: check or list is meant", argv[0]);
    saw_context *ctx = cli_open(0);
    if (!ctx)
        return EXIT_FAILED;
    cli_before_line = clear_bar;
    code = checks ? check(ctx, argv[1], &o) : list(ctx, argv[1], &o);
    cli_close(ctx);
    return code;
}
