/*
 * cmd_report.c - the report of a run, made anew.
 */
#include "cli.h"

#include "run/report.h"

static const flag flags[] = {{NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example examples[] = {{"bandsaw report run-santoor", "writes run-santoor/report.html"},
                                   {NULL, NULL}};

static int run_report(int argc, char **argv);

const command command_report = {
    .name = "report",
    .operands = "RUN...",
    .summary = "write the report of a training run",
    .description = "Makes report.html from what lies in the folder of a run: curves, scores of "
                   "every song, spectrograms, players, the split and the recipe, in one file that "
                   "needs nothing else. A run writes it by itself, whenever it validates.",
    .flags = flags,
    .examples = examples,
    .least_operands = 1,
    .most_operands = -1,
    .run = run_report};

static int run_report(int argc, char **argv)
{
    int runs, code;
    if (!flags_parse(&command_report, argc, argv, NULL, &runs, &code))
        return code;
    saw_context *ctx = cli_open(1);
    if (!ctx)
        return EXIT_FAILED;
    code = 0;
    for (int i = 0; i < runs && !code; i++) {
        if (saw_report_write(ctx, argv[i]))
            code = cli_failed(ctx);
        else
            printf("%s/report.html\n", argv[i]);
    }
    cli_close(ctx);
    return code;
}
