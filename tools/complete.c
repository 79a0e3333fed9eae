/*
 * complete.c - shell completion and the man page, from the tables of flags.
 */
#include "flags.h"

#include <ctype.h>
#include <string.h>

#define EACH_FLAG(f, c)                                                                            \
    for (const flag *f = (c)->flags; f->name || f->kind == FLAG_HEADING; f++)                      \
        if (f->name)

static bool is_words(const char *value)
{
    return value && value[0] >= 'a' && value[0] <= 'z';
}

static void print_words(const char *words)
{
    for (; *words; words++)
        putchar(*words == '|' ? ' ' : *words);
}

void print_bash_completion(const command *const *commands)
{
    printf("# bash completion of bandsaw: source <(bandsaw completion bash)\n"
           "_bandsaw() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
           "        COMPREPLY=($(compgen -W \"");
    for (int i = 0; commands[i]; i++)
        printf("%s ", commands[i]->name);
    printf("help version\" -- \"$word\"))\n"
           "        return\n"
           "    fi\n"
           "    case \"${COMP_WORDS[1]} $before\" in\n");
    for (int i = 0; commands[i]; i++) {
        EACH_FLAG(f, commands[i])
        {
            if (f->kind == FLAG_SWITCH)
                continue;
            printf("    '%s --%s'", commands[i]->name, f->name);
            if (f->letter)
                printf("|'%s -%c'", commands[i]->name, f->letter);
            if (is_words(f->value)) {
                printf(") COMPREPLY=($(compgen -W '");
                print_words(f->value);
                printf("' -- \"$word\")); return ;;\n");
            } else if (strstr(f->value, "DIR")) {
                printf(") COMPREPLY=($(compgen -d -- \"$word\")); return ;;\n");
            } else if (strstr(f->value, "FILE")) {
                printf(") COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n");
            } else {
                printf(") return ;;\n");
            }
        }
    }
    printf("    esac\n"
           "    if [[ $word != -* ]]; then\n"
           "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
           "        return\n"
           "    fi\n"
           "    case \"${COMP_WORDS[1]}\" in\n");
    for (int i = 0; commands[i]; i++) {
        printf("    %s) COMPREPLY=($(compgen -W '", commands[i]->name);
        EACH_FLAG(f, commands[i])
        printf("--%s ", f->name);
        printf("--help' -- \"$word\")) ;;\n");
    }
    printf("    esac\n"
           "}\n"
           "complete -o filenames -o bashdefault -F _bandsaw bandsaw\n");
}

/* Text inside '...[...]' of _arguments. */
static void print_zsh_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            printf("'\\''");
        else if (strchr("[]:\\", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

void print_zsh_completion(const command *const *commands)
{
    printf("#compdef bandsaw\n"
           "# zsh completion of bandsaw: bandsaw completion zsh > a folder of $fpath/_bandsaw\n"
           "_bandsaw() {\n"
           "    if (( CURRENT == 2 )); then\n"
           "        local -a commands=(\n");
    for (int i = 0; commands[i]; i++) {
        printf("            '%s:", commands[i]->name);
        print_zsh_text(commands[i]->summary);
        printf("'\n");
    }
    printf("            'help:show help' 'version:show the version')\n"
           "        _describe command commands\n"
           "        return\n"
           "    fi\n"
           "    local command=$words[2]\n"
           "    shift words; (( CURRENT-- ))\n"
           "    case $command in\n");
    for (int i = 0; commands[i]; i++) {
        printf("    %s)\n        _arguments \\\n", commands[i]->name);
        EACH_FLAG(f, commands[i])
        {
            bool often = f->kind == FLAG_TEXTS || f->kind == FLAG_LIST;
            printf("            '%s--%s[", often ? "*" : "", f->name);
            print_zsh_text(f->help);
            putchar(']');
            if (f->kind != FLAG_SWITCH) {
                printf(":");
                print_zsh_text(f->value);
                if (is_words(f->value)) {
                    printf(":(");
                    print_words(f->value);
                    putchar(')');
                } else {
                    printf(":%s", strstr(f->value, "DIR")    ? "_files -/"
                                  : strstr(f->value, "FILE") ? "_files"
                                                             : "");
                }
            }
            printf("' \\\n");
        }
        printf("            '*:file:_files' ;;\n");
    }
    printf("    esac\n"
           "}\n"
           "_bandsaw \"$@\"\n");
}

/* Text of a man page: hyphens and backslashes as they are typed, no line that begins with a dot. */
static void print_man_text(const char *text)
{
    if (*text == '.' || *text == '\'')
        printf("\\&");
    for (; *text; text++) {
        if (*text == '-')
            printf("\\-");
        else if (*text == '\\')
            printf("\\e");
        else
            putchar(*text);
    }
}

void print_man_page(const command *const *commands)
{
    printf(".TH BANDSAW 1 \"\" \"bandsaw %s\"\n"
           ".SH NAME\nbandsaw \\- separate music into stems\n"
           ".SH SYNOPSIS\n",
           saw_version());
    for (int i = 0; commands[i]; i++) {
        printf(".B bandsaw %s\n", commands[i]->name);
        print_man_text(commands[i]->flags->name || commands[i]->flags->help ? "[FLAGS] " : "");
        print_man_text(commands[i]->operands);
        printf("\n.br\n");
    }
    for (int i = 0; commands[i]; i++) {
        const command *c = commands[i];
        printf(".SH \"");
        for (const char *p = c->name; *p; p++)
            putchar(toupper((unsigned char)*p));
        printf("\"\n");
        print_man_text(c->description);
        putchar('\n');
        for (const flag *f = c->flags; f->name || f->kind == FLAG_HEADING; f++) {
            if (!f->name) {
                printf(".SS \"%s\"\n", f->help);
                continue;
            }
            printf(".TP\n\\fB");
            if (f->letter)
                printf("\\-%c\\fR, \\fB", f->letter);
            printf("\\-\\-");
            print_man_text(f->name);
            printf("\\fR \\fI");
            print_man_text(f->value ? f->value : "");
            printf("\\fR\n");
            print_man_text(f->help);
            putchar('\n');
        }
        printf(".SS Examples\n");
        for (const example *e = c->examples; e->line; e++) {
            printf(".TP\n\\fB");
            print_man_text(e->line);
            printf("\\fR\n");
            print_man_text(e->what);
            putchar('\n');
        }
    }
    printf(".SH \"EXIT STATUS\"\n0: everything was done. 1: something failed, and was said. 2: the "
           "command line makes no sense. 130: interrupted.\n");
}
