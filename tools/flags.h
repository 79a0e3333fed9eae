/*
 * flags.h - what a command takes, as one table that parses the command line and makes its help, the
 * shell completion and the man page.
 *
 * A flag's value goes to a member of the command's options struct, at `offset`, of the type that
 * `kind` says. `value` names the value for people: in upper case it is a placeholder (FILE and DIR
 * complete as files and folders), in lower case, with `|` between, the list of words that are
 * accepted.
 */
#ifndef BANDSAW_FLAGS_H
#define BANDSAW_FLAGS_H

#include "base/base.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130, FLAG_MAX_TEXTS = 64 };

typedef struct texts {
    const char *item[FLAG_MAX_TEXTS];
    int count;
} texts;

typedef enum flag_kind {
    FLAG_SWITCH,  /* bool, takes no value */
    FLAG_TEXT,    /* const char * */
    FLAG_TEXTS,   /* texts; the flag may be given several times */
    FLAG_LIST,    /* texts, divided by commas; may be given several times */
    FLAG_INT,     /* int64_t, in [least, most] */
    FLAG_SECONDS, /* double, more than 0 or least: 90, 1:30, 1:02:03.5 */
    FLAG_BYTES,   /* size_t: 2G, 800M, 512K */
    FLAG_HEADING  /* no flag: `help` is the title of those that follow */
} flag_kind;

typedef struct flag {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    flag_kind kind;
    size_t offset;
    const char *value, *help;
    double least, most; /* of numbers; most 0: no limit */
} flag;

typedef struct example {
    const char *line, *what;
} example;

typedef struct command {
    const char *name, *operands; /* "separate", "INPUT..." */
    const char *summary, *description;
    const flag *flags;       /* ends with name NULL and kind not FLAG_HEADING */
    const example *examples; /* ends with line NULL */
    int least_operands, most_operands;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
} command;

/**
 * Read argv into options and move the operands to the front of argv: *operands of them. False when
 * the program should end with *exit_code: --help was shown, or something was wrong and was said.
 */
bool flags_parse(const command *c, int argc, char **argv, void *options, int *operands,
                 int *exit_code);
/** Say one sentence on stderr, returns EXIT_USAGE. */
int usage_error(const char *name, const char *fmt, ...) SAW_PRINTF(2, 3);
void flags_help(const command *c, FILE *out);
/** The commands end with NULL. */
void print_bash_completion(const command *const *commands);
void print_zsh_completion(const command *const *commands);
void print_man_page(const command *const *commands);

#endif
