/*
 * graph.c - recording: values, entries, scopes, names, views.
 *
 * Values and entries are arrays that grow; small things (names, attributes, operand lists) live in
 * one arena of blocks that is freed with the graph.
 */
#include "core/graph.h"

#include <string.h>

enum { MAX_ENTRIES = 1 << 20, MAX_VALUES = 1 << 21, PATH_ROOM = 512 };
static const size_t MAX_GRAPH_BYTES = (size_t)1 << 30; /* a hostile configuration stops here */

typedef struct arena_block {
    struct arena_block *next;
    size_t used, room;
    _Alignas(16) char data[];
} arena_block;

typedef struct owned {
    struct owned *next;
    void *object;
    void (*close)(void *object);
} owned;

struct saw_graph {
    saw_context *ctx;
    saw_status status;
    saw_value *values;
    int n_values, room_values;
    saw_entry *entries;
    int n_entries, room_entries;
    arena_block *arena;
    size_t arena_bytes;
    owned *owned; /* in the arena */
    char path[PATH_ROOM];
    size_t path_ends[64];
    int path_flags[64];
    int path_segments[64]; /* before the scope */
    int depth;
    saw_checkpointing checkpoint;
    int segment;
    int *parents; /* per segment: the one around it, 0 none */
    int n_segments, room_segments;
    saw_val *names; /* open-addressing table of named values */
    int n_names, room_names;
    const void *user;
};

saw_status saw_graph_open(saw_context *ctx, saw_graph **out)
{
    saw_graph *g = saw_calloc(ctx, 1, sizeof *g);
    *out = g;
    if (!g)
        return SAW_ERR_MEMORY;
    g->ctx = ctx;
    g->n_values = 1; /* value 0 is invalid */
    g->room_values = 256;
    g->values = saw_calloc(ctx, (size_t)g->room_values, sizeof *g->values);
    g->room_names = 256;
    g->names = saw_calloc(ctx, (size_t)g->room_names, sizeof *g->names);
    if (!g->values || !g->names) {
        saw_graph_close(g);
        *out = NULL;
        return SAW_ERR_MEMORY;
    }
    return SAW_OK;
}

void saw_graph_close(saw_graph *g)
{
    if (!g)
        return;
    for (owned *o = g->owned; o; o = o->next)
        o->close(o->object);
    while (g->arena) {
        arena_block *next = g->arena->next;
        saw_free(g->ctx, g->arena);
        g->arena = next;
    }
    saw_free(g->ctx, g->values);
    saw_free(g->ctx, g->entries);
    saw_free(g->ctx, g->names);
    saw_free(g->ctx, g->parents);
    saw_free(g->ctx, g);
}

saw_status saw_graph_status(const saw_graph *g)
{
    return g->status;
}

saw_context *saw_graph_context(saw_graph *g)
{
    return g->ctx;
}

void saw_graph_set_user(saw_graph *g, const void *user)
{
    g->user = user;
}

const void *saw_graph_user(const saw_graph *g)
{
    return g->user;
}

saw_val saw_graph_fail(saw_graph *g, saw_status code, const char *fmt, ...)
{
    if (g->status)
        return 0;
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    g->status = g->depth ? saw_fail(g->ctx, code, "%s: %s", g->path, text)
                         : saw_fail(g->ctx, code, "%s", text);
    return 0;
}

static void *arena_take(saw_graph *g, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (!g->arena || g->arena->room - g->arena->used < n) {
        size_t room = n > 65536 ? n : 65536;
        if (g->arena_bytes + room > MAX_GRAPH_BYTES) {
            saw_graph_fail(g, SAW_ERR_MEMORY,
                           "the model is larger than any that this program accepts");
            return NULL;
        }
        arena_block *b = saw_alloc(g->ctx, sizeof *b + room);
        if (!b) {
            g->status = g->status ? g->status : SAW_ERR_MEMORY;
            return NULL;
        }
        *b = (arena_block){.next = g->arena, .room = room};
        g->arena = b;
        g->arena_bytes += room;
    }
    void *p = g->arena->data + g->arena->used;
    g->arena->used += n;
    return p;
}

void *saw_graph_copy(saw_graph *g, const void *bytes, size_t n)
{
    void *p = arena_take(g, n ? n : 1);
    if (p && n)
        memcpy(p, bytes, n);
    return p;
}

void saw_graph_own(saw_graph *g, void *object, void (*close)(void *object))
{
    owned *o = arena_take(g, sizeof *o);
    if (!o) {
        close(object);
        return;
    }
    *o = (owned){.next = g->owned, .object = object, .close = close};
    g->owned = o;
}

static const char *graph_string(saw_graph *g, const char *s)
{
    return saw_graph_copy(g, s, strlen(s) + 1);
}

/* ---- scopes ---------------------------------------------------------------------------------- */

/* A scope that is a checkpoint becomes the present segment. */
static void open_segment(saw_graph *g, int flags)
{
    bool nested = g->checkpoint == SAW_CHECKPOINT_NESTED;
    int wanted = SAW_SCOPE_CHECKPOINT | (nested ? SAW_SCOPE_CHECKPOINT_FINE : 0);
    if (!g->checkpoint || !(flags & wanted) || (g->segment && !nested))
        return;
    if (g->n_segments + 1 >= g->room_segments) {
        int room = g->room_segments ? 2 * g->room_segments : 64;
        int *more = saw_realloc(g->ctx, g->parents, (size_t)room * sizeof *more);
        if (!more) {
            g->status = g->status ? g->status : SAW_ERR_MEMORY;
            return;
        }
        g->parents = more;
        g->room_segments = room;
    }
    g->parents[++g->n_segments] = g->segment;
    g->segment = g->n_segments;
}

void saw_scope(saw_graph *g, int flags, const char *fmt, ...)
{
    char name[PATH_ROOM];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    size_t old = strlen(g->path);
    if (g->depth == 64 || n < 0 || old + (size_t)n + 2 > sizeof g->path) {
        saw_graph_fail(g, SAW_ERR_UNSUPPORTED, "scopes are nested too deeply");
        return;
    }
    g->path_ends[g->depth] = old;
    g->path_flags[g->depth] = flags | (g->depth ? g->path_flags[g->depth - 1] : 0);
    g->path_segments[g->depth] = g->segment;
    open_segment(g, flags);
    g->depth++;
    if (n) {
        if (old)
            g->path[old++] = '.';
        memcpy(g->path + old, name, (size_t)n + 1);
    }
}

void saw_scope_end(saw_graph *g)
{
    if (!g->depth)
        return;
    g->path[g->path_ends[--g->depth]] = 0;
    g->segment = g->path_segments[g->depth];
}

void saw_graph_checkpoint(saw_graph *g, saw_checkpointing how)
{
    g->checkpoint = how;
}

const char *saw_scope_name(saw_graph *g, const char *name)
{
    char full[2 * PATH_ROOM];
    snprintf(full, sizeof full, "%s%s%s", g->path, *g->path && *name ? "." : "", name);
    return graph_string(g, full);
}

/* ---- names ----------------------------------------------------------------------------------- */

static saw_val *name_slot(const saw_graph *g, const char *name)
{
    uint64_t h = saw_fnv1a(name, strlen(name));
    for (uint64_t i = h;; i++) {
        saw_val *slot = &g->names[i & (uint64_t)(g->room_names - 1)];
        if (!*slot || !strcmp(g->values[*slot].name, name))
            return slot;
    }
}

static void name_put(saw_graph *g, saw_val v)
{
    if (2 * (g->n_names + 1) > g->room_names) {
        saw_val *old = g->names;
        int n = g->room_names;
        saw_val *fresh = saw_calloc(g->ctx, 2 * (size_t)n, sizeof *fresh);
        if (!fresh) {
            g->status = g->status ? g->status : SAW_ERR_MEMORY;
            return;
        }
        g->names = fresh;
        g->room_names = 2 * n;
        for (int i = 0; i < n; i++)
            if (old[i])
                *name_slot(g, g->values[old[i]].name) = old[i];
        saw_free(g->ctx, old);
    }
    saw_val *slot = name_slot(g, g->values[v].name);
    g->n_names += !*slot;
    *slot = v;
}

saw_val saw_graph_find(const saw_graph *g, const char *name)
{
    return *name_slot(g, name);
}

/* ---- values ---------------------------------------------------------------------------------- */

static saw_val new_value(saw_graph *g, saw_value_kind kind, const saw_dims *dims)
{
    if (g->status)
        return 0;
    size_t count = 1;
    for (int i = 0; i < dims->n; i++)
        if (dims->d[i] < 0 || !saw_mul_size(count, (size_t)dims->d[i], &count) ||
            count > SIZE_MAX / 16)
            return saw_graph_fail(g, SAW_ERR_SHAPE,
                                  "a tensor is larger than this machine can address");
    if (g->n_values == MAX_VALUES)
        return saw_graph_fail(g, SAW_ERR_UNSUPPORTED,
                              "the model records more values than are accepted");
    if (g->n_values == g->room_values) {
        saw_value *more = saw_realloc(g->ctx, g->values, 2 * (size_t)g->room_values * sizeof *more);
        if (!more) {
            g->status = SAW_ERR_MEMORY;
            return 0;
        }
        g->values = more;
        g->room_values *= 2;
    }
    saw_val v = g->n_values++;
    g->values[v] = (saw_value){.kind = kind, .dims = *dims, .entry = -1, .base = v};
    return v;
}

static saw_val named_value(saw_graph *g, saw_value_kind kind, const char *full, saw_dims dims)
{
    saw_val v = full ? new_value(g, kind, &dims) : 0;
    if (v) {
        g->values[v].name = full;
        name_put(g, v);
    }
    return v;
}

saw_val saw_input(saw_graph *g, const char *name, saw_dims dims)
{
    return named_value(g, SAW_VALUE_INPUT, graph_string(g, name), dims);
}

saw_val saw_param(saw_graph *g, const char *name, saw_dims dims)
{
    const char *full = saw_scope_name(g, name);
    saw_val old = full ? saw_graph_find(g, full) : 0;
    if (old) {
        if (!g->depth || !(g->path_flags[g->depth - 1] & SAW_SCOPE_SHARED))
            return saw_graph_fail(g, SAW_ERR_SHAPE, "the parameter %s is declared twice", full);
        if (!saw_dims_equal(&g->values[old].dims, &dims))
            return saw_graph_fail(g, SAW_ERR_SHAPE,
                                  "the shared parameter %s is declared with other dims", full);
        return old;
    }
    return named_value(g, SAW_VALUE_PARAM, full, dims);
}

saw_val saw_param_frozen(saw_graph *g, const char *name, saw_dims dims)
{
    saw_val v = saw_param(g, name, dims);
    if (v)
        g->values[v].frozen = true;
    return v;
}

static saw_val new_view(saw_graph *g, saw_val of, saw_dims dims, int lead, int64_t offset,
                        const int64_t *strides);

void saw_output(saw_graph *g, const char *name, saw_val v)
{
    if (!v)
        return;
    if (g->values[v].name) { /* a value has one name: the output is a view of all of it */
        saw_value x = g->values[v];
        v = new_view(g, v, x.dims, x.kind == SAW_VALUE_VIEW ? x.lead : x.dims.n, 0, x.strides);
    }
    const char *kept = v && !g->status ? graph_string(g, name) : NULL;
    if (!kept)
        return;
    g->values[v].output = true;
    g->values[v].name = kept;
    name_put(g, v);
}

saw_val saw_tap(saw_graph *g, const char *name, saw_val v)
{
    if (v && !g->status) {
        g->values[v].tap = true;
        if (!g->values[v].name)
            g->values[v].name = saw_scope_name(g, name);
        if (g->values[v].name)
            name_put(g, v);
    }
    return v;
}

saw_dims saw_dims_val(const saw_graph *g, saw_val v)
{
    return v ? g->values[v].dims : (saw_dims){0};
}

int64_t saw_dim(const saw_graph *g, saw_val v, int axis)
{
    const saw_dims *d = &g->values[v].dims;
    int i = axis < 0 ? d->n + axis : axis;
    return v && i >= 0 && i < d->n ? d->d[i] : 0;
}

saw_val saw_root(const saw_graph *g, saw_val v)
{
    return g->values[v].base;
}

/* ---- entries --------------------------------------------------------------------------------- */

static saw_entry *new_entry(saw_graph *g, const saw_op *op, const void *attr, int n_in, int n_out)
{
    if (g->n_entries == MAX_ENTRIES) {
        saw_graph_fail(g, SAW_ERR_UNSUPPORTED,
                       "the model records more operations than are accepted");
        return NULL;
    }
    if (g->n_entries == g->room_entries) {
        int room = g->room_entries ? 2 * g->room_entries : 256;
        saw_entry *more = saw_realloc(g->ctx, g->entries, (size_t)room * sizeof *more);
        if (!more) {
            g->status = SAW_ERR_MEMORY;
            return NULL;
        }
        g->entries = more;
        g->room_entries = room;
    }
    saw_val *operands = arena_take(g, (size_t)(n_in + n_out) * sizeof *operands);
    const char *scope = graph_string(g, g->path);
    if (!operands || !scope)
        return NULL;
    saw_entry *e = &g->entries[g->n_entries];
    *e = (saw_entry){.op = op,
                     .attr = attr,
                     .n_in = n_in,
                     .n_out = n_out,
                     .scope = scope,
                     .forward = -1,
                     .original = g->n_entries,
                     .segment = g->segment};
    e->in = operands;
    e->out = operands + n_in;
    g->n_entries++;
    return e;
}

saw_val saw_record(saw_graph *g, const saw_op *op, const void *attr, int n_in, const saw_val *in,
                   int n_out)
{
    if (g->status)
        return 0;
    saw_dims out[8] = {{0}};
    saw_dims *dims = arena_take(g, (size_t)(n_in ? n_in : 1) * sizeof *dims);
    const void *kept = op->attr_bytes ? saw_graph_copy(g, attr, op->attr_bytes) : NULL;
    if (!dims || (op->attr_bytes && !kept))
        return 0;
    for (int i = 0; i < n_in; i++)
        dims[i] = saw_dims_val(g, in[i]);
    saw_shape s = {.attr = kept, .n_in = n_in, .in = dims, .n_out = n_out, .out = out};
    if (!op->shape(&s))
        return saw_graph_fail(g, SAW_ERR_SHAPE, "%s: %s", op->name,
                              s.why[0] ? s.why : "shapes do not fit");
    saw_entry *e = new_entry(g, op, kept, n_in, n_out);
    if (!e)
        return 0;
    if (n_in)
        memcpy(e->in, in, (size_t)n_in * sizeof *in);
    int number = g->n_entries - 1;
    saw_val first = 0;
    for (int i = 0; i < n_out; i++) {
        saw_val v = new_value(g, SAW_VALUE_ENTRY, &out[i]);
        if (!v)
            return 0;
        g->values[v].entry = number;
        g->entries[number].out[i] = v;
        first = first ? first : v;
    }
    return first;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* Strides of the axes of v from `lead` on, in elements of its root. A root's inner block is dense.
 */
static void inner_strides(const saw_value *x, int lead, int64_t *strides)
{
    if (x->kind != SAW_VALUE_VIEW) {
        saw_dense_strides(x->dims.n, x->dims.d, strides);
        return;
    }
    for (int i = lead; i < x->dims.n; i++)
        strides[i] = x->strides[i];
}

static saw_val new_view(saw_graph *g, saw_val of, saw_dims dims, int lead, int64_t offset,
                        const int64_t *strides)
{
    saw_val v = new_value(g, SAW_VALUE_VIEW, &dims);
    if (!v)
        return 0;
    const saw_value *x = &g->values[of];
    saw_value *y = &g->values[v];
    y->base = x->base;
    y->entry = g->values[x->base].entry;
    y->lead = lead;
    y->offset = offset + (x->kind == SAW_VALUE_VIEW ? x->offset : 0);
    memcpy(y->strides, strides, sizeof y->strides);
    return v;
}

static int view_lead(const saw_value *x, int lead)
{
    return x->kind == SAW_VALUE_VIEW && x->lead < lead ? x->lead : lead;
}

saw_val saw_slice_last(saw_graph *g, saw_val v, int64_t start, int64_t count)
{
    if (!v)
        return 0;
    const saw_value *x = &g->values[v];
    int last = x->dims.n - 1;
    if (start < 0 || count < 0 || start > x->dims.d[last] || count > x->dims.d[last] - start)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "a slice [%lld, %lld) of %lld", (long long)start,
                              (long long)(start + count), (long long)x->dims.d[last]);
    int lead = view_lead(x, last);
    int64_t strides[SAW_MAX_DIMS] = {0};
    inner_strides(x, lead, strides);
    saw_dims d = x->dims;
    d.d[last] = count;
    return new_view(g, v, d, lead, start * strides[last], strides);
}

saw_val saw_split_last(saw_graph *g, saw_val v, int64_t a)
{
    if (!v)
        return 0;
    const saw_value *x = &g->values[v];
    int last = x->dims.n - 1;
    if (a < 1 || x->dims.d[last] % a || x->dims.n == SAW_MAX_DIMS)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "%lld features do not split into %lld equal parts",
                              (long long)x->dims.d[last], (long long)a);
    int lead = view_lead(x, last);
    int64_t strides[SAW_MAX_DIMS] = {0};
    inner_strides(x, lead, strides);
    saw_dims d = x->dims;
    d.d[last + 1] = d.d[last] / a;
    d.d[last] = a;
    d.n++;
    strides[last + 1] = strides[last];
    strides[last] *= d.d[last + 1];
    return new_view(g, v, d, lead, 0, strides);
}

saw_val saw_merge_last(saw_graph *g, saw_val v)
{
    if (!v)
        return 0;
    const saw_value *x = &g->values[v];
    int last = x->dims.n - 1;
    if (last < 1)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "a value of one axis has no two axes to merge");
    int lead = view_lead(x, last - 1);
    int64_t strides[SAW_MAX_DIMS] = {0};
    inner_strides(x, lead, strides);
    if (strides[last - 1] != x->dims.d[last] * strides[last])
        return saw_graph_fail(g, SAW_ERR_SHAPE, "the last two axes do not lie one after another");
    saw_dims d = x->dims;
    d.d[last - 1] *= d.d[last];
    d.n--;
    strides[last - 1] = strides[last];
    strides[last] = 0;
    return new_view(g, v, d, lead, 0, strides);
}

saw_val saw_reshape(saw_graph *g, saw_val v, saw_dims dims)
{
    if (!v)
        return 0;
    const saw_value *x = &g->values[v];
    int64_t old[SAW_MAX_DIMS] = {0}, dense[SAW_MAX_DIMS], strides[SAW_MAX_DIMS] = {0};
    inner_strides(x, 0, old);
    saw_dense_strides(x->dims.n, x->dims.d, dense);
    bool whole = (x->kind != SAW_VALUE_VIEW || x->lead == 0);
    for (int i = 0; i < x->dims.n; i++)
        whole = whole && (old[i] == dense[i] || x->dims.d[i] == 1);
    if (x->kind == SAW_VALUE_VIEW &&
        !whole) { /* a view that only merged or split inner axes of a dense base */
        int64_t inner = 1, base_inner = 1;
        const saw_value *root = &g->values[x->base];
        for (int i = x->lead; i < x->dims.n; i++)
            inner *= x->dims.d[i];
        for (int i = x->lead; i < root->dims.n; i++)
            base_inner *= root->dims.d[i];
        whole = inner == base_inner && x->offset == 0;
        for (int i = x->lead; i < x->dims.n; i++)
            whole = whole && (x->strides[i] == dense[i] || x->dims.d[i] == 1);
    }
    if (!whole || saw_dims_count(&dims) != saw_dims_count(&x->dims))
        return saw_graph_fail(g, SAW_ERR_SHAPE, "these elements cannot be seen in the wanted dims");
    saw_dense_strides(dims.n, dims.d, strides);
    return new_view(g, v, dims, 0, 0, strides);
}

saw_val saw_permute(saw_graph *g, saw_val v, const int *order)
{
    if (!v)
        return 0;
    const saw_value *x = &g->values[v];
    int64_t old[SAW_MAX_DIMS] = {0}, strides[SAW_MAX_DIMS] = {0};
    inner_strides(x, 0, old);
    if (x->kind == SAW_VALUE_VIEW && x->lead) { /* leading axes follow the dense base */
        const saw_value *root = &g->values[x->base];
        int64_t dense[SAW_MAX_DIMS];
        saw_dense_strides(root->dims.n, root->dims.d, dense);
        for (int i = 0; i < x->lead; i++)
            old[i] = dense[i];
    }
    saw_dims d = x->dims;
    unsigned seen = 0;
    for (int i = 0; i < d.n; i++) {
        if (order[i] < 0 || order[i] >= d.n || seen & 1u << order[i])
            return saw_graph_fail(g, SAW_ERR_SHAPE,
                                  "an order of axes names one twice or one that is not there");
        seen |= 1u << order[i];
        d.d[i] = x->dims.d[order[i]];
        strides[i] = old[order[i]];
    }
    return new_view(g, v, d, 0, 0, strides);
}

/* ---- reading --------------------------------------------------------------------------------- */

int saw_graph_values(const saw_graph *g)
{
    return g->n_values;
}

const saw_value *saw_graph_value(const saw_graph *g, saw_val v)
{
    return &g->values[v];
}

int saw_graph_entries(const saw_graph *g)
{
    return g->n_entries;
}

const saw_entry *saw_graph_entry(const saw_graph *g, int i)
{
    return &g->entries[i];
}

/* ---- differentiate --------------------------------------------------------------------------- */

bool saw_glob_match(const char *glob, const char *text)
{
    const char
        *star = NULL,
        *back = NULL; /* only the last star is ever tried again: linear in practice, no recursion */
    while (*text) {
        if (*glob == '*') {
            star = glob++;
            back = text;
        } else if (*glob == '?' || *glob == *text) {
            glob++;
            text++;
        } else if (star) {
            glob = star + 1;
            text = ++back;
        } else {
            return false;
        }
    }
    while (*glob == '*')
        glob++;
    return !*glob;
}

int saw_graph_train(saw_graph *g, const char *glob)
{
    int n = 0;
    for (saw_val v = 1; v < g->n_values; v++) {
        saw_value *x = &g->values[v];
        if (x->kind == SAW_VALUE_PARAM && !x->frozen && saw_glob_match(glob, x->name)) {
            x->trainable = true;
            n++;
        }
    }
    return n;
}

saw_val saw_grad(const saw_graph *g, saw_val v)
{
    const saw_value *x = &g->values[v];
    return x->kind == SAW_VALUE_VIEW ? 0 : x->grad;
}

extern const saw_op saw_op_zero;
typedef struct zero_attr {
    saw_dims dims;
} zero_attr;

/* The view v, seen on another root. */
static saw_val view_on(saw_graph *g, saw_val v, saw_val root)
{
    saw_value x = g->values[v];
    saw_val view = new_value(g, SAW_VALUE_VIEW, &x.dims);
    if (view) {
        saw_value *y = &g->values[view];
        y->base = root;
        y->entry = g->values[root].entry;
        y->lead = x.lead;
        y->offset = x.offset;
        memcpy(y->strides, x.strides, sizeof y->strides);
    }
    return view;
}

/* The gradient value of v: of a root a value of its own; of a view the same view of the root's
 * gradient. */
static saw_val grad_value(saw_graph *g, saw_val v)
{
    saw_val root = g->values[v].base;
    if (!g->values[root].grad) {
        saw_dims dims = g->values[root].dims;
        saw_val d = new_value(g, SAW_VALUE_ENTRY, &dims);
        if (!d)
            return 0;
        g->values[root].grad = d;
    }
    saw_val d = g->values[root].grad;
    return v == root ? d : view_on(g, v, d);
}

/* What the pass knows of every forward value, by number. */
typedef struct tracks {
    bool *active;   /* a trainable parameter reaches it */
    bool *reaches;  /* it reaches the loss */
    bool *data;     /* an input reaches it: no weight, and not made of weights alone */
    bool *sliced;   /* of a root: its gradient is set slice by slice */
    saw_val *again; /* of a value inside of checkpoints: as last recomputed */
    int entries;    /* forward ones */
} tracks;

/* Whether the slices of a root that entries read cover it, each element once, and all of them get a
 * gradient: then the gradient need not be zeroed first. */
static bool slices_cover(const saw_graph *g, const tracks *t, saw_val root)
{
    const saw_value *x = &g->values[root];
    int64_t begins[8], covered = 0, inner = 0;
    int n = 0;
    for (int i = 0; i < t->entries; i++) {
        const saw_entry *e = &g->entries[i];
        bool reaches = false;
        for (int k = 0; k < e->n_out; k++)
            reaches = reaches || t->reaches[e->out[k]];
        for (int k = 0; k < e->n_in && reaches; k++) {
            if (!e->in[k] || g->values[e->in[k]].base != root)
                continue;
            const saw_value *v = &g->values[e->in[k]];
            int64_t count = 1, dense[SAW_MAX_DIMS], whole = 1;
            if (v->kind != SAW_VALUE_VIEW || n == 8 || k >= SAW_LAST_ADD_BIT)
                return false;
            saw_dense_strides(v->dims.n, v->dims.d, dense);
            for (int a = v->lead; a < v->dims.n; a++) {
                count *= v->dims.d[a];
                if (v->strides[a] != dense[a])
                    return false;
            }
            for (int a = v->lead; a < x->dims.n; a++)
                whole *= x->dims.d[a];
            for (int m = 0; m < n; m++)
                if (begins[m] == v->offset)
                    return false;
            if (n && whole != inner)
                return false;
            inner = whole;
            begins[n++] = v->offset;
            covered += count;
            /* equal parts at different multiples of their size cannot overlap */
            if (v->offset % count || covered != n * count)
                return false;
        }
    }
    return n > 0 && covered == inner;
}

/* Does the entry's write of the gradient of v set or add? Gradients of parameters always add. A
 * value written in slices is zeroed first, and so is one whose operand number has no bit of its
 * own. */
static bool grad_adds(saw_graph *g, const tracks *t, saw_val v, int operand)
{
    saw_val root = g->values[v].base;
    if (t->sliced[root])
        return false;
    if (g->values[root].grad_started)
        return true;
    g->values[root].grad_started = true;
    if (g->values[root].kind == SAW_VALUE_PARAM)
        return true;
    if (v == root && operand < SAW_LAST_ADD_BIT)
        return false;
    t->sliced[root] = slices_cover(g, t, root);
    if (t->sliced[root])
        return false;
    zero_attr *attr = saw_graph_copy(g, &(zero_attr){g->values[root].dims}, sizeof *attr);
    saw_entry *z = attr ? new_entry(g, &saw_op_zero, attr, 0, 1) : NULL;
    if (z) {
        z->out[0] = g->values[root].grad;
        g->values[z->out[0]].entry = g->n_entries - 1;
    }
    return true;
}

static bool tracks_open(saw_graph *g, tracks *t, saw_val loss)
{
    size_t n = (size_t)g->n_values;
    t->entries = g->n_entries;
    t->active = saw_calloc(g->ctx, n, sizeof *t->active);
    t->data = saw_calloc(g->ctx, n, sizeof *t->data);
    t->again = saw_calloc(g->ctx, n, sizeof *t->again);
    t->reaches = saw_calloc(g->ctx, n, sizeof *t->reaches);
    t->sliced = saw_calloc(g->ctx, n, sizeof *t->sliced);
    if (!t->active || !t->data || !t->again || !t->reaches || !t->sliced)
        return false;
    for (saw_val v = 1; v < g->n_values; v++) {
        t->active[v] = g->values[v].kind == SAW_VALUE_PARAM && g->values[v].trainable;
        t->data[v] = g->values[v].kind == SAW_VALUE_INPUT;
    }
    for (int i = 0; i < g->n_entries; i++) {
        const saw_entry *e = &g->entries[i];
        bool active = false, data = !e->n_in;
        for (int k = 0; k < e->n_in; k++) {
            saw_val root = e->in[k] ? g->values[e->in[k]].base : 0;
            active = active || t->active[root];
            data = data || t->data[root];
        }
        for (int k = 0; k < e->n_out; k++) {
            t->active[e->out[k]] = active && !e->op->constant;
            t->data[e->out[k]] = data;
        }
    }
    t->reaches[loss] = true;
    for (int i = g->n_entries - 1; i >= 0; i--) {
        const saw_entry *e = &g->entries[i];
        bool reaches = false;
        for (int k = 0; k < e->n_out; k++)
            reaches = reaches || t->reaches[e->out[k]];
        for (int k = 0; k < e->n_in && reaches; k++)
            if (e->in[k])
                t->reaches[g->values[e->in[k]].base] = true;
    }
    return true;
}

static void tracks_close(saw_graph *g, tracks *t)
{
    saw_free(g->ctx, t->active);
    saw_free(g->ctx, t->data);
    saw_free(g->ctx, t->again);
    saw_free(g->ctx, t->reaches);
    saw_free(g->ctx, t->sliced);
}

/* What backward reads in place of a forward value. */
static saw_val kept_value(saw_graph *g, tracks *t, saw_val v)
{
    saw_val root = v ? g->values[v].base : 0;
    if (!root || !t->again[root])
        return v;
    if (v != root && (!t->again[v] || g->values[t->again[v]].base != t->again[root]))
        t->again[v] = view_on(g, v, t->again[root]);
    return t->again[v];
}

/* Record the entries [first, last] of a checkpoint once more; those that backward does not need are
 * dropped later. What has state is never run twice, and what is made of weights alone need not be:
 * those values are kept. */
static void recompute(saw_graph *g, tracks *t, int first, int last)
{
    bool any = false;
    for (int i = first; i <= last; i++)
        for (int k = 0; k < g->entries[i].n_out; k++)
            any = any || t->active[g->entries[i].out[k]];
    for (int i = first; i <= last && any; i++) {
        saw_entry f = g->entries[i];
        if (f.op->state || !f.n_out || !t->data[f.out[0]])
            continue;
        for (int k = 0; k < f.n_in; k++)
            kept_value(g, t, f.in[k]); /* may make a view, so before the entry */
        saw_entry *e = g->status ? NULL : new_entry(g, f.op, f.attr, f.n_in, f.n_out);
        if (!e)
            return;
        e->scope = f.scope;
        e->original = i;
        int number = g->n_entries - 1;
        for (int k = 0; k < f.n_in; k++)
            e->in[k] = kept_value(g, t, f.in[k]);
        for (int k = 0; k < f.n_out; k++) {
            saw_dims dims = g->values[f.out[k]].dims;
            saw_val v = new_value(g, SAW_VALUE_ENTRY, &dims);
            if (!v)
                return;
            g->values[v].entry = number;
            g->entries[number].out[k] = t->again[f.out[k]] = v;
        }
    }
}

enum { TO_DATA = 1, TO_WEIGHTS = 2 };

/* Record the backward entry of entry i for those of its inputs that are data, weights or both. */
static void record_backward(saw_graph *g, tracks *t, int i, int to)
{
    saw_entry f = g->entries[i];
    uint32_t want = 0;
    saw_val *grads = arena_take(g, (size_t)f.n_in * sizeof *grads);
    bool *adds = arena_take(g, (size_t)f.n_in * sizeof *adds);
    if (!grads || !adds)
        return;
    for (int k = 0; k < f.n_in; k++) {
        saw_val root = f.in[k] ? g->values[f.in[k]].base : 0;
        bool wanted = t->active[root] && to & (t->data[root] ? TO_DATA : TO_WEIGHTS);
        grads[k] = wanted ? grad_value(g, f.in[k]) : 0;
        adds[k] = grads[k] && grad_adds(g, t, f.in[k], k); /* may record an entry of zeros before */
        if (wanted)
            want |= 1u << (k < 31 ? k : 31);
    }
    if (!want)
        return;
    uint32_t keep = f.op->keep ? f.op->keep(f.attr, want, f.n_in) : UINT32_MAX;
    for (int k = 0; k < f.n_in + f.n_out; k++)
        kept_value(g, t, k < f.n_in ? f.in[k] : f.out[k - f.n_in]);
    int n_in = f.n_in + 2 * f.n_out;
    saw_entry *b = g->status ? NULL : new_entry(g, f.op, f.attr, n_in, f.n_in);
    if (!b)
        return;
    b->backward = true;
    b->forward = b->original = i;
    b->scope = f.scope;
    for (int k = 0; k < f.n_in + f.n_out; k++) {
        bool kept = k >= 31 || keep & 1u << k; /* operands past the mask's bits are always kept */
        saw_val v = k < f.n_in ? f.in[k] : f.out[k - f.n_in];
        /* without a keep function backward reads inputs only */
        b->in[k] = kept && (k < f.n_in || f.op->keep) ? kept_value(g, t, v) : 0;
    }
    for (int k = 0; k < f.n_out; k++)
        b->in[f.n_in + f.n_out + k] =
            g->values[f.out[k]].grad_started ? g->values[f.out[k]].grad : 0;
    for (int k = 0; k < f.n_in; k++) {
        b->out[k] = grads[k];
        if (!grads[k])
            continue;
        if (adds[k])
            b->add |= 1u << (k < SAW_LAST_ADD_BIT ? k : SAW_LAST_ADD_BIT);
        saw_val root = g->values[grads[k]].base;
        if (g->values[root].entry < 0)
            g->values[root].entry = g->n_entries - 1;
    }
}

static void backward_entry(saw_graph *g, tracks *t, int i)
{
    const saw_entry *f = &g->entries[i];
    bool any = false, wanted = false;
    for (int k = 0; k < f->n_out; k++)
        any = any || g->values[f->out[k]].grad_started;
    for (int k = 0; k < f->n_in; k++)
        wanted = wanted || t->active[f->in[k] ? g->values[f->in[k]].base : 0];
    if (!any || !wanted)
        return;
    if (!f->op->differentiable) {
        saw_graph_fail(g, SAW_ERR_UNSUPPORTED, "the operation %s has no gradient", f->op->name);
    } else if (f->op->joint_backward) {
        record_backward(g, t, i, TO_DATA | TO_WEIGHTS);
    } else {
        record_backward(g, t, i, TO_WEIGHTS);
        record_backward(g, t, i, TO_DATA);
    }
}

/* The segment right inside of `outer` that entry i belongs to; 0: none. */
static int segment_inside(const saw_graph *g, int i, int outer)
{
    int s = g->entries[i].segment;
    while (s && s != outer && g->parents[s] != outer)
        s = g->parents[s];
    return s == outer ? 0 : s;
}

/* Entries [first, last] of the segment `outer`, or of none, from the last to the first; segments
 * inside are recomputed, and then gone through in the same way. */
static void backward_range(saw_graph *g, tracks *t, int first, int last, int outer)
{
    for (int i = last; i >= first && !g->status; i--) {
        int segment = segment_inside(g, i, outer);
        if (!segment) {
            backward_entry(g, t, i);
            continue;
        }
        int begin = i;
        while (begin > first && segment_inside(g, begin - 1, outer) == segment)
            begin--;
        recompute(g, t, begin, i);
        backward_range(g, t, begin, i, segment);
        i = begin;
    }
}

saw_status saw_graph_differentiate(saw_graph *g, saw_val loss)
{
    if (g->status)
        return g->status;
    if (!loss || g->values[loss].base != loss || saw_dims_count(&g->values[loss].dims) != 1) {
        saw_graph_fail(g, SAW_ERR_SHAPE, "a loss must be a single number");
        return g->status;
    }
    tracks t = {0};
    if (!tracks_open(g, &t, loss)) {
        tracks_close(g, &t);
        return g->status = SAW_ERR_MEMORY;
    }
    if (t.active[loss]) {
        saw_val seed = saw_input(g, "gradient of the loss", g->values[loss].dims);
        if (seed) {
            g->values[loss].grad = seed;
            g->values[loss].grad_started = true;
        }
    }
    backward_range(g, &t, 0, g->n_entries - 1, 0);
    tracks_close(g, &t);
    return g->status;
}
