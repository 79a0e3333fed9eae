#include "flags.h"

#include <stdlib.h>
#include <string.h>

static bool is_end(const flag *f)
{
    return !f->name && f->kind != FLAG_HEADING;
}

static bool is_words(const char *value)
{
    return value && value[0] >= 'a' && value[0] <= 'z';
}

int usage_error(const char *name, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "bandsaw%s%s: ", *name ? " " : "", name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_USAGE;
}

/* ---- the nearest flag ------------------------------------------------------------------------ */

enum { WORD_ROOM = 64 };

static const flag *nearest_flag(const command *c, const char *name)
{
    const char *names[FLAG_MAX_TEXTS];
    int count = 0;
    for (const flag *f = c->flags; !is_end(f); f++)
        if (f->name && count < FLAG_MAX_TEXTS)
            names[count++] = f->name;
    const char *nearest = saw_nearest_word(name, names, count);
    for (const flag *f = c->flags; nearest && !is_end(f); f++)
        if (f->name == nearest)
            return f;
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* 90, 1:30, 1:02:03.5 */
static bool parse_seconds(const char *text, double *out)
{
    char part[WORD_ROOM];
    double total = 0;
    int parts = 0;
    for (const char *p = text;; parts++) {
        const char *colon = strchr(p, ':');
        size_t n = colon ? (size_t)(colon - p) : strlen(p);
        double v;
        if (n == 0 || n >= sizeof part || parts == 3)
            return false;
        memcpy(part, p, n);
        part[n] = 0;
        if (!saw_parse_double(part, &v) || !(v >= 0 && v < 1e9) || (parts > 0 && v >= 60))
            return false;
        total = total * 60 + v;
        if (!colon)
            break;
        p = colon + 1;
    }
    *out = total;
    return true;
}

static bool add_text(texts *t, const char *text)
{
    if (t->count == FLAG_MAX_TEXTS)
        return false;
    t->item[t->count++] = text;
    return true;
}

static bool has_word(const char *words, const char *text)
{
    size_t n = strcspn(text, "|");
    if (text[n])
        return false;
    for (const char *p = words; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (n && strncmp(p, text, n) == 0 && (p[n] == '|' || p[n] == 0))
            return true;
    return false;
}

static bool bad_value(const command *c, const flag *f, const char *text, const char *wanted)
{
    usage_error(c->name, "--%s %s makes no sense: %s", f->name, text, wanted);
    return false;
}

/* Store a value; false after saying what is wrong. */
static bool set_value(const command *c, const flag *f, char *text, void *options)
{
    void *at = (char *)options + f->offset;
    char wanted[256];
    switch (f->kind) {
    case FLAG_TEXT:
        if (is_words(f->value) && !has_word(f->value, text)) {
            snprintf(wanted, sizeof wanted, "one of %s is wanted", f->value);
            return bad_value(c, f, text, wanted);
        }
        *(const char **)at = text;
        return true;
    case FLAG_TEXTS:
        return add_text(at, text) || bad_value(c, f, text, "it was given too often");
    case FLAG_LIST:
        for (char *p = text, *comma; p; p = comma ? comma + 1 : NULL) {
            comma = strchr(p, ',');
            if (comma)
                *comma = 0;
            if (!*p)
                return bad_value(c, f, text, "names with a comma between are wanted");
            if (!add_text(at, p))
                return bad_value(c, f, text, "there are too many");
        }
        return true;
    case FLAG_INT: {
        int64_t v;
        if (saw_parse_int64(text, &v) && (double)v >= f->least &&
            (f->most == 0 || (double)v <= f->most)) {
            *(int64_t *)at = v;
            return true;
        }
        if (f->most > 0)
            snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f is wanted", f->least,
                     f->most);
        else
            snprintf(wanted, sizeof wanted, "a whole number of at least %.0f is wanted", f->least);
        return bad_value(c, f, text, wanted);
    }
    case FLAG_SECONDS:
        if (parse_seconds(text, at) && *(double *)at >= f->least)
            return true;
        return bad_value(c, f, text, "seconds, as 90, 1:30 or 1:02:03.5, are wanted");
    case FLAG_BYTES:
        return saw_parse_bytes(text, at) || bad_value(c, f, text, "a size as 800M or 2G is wanted");
    default:
        return true;
    }
}

/* ---- the command line ------------------------------------------------------------------------ */

static const flag *find_flag(const command *c, const char *name, size_t n)
{
    for (const flag *f = c->flags; !is_end(f); f++)
        if (f->name && strlen(f->name) == n && strncmp(f->name, name, n) == 0)
            return f;
    return NULL;
}

static const flag *find_letter(const command *c, char letter)
{
    for (const flag *f = c->flags; !is_end(f); f++)
        if (f->letter == letter)
            return f;
    return NULL;
}

static bool unknown_flag(const command *c, const char *arg)
{
    char name[WORD_ROOM];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg, "="), arg);
    const flag *near = strncmp(name, "--", 2) == 0 ? nearest_flag(c, name + 2) : NULL;
    if (near)
        usage_error(c->name, "unknown flag %s: did you mean --%s?", name, near->name);
    else
        usage_error(c->name, "unknown flag %s: `bandsaw %s --help` lists what there is", name,
                    c->name);
    return false;
}

/* One flag at argv[*i], with its value; false after saying what is wrong. */
static bool take_flag(const command *c, int argc, char **argv, int *i, void *options)
{
    char *arg = argv[*i], *value = NULL;
    const flag *f;
    if (arg[1] == '-') {
        char *equals = strchr(arg, '=');
        f = find_flag(c, arg + 2, equals ? (size_t)(equals - arg - 2) : strlen(arg + 2));
        value = equals ? equals + 1 : NULL;
    } else {
        f = find_letter(c, arg[1]);
        value = f && arg[2] ? arg + 2 : NULL;
    }
    if (!f)
        return unknown_flag(c, arg);
    if (f->kind == FLAG_SWITCH) {
        if (value) {
            usage_error(c->name, "--%s takes no value", f->name);
            return false;
        }
        *(bool *)((char *)options + f->offset) = true;
        return true;
    }
    if (!value && *i + 1 < argc)
        value = argv[++*i];
    if (!value || !*value) {
        usage_error(c->name, "--%s needs a value: --%s %s", f->name, f->name, f->value);
        return false;
    }
    return set_value(c, f, value, options);
}

bool flags_parse(const command *c, int argc, char **argv, void *options, int *operands,
                 int *exit_code)
{
    int count = 0;
    bool only_operands = false;
    *exit_code = EXIT_USAGE;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (only_operands || arg[0] != '-' || arg[1] == 0) {
            argv[count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            flags_help(c, stdout);
            *exit_code = 0;
            return false;
        } else if (!take_flag(c, argc, argv, &i, options)) {
            return false;
        }
    }
    if (count > c->most_operands && c->most_operands >= 0) {
        usage_error(c->name, "%s is one too many: usage is `bandsaw %s [FLAGS] %s`",
                    argv[c->most_operands], c->name, c->operands);
        return false;
    }
    if (count < c->least_operands) {
        usage_error(c->name, "something is missing: usage is `bandsaw %s [FLAGS] %s`", c->name,
                    c->operands);
        return false;
    }
    *operands = count;
    return true;
}

/* ---- help ------------------------------------------------------------------------------------ */

/* Words of `text` in lines of at most 100 columns, each behind `indent` spaces; the first line has
 * its indent already. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
    int column = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > 100) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", n, text);
        column += n;
        text += n + (text[n] == ' ');
    }
    fputc('\n', out);
}

void flags_help(const command *c, FILE *out)
{
    enum { LEFT = 30 };
    fprintf(out, "bandsaw %s - %s\n\nUsage: bandsaw %s [FLAGS] %s\n\n", c->name, c->summary,
            c->name, c->operands);
    print_wrapped(out, c->description, 0);
    if (c->flags->kind != FLAG_HEADING)
        fprintf(out, "\nFlags:\n");
    for (const flag *f = c->flags; !is_end(f); f++) {
        if (f->kind == FLAG_HEADING) {
            fprintf(out, "\n%s:\n", f->help);
            continue;
        }
        char left[160];
        snprintf(left, sizeof left, "  %c%c%c --%s %s", f->letter ? '-' : ' ',
                 f->letter ? f->letter : ' ', f->letter ? ',' : ' ', f->name,
                 f->value ? f->value : "");
        if ((int)strlen(left) >= LEFT)
            fprintf(out, "%s\n%*s", left, LEFT, "");
        else
            fprintf(out, "%-*s", LEFT, left);
        print_wrapped(out, f->help, LEFT);
    }
    fprintf(out, "  -h, --help\n\nExamples:\n");
    for (const example *e = c->examples; e->line; e++) {
        fprintf(out, "  %s\n      ", e->line);
        print_wrapped(out, e->what, 6);
    }
}
