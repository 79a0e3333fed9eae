/*
 * bandsaw.c - the program: which command is wanted.
 */
#include "cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const command *const commands[] = {&command_separate,
                                          &command_finetune,
                                          &command_train,
                                          &command_report,
                                          &command_merge,
                                          &command_dataset,
                                          &command_evaluate,
                                          &command_inspect,
                                          &command_convert,
                                          &command_model,
                                          &command_bench,
                                          NULL};

/* ---- what the commands share ----------------------------------------------------------------- */

void (*cli_before_line)(void);

static saw_context *volatile interruptible;

static void interrupt(int number)
{
    if (interruptible)
        saw_context_cancel(interruptible);
    else
        _Exit(128 + number);
}

static void print_log(void *user, int level, const char *line)
{
    (void)user;
    if (level > SAW_LOG_WARN)
        return;
    if (cli_before_line)
        cli_before_line();
    fprintf(stderr, "bandsaw: %s\n", line);
}

saw_context *cli_open(int64_t threads)
{
    saw_context *ctx;
    if (saw_context_open(&ctx, &(saw_options){.threads = (int)threads, .log = print_log})) {
        fprintf(stderr, "bandsaw: the threads could not be started\n");
        return NULL;
    }
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = SA_RESTART | SA_RESETHAND};
    interruptible = ctx;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is a failing write */
    return ctx;
}

void cli_close(saw_context *ctx)
{
    interruptible = NULL;
    saw_context_close(ctx);
}

int cli_failed(saw_context *ctx)
{
    if (cli_before_line)
        cli_before_line();
    if (saw_cancelled(ctx)) {
        fprintf(stderr, "bandsaw: interrupted\n");
        return EXIT_INTERRUPTED;
    }
    fprintf(stderr, "bandsaw: %s\n", saw_context_error(ctx));
    return EXIT_FAILED;
}

json_t *cli_json_text(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char *plain = strdup(text);
    for (char *p = plain; p && *p; p++)
        if ((unsigned char)*p >= 128)
            *p = '?';
    string = json_string(plain ? plain : "");
    free(plain);
    return string;
}

void cli_print_json(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(object);
}

/* ---- commands -------------------------------------------------------------------------------- */

static const command *find_command(const char *name)
{
    for (int i = 0; commands[i]; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static void print_help(void)
{
    printf("bandsaw %s - separate music into stems\n\nUsage: bandsaw COMMAND [FLAGS] "
           "...\n\nCommands:\n",
           saw_version());
    for (int i = 0; commands[i]; i++)
        printf("  %-12s%s\n", commands[i]->name, commands[i]->summary);
    printf("  %-12s%s\n", "completion",
           "print the completion for a shell: bandsaw completion bash|zsh");
    printf("  %-12s%s\n", "man", "print the manual page: bandsaw man | man -l -");
    printf("  %-12s%s\n", "version", "print the version");
    printf("\n`bandsaw COMMAND --help` shows its flags and examples. The shortest way to stems:\n"
           "  bandsaw separate song.mp3 --model model.ckpt\n");
}

static int unknown_command(const char *name)
{
    const char *names[16];
    int count = 0;
    for (; commands[count]; count++)
        names[count] = commands[count]->name;
    names[count++] = "completion";
    names[count++] = "version";
    names[count++] = "help";
    const char *near = saw_nearest_word(name, names, count);
    if (near)
        return usage_error("", "unknown command %s: did you mean %s?", name, near);
    return usage_error("", "unknown command %s: `bandsaw --help` lists what there is", name);
}

static int complete(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "bash"))
        print_bash_completion(commands);
    else if (argc == 2 && !strcmp(argv[1], "zsh"))
        print_zsh_completion(commands);
    else
        return usage_error("completion", "name the shell: bandsaw completion bash, or zsh");
    return 0;
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    const command *c = find_command(name);
    if (c)
        return c->run(argc - 1, argv + 1);
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        c = argc > 2 ? find_command(argv[2]) : NULL;
        if (argc > 2 && !c)
            return unknown_command(argv[2]);
        if (c)
            flags_help(c, stdout);
        else
            print_help();
        return argc > 1 ? 0 : EXIT_USAGE;
    }
    if (!strcmp(name, "--version") || !strcmp(name, "version"))
        return printf("bandsaw %s\n", saw_version()) < 0;
    if (!strcmp(name, "completion"))
        return complete(argc - 1, argv + 1);
    if (!strcmp(name, "man")) {
        print_man_page(commands);
        return 0;
    }
    return unknown_command(name);
}

int main(int argc, char **argv)
{
    int code = run(argc, argv);
    if (fflush(stdout) || ferror(stdout)) {
        perror("bandsaw: standard output");
        return code ? code : EXIT_FAILED;
    }
    return code;
}
