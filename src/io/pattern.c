/*
 * pattern.c - Thompson's construction: the expression becomes steps, and all states that the text
 * can be in are followed at once (Thompson, CACM 1968).
 */
#include "io/pattern.h"

#include <string.h>

enum { MAX_STEPS = 4000, MAX_DEPTH = 64, MAX_REPEAT = 200 };

typedef enum step_kind { STEP_SET, STEP_SPLIT, STEP_START, STEP_END, STEP_MATCH } step_kind;

typedef struct step {
    step_kind kind;
    int to[2];       /* of a split; others go on to the next step */
    uint32_t set[8]; /* of a set: one bit a byte */
} step;

struct saw_pattern {
    saw_context *ctx;
    step *steps;
    int n;
    int *lists;             /* owned: what follows */
    int *now, *next, *mark; /* lists of steps, and the round in which a step was put into one */
    int round;
};

typedef struct parser {
    saw_context *ctx;
    const char *at, *whole;
    saw_pattern *p;
    saw_status status;
    int depth;
} parser;

static saw_status refuse(parser *r, const char *why)
{
    if (!r->status)
        r->status = saw_fail(r->ctx, SAW_ERR_FORMAT, "the pattern %.200s %s", r->whole, why);
    return r->status;
}

static step *add(parser *r, step_kind kind)
{
    if (!r->status && r->p->n >= MAX_STEPS)
        refuse(r, "is too large");
    if (r->status)
        return &r->p->steps[MAX_STEPS]; /* of no use */
    step *s = &r->p->steps[r->p->n++];
    *s = (step){.kind = kind};
    return s;
}

static void put(uint32_t *set, int from, int to)
{
    for (int c = from; c <= to; c++)
        set[c / 32] |= 1u << c % 32;
}

static void invert(uint32_t *set)
{
    for (int i = 0; i < 8; i++)
        set[i] = ~set[i];
}

/* What \c stands for; false for a back-reference or a letter without a meaning here. */
static bool escape(char c, uint32_t *set)
{
    uint32_t own[8] = {0};
    char lower = (char)(c | 0x20);
    if (lower == 'd' || lower == 'w')
        put(own, '0', '9');
    if (lower == 'w')
        put(own, 'a', 'z'), put(own, 'A', 'Z'), put(own, '_', '_');
    else if (lower == 's')
        put(own, '\t', '\r'), put(own, ' ', ' ');
    else if (lower != 'd') {
        if (!c || (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9'))
            return false;
        put(own, (unsigned char)c, (unsigned char)c);
        lower = c;
    }
    if (c != lower)
        invert(own);
    for (int i = 0; i < 8; i++)
        set[i] |= own[i];
    return true;
}

static void class(parser *r, uint32_t *set)
{
    bool negative = *r->at == '^', any = false;
    r->at += negative;
    while (*r->at && (*r->at != ']' || !any)) {
        any = true;
        if (*r->at == '\\') {
            if (!escape(r->at[1], set)) {
                refuse(r, "has an escape that is not known");
                return;
            }
            r->at += 2;
            continue;
        }
        int from = (unsigned char)*r->at++, to = from;
        if (*r->at == '-' && r->at[1] && r->at[1] != ']') {
            to = (unsigned char)r->at[1];
            r->at += 2;
        }
        put(set, from, to);
    }
    if (*r->at++ != ']')
        refuse(r, "has a class without an end"), r->at--;
    if (negative)
        invert(set);
}

static void alternatives(parser *r);

static void atom(parser *r)
{
    char c = *r->at++;
    if (c == '(') {
        if (*r->at == '?' && r->at[1] != ':')
            refuse(r, "has a group of a kind that is not known");
        r->at += *r->at == '?' && !r->status ? 2 : 0;
        if (++r->depth > MAX_DEPTH)
            refuse(r, "is nested too deeply");
        alternatives(r);
        r->depth--;
        if (!r->status && *r->at++ != ')')
            refuse(r, "has a group without an end"), r->at--;
    } else if (c == '[') {
        class(r, add(r, STEP_SET)->set);
    } else if (c == '^' || c == '$') {
        add(r, c == '^' ? STEP_START : STEP_END);
    } else if (c == '.') {
        put(add(r, STEP_SET)->set, 0, 255);
    } else if (c == '\\') {
        if (!escape(*r->at, add(r, STEP_SET)->set))
            refuse(r, "has an escape that is not known");
        else
            r->at++;
    } else if (c == '*' || c == '+' || c == '?') {
        refuse(r, "repeats nothing");
    } else {
        put(add(r, STEP_SET)->set, (unsigned char)c, (unsigned char)c);
    }
}

/* A number of at most four digits, or -1. */
static int number(parser *r)
{
    int n = -1;
    for (int digits = 0; *r->at >= '0' && *r->at <= '9' && digits < 4; digits++)
        n = (n < 0 ? 0 : n) * 10 + *r->at++ - '0';
    return n;
}

/* Make room for a step before `from`. */
static void open_step(parser *r, int from)
{
    add(r, STEP_SPLIT);
    if (r->status)
        return;
    memmove(r->p->steps + from + 1, r->p->steps + from,
            (size_t)(r->p->n - from - 1) * sizeof *r->p->steps);
    for (int i = from + 1; i < r->p->n; i++)
        for (int k = 0; k < 2 && r->p->steps[i].kind == STEP_SPLIT; k++)
            r->p->steps[i].to[k] += r->p->steps[i].to[k] >= from;
    r->p->steps[from] = (step){.kind = STEP_SPLIT};
}

static void copy_steps(parser *r, int from, int n)
{
    int shift = r->p->n - from;
    for (int i = 0; i < n && !r->status; i++) {
        step *s = add(r, STEP_SET);
        *s = r->p->steps[from + i];
        for (int k = 0; k < 2 && s->kind == STEP_SPLIT; k++)
            s->to[k] += shift;
    }
}

/* The steps from `from` on as often as said; most < 0: without end. */
static void repeat(parser *r, int from, int least, int most)
{
    int n = r->p->n - from;
    if (least > MAX_REPEAT || most > MAX_REPEAT || (most >= 0 && most < least)) {
        refuse(r, "repeats too often");
        return;
    }
    if (most == 0 || (least == 0 && most < 0)) { /* (x)* : split, x, back */
        open_step(r, from);
        if (r->status)
            return;
        step *back = add(r, STEP_SPLIT);
        back->to[0] = back->to[1] = from;
        r->p->steps[from].to[0] = most == 0 ? r->p->n : from + 1;
        r->p->steps[from].to[1] = r->p->n;
        return;
    }
    for (int i = 1; i < least; i++)
        copy_steps(r, from, n);
    if (most < 0) { /* the last of them again and again */
        int last = r->p->n - n;
        step *back = add(r, STEP_SPLIT);
        back->to[0] = last;
        back->to[1] = r->p->n;
        return;
    }
    if (least == 0) { /* x may be left out, and each further one */
        open_step(r, from);
        if (r->status)
            return;
        r->p->steps[from].to[0] = from + 1;
        r->p->steps[from].to[1] = r->p->n;
        from++;
        least = 1;
    }
    for (int i = least; i < most && !r->status; i++) {
        step *skip = add(r, STEP_SPLIT);
        int at = r->p->n;
        skip->to[0] = at;
        skip->to[1] = at + n;
        copy_steps(r, from, n);
    }
}

static void sequence(parser *r)
{
    while (*r->at && *r->at != '|' && *r->at != ')' && !r->status) {
        int from = r->p->n, least = 1, most = 1;
        atom(r);
        char c = *r->at;
        if (c == '*' || c == '+' || c == '?') {
            r->at++;
            least = c == '+';
            most = c == '?' ? 1 : -1;
        } else if (c == '{') {
            r->at++;
            least = most = number(r);
            if (*r->at == ',') {
                r->at++;
                most = number(r);
            }
            if (least < 0 || *r->at++ != '}') {
                refuse(r, "has braces that are no count"), r->at--;
                return;
            }
        } else {
            continue;
        }
        r->at += *r->at == '?';
        if (!r->status)
            repeat(r, from, least, most);
    }
}

static void alternatives(parser *r)
{
    int from = r->p->n, ends[256], n = 0;
    for (;;) {
        sequence(r);
        if (*r->at != '|' || r->status)
            break;
        r->at++;
        open_step(r, from);
        add(r, STEP_SPLIT); /* to the end of all, below */
        if (n >= 256)
            refuse(r, "has too many alternatives");
        if (r->status)
            return;
        ends[n++] = r->p->n - 1;
        r->p->steps[from].to[0] = from + 1;
        r->p->steps[from].to[1] = r->p->n;
        from = r->p->n;
    }
    for (int i = 0; i < n && !r->status; i++)
        r->p->steps[ends[i]].to[0] = r->p->steps[ends[i]].to[1] = r->p->n;
}

saw_status saw_pattern_open(saw_context *ctx, const char *text, saw_pattern **out)
{
    saw_pattern *p = *out = saw_calloc(ctx, 1, sizeof *p);
    if (!p)
        return SAW_ERR_MEMORY;
    p->ctx = ctx;
    p->steps = saw_calloc(ctx, MAX_STEPS + 1, sizeof *p->steps);
    p->lists = saw_calloc(ctx, 3 * (MAX_STEPS + 1), sizeof *p->lists);
    parser r = {.ctx = ctx, .at = text, .whole = text, .p = p};
    r.status = p->steps && p->lists ? SAW_OK : SAW_ERR_MEMORY;
    if (!r.status)
        alternatives(&r);
    if (!r.status && *r.at)
        refuse(&r, "has a ) without a (");
    if (r.status) {
        saw_pattern_close(p);
        *out = NULL;
        return r.status;
    }
    p->now = p->lists;
    p->next = p->now + MAX_STEPS + 1;
    p->mark = p->next + MAX_STEPS + 1;
    p->steps[p->n++] = (step){.kind = STEP_MATCH};
    return SAW_OK;
}

void saw_pattern_close(saw_pattern *p)
{
    if (!p)
        return;
    saw_free(p->ctx, p->steps);
    saw_free(p->ctx, p->lists);
    saw_free(p->ctx, p);
}

/* Put step i, and what follows without a byte, into the list. */
static int follow(saw_pattern *p, int *list, int n, int i, bool start, bool end)
{
    int stack[2 * MAX_STEPS + 2], top = 0;
    stack[top++] = i;
    while (top) {
        i = stack[--top];
        if (p->mark[i] == p->round)
            continue;
        p->mark[i] = p->round;
        const step *s = &p->steps[i];
        if (s->kind == STEP_SPLIT) {
            stack[top++] = s->to[1];
            stack[top++] = s->to[0];
        } else if (s->kind == STEP_START || s->kind == STEP_END) {
            if (s->kind == STEP_START ? start : end)
                stack[top++] = i + 1;
        } else {
            list[n++] = i;
        }
    }
    return n;
}

bool saw_pattern_matches(saw_pattern *p, const char *text)
{
    p->round++;
    int n = follow(p, p->now, 0, 0, true, !*text);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        int m = 0;
        p->round++;
        for (int i = 0; i < n; i++) {
            const step *s = &p->steps[p->now[i]];
            if (s->kind == STEP_SET && s->set[c / 32] >> c % 32 & 1)
                m = follow(p, p->next, m, p->now[i] + 1, false, !text[1]);
        }
        int *swap = p->now;
        p->now = p->next;
        p->next = swap;
        n = m;
    }
    for (int i = 0; i < n; i++)
        if (p->steps[p->now[i]].kind == STEP_MATCH)
            return true;
    return false;
}
