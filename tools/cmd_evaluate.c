/*
 * cmd_evaluate.c - how good estimates are, held against references: a table, CSV, JSON.
 */
#include "cli.h"

#include "run/evaluate.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

typedef struct options {
    const char *reference, *estimate, *csv;
    texts metrics, sums;
    int64_t threads;
    bool json;
} options;

enum { STEM_WIDTH = 20, SCORE_WIDTH = 9 }; /* of the table's columns */

#define AT(member) offsetof(options, member)

static const flag flags[] = {
    {"reference", 'r', FLAG_TEXT, AT(reference), "DIR",
     "the true stems: song/stem.wav at any depth, or the folder of one song", 0, 0},
    {"estimate", 'e', FLAG_TEXT, AT(estimate), "DIR",
     "what is to be scored, with the same folders and names (their endings may differ)", 0, 0},
    {"metrics", 0, FLAG_LIST, AT(metrics), "A,B",
     "only these of sdr, chunk_sdr, isr, sir, sar, si_sdr, snr, l1_freq, bleedless, fullness; "
     "without isr, sir and sar it is faster",
     0, 0},
    {"sum", 0, FLAG_TEXTS, AT(sums), "NAME=A+B",
     "a stem that is the sum of others, made where there is no file of its name", 0, 0},
    {"csv", 0, FLAG_TEXT, AT(csv), "FILE", "also write a row for every song and stem", 0, 0},
    {"json", 0, FLAG_SWITCH, AT(json), NULL, "one JSON object a line on standard output", 0, 0},
    {"threads", 0, FLAG_INT, AT(threads), "N",
     "default one per processor; changes no bit of the result", 1, 1024},
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {
    {"bandsaw evaluate --reference musdb18hq/test --estimate separated --csv scores.csv",
     "every song that is in both folders"},
    {"bandsaw evaluate -r test -e separated --sum accompaniment=drums+bass+other",
     "vocals and accompaniment, from references with four stems"},
    {"bandsaw evaluate -r song -e separated/song --metrics sdr,chunk_sdr", "one song, fast"},
    {NULL, NULL}};

static int run_evaluate(int argc, char **argv);

const command command_evaluate = {
    .name = "evaluate",
    .operands = "",
    .summary = "score estimated stems against the true ones",
    .description =
        "Scores in dB (sdr: whole songs; chunk_sdr, isr, sir, sar: BSSEval version 4, medians over "
        "seconds; si_sdr, snr) and from 0 to 100 (l1_freq, bleedless, fullness), for every song "
        "and stem, with means and medians. What has no partner or does not fit is said and left "
        "out, and the exit code is 1 then.",
    .flags = flags,
    .examples = examples,
    .least_operands = 0,
    .most_operands = 0,
    .run = run_evaluate};

typedef struct report {
    saw_context *ctx;
    const options *o;
    saw_evaluation *v;
    unsigned metrics;
    saw_atomic_file csv;
} report;

/* ---- progress -------------------------------------------------------------------------------- */

/* Only on a terminal. */
static bool bar_visible;

static void clear_bar(void)
{
    if (bar_visible)
        fprintf(stderr, "\r\033[K");
    bar_visible = false;
}

static void show_bar(void *user, int song, int done, int steps)
{
    const saw_evaluation *const *v = user;
    fprintf(stderr, "\r\033[Ksong %d of %d, %3d %%  %.48s", song + 1, saw_evaluation_songs(*v),
            100 * done / steps, saw_evaluation_song(*v, song));
    bar_visible = true;
}

/* ---- numbers --------------------------------------------------------------------------------- */

#define EACH_METRIC(m, r)                                                                          \
    for (saw_metric m = 0; m < SAW_METRIC_COUNT; m++)                                              \
        if ((r)->metrics >> m & 1)

/* JSON has no names for what is not finite: then it is the string "NaN", "inf" or "-inf". */
static json_t *json_score(double score)
{
    return isfinite(score) ? json_real(score)
                           : json_string(isnan(score) ? "NaN"
                                         : score > 0  ? "inf"
                                                      : "-inf");
}

static void print_score(double score)
{
    if (isnan(score))
        printf(" %*s", SCORE_WIDTH, "-");
    else
        printf(" %*.3f", SCORE_WIDTH, score);
}

static void csv_text(FILE *f, const char *text)
{
    bool plain = !text[strcspn(text, ",\"\r\n")];
    if (!plain)
        fputc('"', f);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', f);
        fputc(*text, f);
    }
    if (!plain)
        fputc('"', f);
}

/* ---- what is said ---------------------------------------------------------------------------- */

static void print_header(const report *r)
{
    if (r->csv.file) {
        fprintf(r->csv.file, "song,stem");
        EACH_METRIC(m, r)
        fprintf(r->csv.file, ",%s", saw_metric_name(m));
        fputc('\n', r->csv.file);
    }
    if (r->o->json)
        return;
    printf("%*s", STEM_WIDTH + 2, "");
    EACH_METRIC(m, r)
    printf(" %*s", SCORE_WIDTH, saw_metric_name(m));
    putchar('\n');
}

static void csv_row(const report *r, const saw_stem_scores *row)
{
    csv_text(r->csv.file, row->song);
    fputc(',', r->csv.file);
    csv_text(r->csv.file, row->stem);
    EACH_METRIC(m, r)
    {
        if (isnan(row->score[m]))
            fprintf(r->csv.file, ",nan");
        else
            fprintf(r->csv.file, ",%.6f", row->score[m]);
    }
    fputc('\n', r->csv.file);
}

static void json_row(const report *r, const saw_stem_scores *row)
{
    json_t *line =
        json_pack("{s:s,s:o,s:o,s:b,s:b}", "type", "score", "song", cli_json_text(row->song),
                  "stem", cli_json_text(row->stem), "silent_reference", row->silent_reference,
                  "silent_estimate", row->silent_estimate);
    if (row->windows) {
        json_object_set_new(line, "windows", json_integer(row->windows));
        json_object_set_new(line, "windows_scored", json_integer(row->windows_scored));
    }
    EACH_METRIC(m, r)
    json_object_set_new(line, saw_metric_name(m), json_score(row->score[m]));
    cli_print_json(line);
}

static void print_rows(const report *r, const saw_stem_scores *rows, int count)
{
    clear_bar();
    if (!r->o->json && count)
        printf("%s\n", rows[0].song);
    for (int i = 0; i < count; i++) {
        if (r->csv.file)
            csv_row(r, &rows[i]);
        if (r->o->json) {
            json_row(r, &rows[i]);
            continue;
        }
        printf("  %-*s", STEM_WIDTH, rows[i].stem);
        EACH_METRIC(m, r)
        print_score(rows[i].score[m]);
        printf("%s%s\n", rows[i].silent_reference ? "  silent reference" : "",
               rows[i].silent_estimate ? "  silent estimate" : "");
    }
    fflush(stdout);
}

/* The mean and the median of one stem, or of all (NULL). */
static saw_status print_summary(const report *r, const char *stem)
{
    saw_score_summary s[SAW_METRIC_COUNT];
    bool complete = true;
    int rows = 0;
    EACH_METRIC(m, r)
    {
        saw_status status = saw_evaluation_summary(r->v, stem, m, &s[m]);
        if (status)
            return status;
        complete = complete && s[m].counted == s[m].rows;
        rows = s[m].rows;
    }
    if (r->o->json) {
        json_t *line = json_pack("{s:s,s:o}", "type", "summary", "stem",
                                 stem ? cli_json_text(stem) : json_null());
        EACH_METRIC(m, r)
        json_object_set_new(line, saw_metric_name(m),
                            json_pack("{s:o,s:o,s:i,s:i}", "mean", json_score(s[m].mean), "median",
                                      json_score(s[m].median), "counted", s[m].counted, "rows",
                                      s[m].rows));
        cli_print_json(line);
        return SAW_OK;
    }
    for (int median = 0; median < 2; median++) {
        printf("  %-6s %-*s", median ? "median" : "mean", STEM_WIDTH - 7,
               stem ? stem : "all stems");
        EACH_METRIC(m, r)
        print_score(median ? s[m].median : s[m].mean);
        putchar('\n');
    }
    if (!complete) {
        printf("  %-*s", STEM_WIDTH, "counted");
        EACH_METRIC(m, r)
        printf(" %*d", SCORE_WIDTH, s[m].counted);
        printf(" of %d\n", rows);
    }
    return SAW_OK;
}

static saw_status print_summaries(const report *r)
{
    saw_status status = SAW_OK;
    const char *stem;
    int stems = 0;
    if (!r->o->json && saw_evaluation_stem(r->v, 0))
        printf("over %d song%s\n", saw_evaluation_songs(r->v),
               saw_evaluation_songs(r->v) == 1 ? "" : "s");
    for (; !status && (stem = saw_evaluation_stem(r->v, stems)); stems++)
        status = print_summary(r, stem);
    return status || stems < 2 ? status : print_summary(r, NULL);
}

/* ---- the command ----------------------------------------------------------------------------- */

/* The metrics that were asked for; 0 when one is unknown, which was said. */
static unsigned parse_metrics(const texts *wanted)
{
    const char *names[SAW_METRIC_COUNT];
    unsigned metrics = 0;
    for (saw_metric m = 0; m < SAW_METRIC_COUNT; m++)
        names[m] = saw_metric_name(m);
    for (int i = 0; i < wanted->count; i++) {
        saw_metric m = 0;
        while (m < SAW_METRIC_COUNT && strcmp(names[m], wanted->item[i]))
            m++;
        if (m == SAW_METRIC_COUNT) {
            const char *near = saw_nearest_word(wanted->item[i], names, SAW_METRIC_COUNT);
            usage_error("evaluate",
                        near ? "unknown metric %s: did you mean %s?"
                             : "unknown metric %s: `bandsaw evaluate --help` lists them",
                        wanted->item[i], near);
            return 0;
        }
        metrics |= 1u << m;
    }
    return wanted->count ? metrics : SAW_METRIC_ALL;
}

static int evaluate(report *r)
{
    saw_evaluation_options wanted = {.reference = r->o->reference,
                                     .estimate = r->o->estimate,
                                     .sums = r->o->sums.item,
                                     .n_sums = r->o->sums.count,
                                     .metrics = r->metrics};
    int failed = 0;
    if (isatty(STDERR_FILENO)) {
        wanted.progress = show_bar;
        wanted.user = &r->v;
    }
    saw_status status = saw_evaluation_open(r->ctx, &wanted, &r->v);
    if (!status && r->o->csv)
        status = saw_atomic_open(r->ctx, r->o->csv, &r->csv);
    if (!status)
        print_header(r);
    for (int i = 0; !status && i < saw_evaluation_songs(r->v); i++) {
        const saw_stem_scores *rows;
        int count;
        if (!saw_evaluation_run(r->v, i, &rows, &count)) {
            print_rows(r, rows, count);
            continue;
        }
        if (saw_cancelled(r->ctx))
            status = SAW_ERR_CANCELLED;
        else
            cli_failed(r->ctx);
        failed++;
    }
    if (!status)
        status = print_summaries(r);
    if (!status && r->csv.file)
        status = saw_atomic_commit(&r->csv);
    if (status)
        return cli_failed(r->ctx);
    return failed || saw_evaluation_problems(r->v) ? EXIT_FAILED : 0;
}

static int run_evaluate(int argc, char **argv)
{
    options o = {0};
    int operands, code;
    if (!flags_parse(&command_evaluate, argc, argv, &o, &operands, &code))
        return code;
    if (!o.reference || !o.estimate)
        return usage_error("evaluate", "two folders are wanted: --reference DIR --estimate DIR");
    report r = {.o = &o, .metrics = parse_metrics(&o.metrics)};
    if (!r.metrics)
        return EXIT_USAGE;
    r.ctx = cli_open(o.threads);
    if (!r.ctx)
        return EXIT_FAILED;
    cli_before_line = clear_bar;
    code = evaluate(&r);
    saw_atomic_abort(&r.csv);
    saw_evaluation_close(r.v);
    cli_close(r.ctx);
    return code;
}
