/*
 * shell.h - run lines as a person types them. Outputs go to stdout.txt and stderr.txt in the
 * working folder.
 */
#ifndef SAW_TEST_SHELL_H
#define SAW_TEST_SHELL_H

#include <stddef.h>
#include <sys/types.h>

/** All bytes of a file and a zero; "" when there is none. The caller's to free. */
char *shell_read(const char *path, size_t *size);
/** Start a line of sh. */
pid_t shell_start(const char *line);
/** Wait for it: its exit code, or 128 + the signal that ended it. */
int shell_finish(pid_t pid);
/** Run a line; the test fails unless it ends with `code`, and `says` is in one of its outputs. */
void shell_run(const char *line, int code, const char *says);
/** The same, and its stderr is one line. */
void shell_refuse(const char *line, int code, const char *says);

#endif
