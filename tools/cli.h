/*
 * cli.h - what the commands share.
 */
#ifndef BANDSAW_CLI_H
#define BANDSAW_CLI_H

#include "flags.h"

#include <jansson.h>

extern const command command_separate, command_inspect, command_convert, command_bench,
    command_evaluate, command_model, command_finetune, command_train,
    command_dataset, command_report, command_merge;

/** Open a context whose warnings go to stderr and that Ctrl-C cancels. NULL after saying why not.
 * threads 0: one per processor. */
saw_context *cli_open(int64_t threads);
void cli_close(saw_context *ctx);
/** Say the context's sentence on stderr and return the exit code: EXIT_FAILED, or EXIT_INTERRUPTED.
 */
int cli_failed(saw_context *ctx);

/** Remove the progress bar, if there is one, before a line is written; NULL: nothing is shown. */
extern void (*cli_before_line)(void);

/** A string for JSON, whatever its bytes: what is not UTF-8 becomes `?`. */
json_t *cli_json_text(const char *text);
/** One line on stdout; takes the object over. */
void cli_print_json(json_t *object);

#endif
