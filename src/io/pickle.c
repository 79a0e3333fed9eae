/*
 * pickle.c - the stack machine of pickle.h. Every loop and every block is bounded by the size of
 * the pickle: an opcode pushes at most one value, and a value is popped once.
 */
#include "io/pickle.h"

#include <string.h>

typedef saw_pickle_value value;

enum {
    MAX_STACK = 8 << 20, /* values, marks and memo entries */
    MAX_WRAPPED = 4      /* _rebuild_from_type_v2 in itself */
};

/* A growing array of pointers or numbers that is not in the pool. */
typedef struct value_stack {
    value **at;
    size_t n, room;
} value_stack;

typedef struct machine {
    saw_pool *pool;
    saw_context *ctx;
    const char *path;
    const uint8_t *start, *p, *end;
    value_stack stack, memo;
    size_t *marks; /* heights of the stack */
    size_t mark_count, mark_room;
    saw_pickle *out;
    saw_status status; /* sticky */
} machine;

/* ---- errors, bytes ----------------------------------------------------------------------------- ---- */

static void fail(machine *m, const char *what)
{
    if (!m->status)
        m->status = saw_fail(m->ctx, SAW_ERR_FORMAT, "%s: its pickle is damaged at byte %zu: %s",
                             m->path, (size_t)(m->p - m->start), what);
}

static const uint8_t *take(machine *m, uint64_t n)
{
    static const uint8_t zeros[16]; /* lets the fixed-size reads go on to the check of the status */
    if (m->status || n > (uint64_t)(m->end - m->p)) {
        if (!m->status)
            m->out->cut_short = true;
        fail(m, "it is cut short");
        return n <= sizeof zeros ? zeros : NULL;
    }
    const uint8_t *got = m->p;
    m->p += n;
    return got;
}

static uint64_t take_number(machine *m, int bytes)
{
    uint64_t v = 0;
    memcpy(&v, take(m, (uint64_t)bytes), (size_t)bytes);
    return v;
}

/* ---- stack ------------------------------------------------------------------------------------- ---- */

static bool make_room(machine *m, void **block, size_t *room, size_t want, size_t item)
{
    if (m->status)
        return false;
    if (want <= *room)
        return true;
    if (want > MAX_STACK) {
        fail(m, "it holds too many values");
        return false;
    }
    size_t bigger = want < 256 ? 256 : want + want / 2;
    void *moved = saw_realloc(m->ctx, *block, bigger * item);
    if (!moved) {
        m->status = SAW_ERR_MEMORY;
        return false;
    }
    *block = moved;
    *room = bigger;
    return true;
}

static void push(machine *m, value *v)
{
    if (v && make_room(m, (void **)&m->stack.at, &m->stack.room, m->stack.n + 1, sizeof(value *)))
        m->stack.at[m->stack.n++] = v;
}

static value *new_value(machine *m, saw_pickle_kind kind)
{
    value *v = m->status ? NULL : saw_pool_alloc(m->pool, sizeof *v);
    if (v)
        v->kind = kind;
    else if (!m->status)
        m->status = saw_fail_in(m->ctx, SAW_ERR_MEMORY, m->path);
    return v;
}

static value *new_text(machine *m, saw_pickle_kind kind, const void *bytes, size_t n)
{
    value *v = new_value(m, kind);
    if (v) {
        v->u.text.bytes = bytes;
        v->u.text.n = n;
    }
    return v;
}

static void push_int(machine *m, saw_pickle_kind kind, int64_t i)
{
    value *v = new_value(m, kind);
    if (v)
        v->u.integer = i;
    push(m, v);
}

static void push_text(machine *m, saw_pickle_kind kind, uint64_t n)
{
    const uint8_t *bytes = take(m, n);
    if (!m->status)
        push(m, new_text(m, kind, bytes, (size_t)n));
}

/* Values above the last mark. */
static size_t height(const machine *m)
{
    return m->stack.n - (m->mark_count ? m->marks[m->mark_count - 1] : 0);
}

static value *pop(machine *m)
{
    if (!m->status && height(m))
        return m->stack.at[--m->stack.n];
    fail(m, "its stack is empty");
    return NULL;
}

static value *top(machine *m)
{
    if (!m->status && height(m))
        return m->stack.at[m->stack.n - 1];
    fail(m, "its stack is empty");
    return NULL;
}

/* Forget the last mark; the values above it stay readable at the pointer until the next push. */
static value **pop_mark(machine *m, size_t *n)
{
    *n = 0;
    if (m->status || !m->mark_count) {
        fail(m, "a mark is missing");
        return NULL;
    }
    *n = height(m);
    m->stack.n = m->marks[--m->mark_count];
    return m->stack.at + m->stack.n;
}

/* ---- containers -------------------------------------------------------------------------------- ---- */

static void append(machine *m, value *seq, value **items, size_t n)
{
    if (m->status || !n)
        return;
    size_t want = seq->u.seq.n + n;
    if (want > seq->u.seq.room) {
        size_t room = seq->u.seq.n ? want + want / 2 : want;
        value **bigger = saw_pool_alloc(m->pool, room * sizeof(value *));
        if (!bigger) {
            m->status = saw_fail_in(m->ctx, SAW_ERR_MEMORY, m->path);
            return;
        }
        if (seq->u.seq.n)
            memcpy(bigger, seq->u.seq.items, seq->u.seq.n * sizeof(value *));
        seq->u.seq.items = bigger;
        seq->u.seq.room = room;
    }
    memcpy(seq->u.seq.items + seq->u.seq.n, items, n * sizeof(value *));
    seq->u.seq.n = want;
}

static void push_seq(machine *m, saw_pickle_kind kind, value **items, size_t n)
{
    value *v = new_value(m, kind);
    if (v)
        append(m, v, items, n);
    push(m, v);
}

/* Items for a list, dict or set. What an opaque object is filled with is dropped. */
static void fill(machine *m, saw_pickle_kind kind, value **items, size_t n)
{
    value *seq = top(m);
    if (m->status)
        return;
    if (kind == SAW_PICKLE_DICT && n % 2)
        fail(m, "a dict has a key without a value");
    else if (seq->kind == kind)
        append(m, seq, items, n);
    else if (seq->kind != SAW_PICKLE_OPAQUE)
        fail(m, "items for something that holds none");
}

static void push_tuple(machine *m, size_t n)
{
    if (!m->status && height(m) < n)
        fail(m, "its stack is empty");
    if (m->status)
        return;
    m->stack.n -= n;
    push_seq(m, SAW_PICKLE_TUPLE, m->stack.at + m->stack.n, n);
}

static void memo_put(machine *m, uint64_t index)
{
    value *v = top(m);
    if (!m->status &&
        index >= (uint64_t)(m->end - m->start)) /* each number before it took a byte */
        fail(m, "a memo number is too large");
    if (m->status ||
        !make_room(m, (void **)&m->memo.at, &m->memo.room, (size_t)index + 1, sizeof(value *)))
        return;
    while (m->memo.n <= index)
        m->memo.at[m->memo.n++] = NULL;
    m->memo.at[index] = v;
}

static void memo_get(machine *m, uint64_t index)
{
    if (!m->status && index < m->memo.n && m->memo.at[index])
        push(m, m->memo.at[index]);
    else
        fail(m, "a memo number was never stored");
}

/* ---- names ------------------------------------------------------------------------------------- ---- */

bool saw_pickle_is(const value *v, saw_pickle_kind kind, const char *text)
{
    return v && v->kind == kind && v->u.text.n == strlen(text) &&
           !memcmp(v->u.text.bytes, text, v->u.text.n);
}

static bool is_one_of(const value *v, saw_pickle_kind kind, const char *const *names)
{
    while (*names && !saw_pickle_is(v, kind, *names))
        names++;
    return *names != NULL;
}

saw_pickle_value *saw_pickle_find(const value *dict, const char *key)
{
    if (!dict || dict->kind != SAW_PICKLE_DICT)
        return NULL;
    for (size_t i = dict->u.seq.n; i >= 2; i -= 2)
        if (saw_pickle_is(dict->u.seq.items[i - 2], SAW_PICKLE_STRING, key))
            return dict->u.seq.items[i - 1];
    return NULL;
}

static const char *const DICTS[] = {"collections.OrderedDict", "collections.defaultdict",
                                    "builtins.dict", "__builtin__.dict", NULL};
static const char *const REBUILD_TENSOR[] = {"torch._utils._rebuild_tensor",
                                             "torch._utils._rebuild_tensor_v2",
                                             "torch._utils._rebuild_tensor_v3", NULL};
static const char *const REBUILD_PARAMETER[] = {"torch._utils._rebuild_parameter",
                                                "torch._utils._rebuild_parameter_with_state", NULL};
static const char *const RECONSTRUCT[] = {"numpy.core.multiarray._reconstruct",
                                          "numpy._core.multiarray._reconstruct", NULL};
static const char *const NO_BYTES[] = {"__builtin__.bytes", "builtins.bytes", NULL};
static const char *const NUMPY[] = {"numpy.ndarray",     "numpy.dtype",    "_codecs.encode",
                                    "__builtin__.bytes", "builtins.bytes", NULL};
static const char *const KNOWN[] = {"torch.Size", "torch._tensor._rebuild_from_type_v2",
                                    "copyreg._reconstructor", "copy_reg._reconstructor", NULL};

static const struct {
    const char *name; /* of the storage class without "Storage", and of the dtype */
    const char *dtype_name;
    int dtype;
    uint64_t item_bytes;
} TYPES[] = {
    {"Float", "float32", SAW_F32, 4},
    {"Double", "float64", SAW_F64, 8},
    {"Half", "float16", SAW_F16, 2},
    {"BFloat16", "bfloat16", SAW_BF16, 2},
    {"Char", "int8", SAW_I8, 1},
    {"Byte", "uint8", SAW_U8, 1},
    {"Short", "int16", SAW_I16, 2},
    {"Int", "int32", SAW_I32, 4},
    {"Long", "int64", SAW_I64, 8},
    {"Bool", "bool", SAW_BOOL, 1},
    {"Untyped", "", -1, 1},
    {"ComplexFloat", "complex64", -1, 8},
    {"ComplexDouble", "complex128", -1, 16},
    {"QInt8", "qint8", -1, 1},
    {"QUInt8", "quint8", -1, 1},
    {"QInt32", "qint32", -1, 4},
    {"", "uint16", -1, 2},
    {"", "uint32", -1, 4},
    {"", "uint64", -1, 8},
    {"", "float8_e4m3fn", -1, 1},
    {"", "float8_e5m2", -1, 1},
};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

/* Index in TYPES of a name as torch.FloatStorage, torch.cuda.HalfStorage, torch.float32; or -1. */
static int find_type(const value *global)
{
    if (!global || global->kind != SAW_PICKLE_GLOBAL || global->u.text.n > 64)
        return -1;
    char name[65];
    memcpy(name, global->u.text.bytes, global->u.text.n);
    name[global->u.text.n] = 0;
    char *last = strrchr(name, '.');
    if (!last || strncmp(name, "torch.", 6) != 0)
        return -1;
    last += last[1] == '_' ? 2 : 1; /* _UntypedStorage of torch 1.13 */
    size_t n = strlen(last);
    for (int i = 0; i < TYPE_COUNT; i++) {
        size_t k = strlen(TYPES[i].name);
        if ((k && n == k + 7 && !strncmp(last, TYPES[i].name, k) && !strcmp(last + k, "Storage")) ||
            (n && !strcmp(last, TYPES[i].dtype_name)))
            return i;
    }
    return -1;
}

static saw_pickle_foreign *foreign(machine *m, value *name)
{
    saw_pickle *out = m->out;
    if (name->kind != SAW_PICKLE_GLOBAL || is_one_of(name, SAW_PICKLE_GLOBAL, DICTS) ||
        is_one_of(name, SAW_PICKLE_GLOBAL, REBUILD_TENSOR) ||
        is_one_of(name, SAW_PICKLE_GLOBAL, KNOWN) || is_one_of(name, SAW_PICKLE_GLOBAL, NUMPY) ||
        is_one_of(name, SAW_PICKLE_GLOBAL, RECONSTRUCT) ||
        is_one_of(name, SAW_PICKLE_GLOBAL, REBUILD_PARAMETER) || find_type(name) >= 0)
        return NULL;
    for (int i = 0; i < out->foreign_count; i++) {
        const value *other = out->foreign[i].name;
        if (other->u.text.n == name->u.text.n &&
            !memcmp(other->u.text.bytes, name->u.text.bytes, name->u.text.n))
            return &out->foreign[i];
    }
    if (out->foreign_count == SAW_PICKLE_MAX_FOREIGN)
        return NULL;
    out->foreign[out->foreign_count].name = name;
    return &out->foreign[out->foreign_count++];
}

static void push_global(machine *m, const void *module, size_t module_n, const void *name,
                        size_t name_n)
{
    char *text = m->status ? NULL : saw_pool_alloc(m->pool, module_n + name_n + 1);
    if (!text) {
        if (!m->status)
            m->status = saw_fail_in(m->ctx, SAW_ERR_MEMORY, m->path);
        return;
    }
    memcpy(text, module, module_n);
    text[module_n] = '.';
    memcpy(text + module_n + 1, name, name_n);
    value *v = new_text(m, SAW_PICKLE_GLOBAL, text, module_n + name_n + 1);
    if (v)
        foreign(m, v);
    push(m, v);
}

static const uint8_t *take_line(machine *m, size_t *n)
{
    const uint8_t *line = m->p,
                  *end = m->status ? NULL : memchr(line, '\n', (size_t)(m->end - line));
    *n = 0;
    if (!end) {
        if (!m->status)
            m->out->cut_short = true;
        fail(m, "it is cut short");
        return line;
    }
    *n = (size_t)(end - line);
    m->p = end + 1;
    return line;
}

/* ---- what torch rebuilds ----------------------------------------------------------------------- ---- */

static value *item(const value *seq, size_t i)
{
    return seq && seq->kind == SAW_PICKLE_TUPLE && i < seq->u.seq.n ? seq->u.seq.items[i] : NULL;
}

static bool count_of(const value *v, uint64_t *out)
{
    if (!v || v->kind != SAW_PICKLE_INT || v->u.integer < 0)
        return false;
    *out = (uint64_t)v->u.integer;
    return true;
}

/* ('storage', class, key, location, count[, view]), view = (key, first, count) in old files. */
static value *persistent(machine *m, const value *id)
{
    value *kind = item(id, 0), *type = item(id, 1), *key = item(id, 2), *view = item(id, 5);
    if (saw_pickle_is(kind, SAW_PICKLE_STRING, "module") && type)
        return type; /* old whole-model files: class, source file, source */
    value *v = new_value(m, SAW_PICKLE_STORAGE);
    if (!v)
        return NULL;
    saw_pickle_storage *s = &v->u.storage;
    if (!saw_pickle_is(kind, SAW_PICKLE_STRING, "storage") || !type || !key ||
        key->kind != SAW_PICKLE_STRING || !count_of(item(id, 4), &s->count)) {
        fail(m, "a storage is not described as torch does");
        return NULL;
    }
    int t = find_type(type);
    s->key = key;
    s->dtype = t < 0 ? -1 : TYPES[t].dtype;
    s->item_bytes = t < 0 ? 0 : TYPES[t].item_bytes;
    if (view && view->kind == SAW_PICKLE_TUPLE && !count_of(item(view, 1), &s->view_first)) {
        fail(m, "a view of a storage has no start");
        return NULL;
    }
    saw_pickle *out = m->out;
    if (!make_room(m, (void **)&out->storages, &out->storage_room, out->storage_count + 1,
                   sizeof(value *)))
        return NULL;
    out->storages[out->storage_count++] = v;
    return v;
}

/* (storage, first, size, stride, requires_grad, hooks[, dtype]) */
static value *rebuild_tensor(machine *m, const value *function, const value *args)
{
    value *storage = item(args, 0), *size = item(args, 2), *stride = item(args, 3);
    value *v = new_value(m, SAW_PICKLE_TENSOR);
    saw_pickle_tensor *t = v ? saw_pool_alloc(m->pool, sizeof *t) : NULL;
    if (!t) {
        if (!m->status)
            m->status = saw_fail_in(m->ctx, SAW_ERR_MEMORY, m->path);
        return NULL;
    }
    v->u.tensor = t;
    if (!storage || storage->kind != SAW_PICKLE_STORAGE || !count_of(item(args, 1), &t->first) ||
        !size || !stride || size->kind != SAW_PICKLE_TUPLE || stride->kind != SAW_PICKLE_TUPLE ||
        size->u.seq.n != stride->u.seq.n) {
        fail(m, "a tensor is not described as torch does");
        return NULL;
    }
    if (size->u.seq.n > SAW_MAX_DIMS)
        return new_text(m, SAW_PICKLE_OPAQUE, "a tensor of more than 8 dimensions", 34);
    t->storage = storage;
    t->dtype = storage->u.storage.dtype;
    t->ndim = (int)size->u.seq.n;
    for (int d = 0; d < t->ndim; d++) {
        uint64_t n, step;
        if (!count_of(item(size, (size_t)d), &n) || !count_of(item(stride, (size_t)d), &step)) {
            fail(m, "a tensor has a size that is no count");
            return NULL;
        }
        t->dims[d] = (int64_t)n;
        t->strides[d] = (int64_t)step;
    }
    if (saw_pickle_is(function, SAW_PICKLE_GLOBAL, REBUILD_TENSOR[2])) {
        int type = find_type(item(args, 6));
        t->dtype = type < 0 ? -1 : TYPES[type].dtype;
    }
    return v;
}

/* ---- what numpy rebuilds ----------------------------------------------------------------------- ---- */

/* dtype('f4', False, True); its byte order comes with BUILD. */
static value *make_dtype(machine *m, const value *args)
{
    static const struct {
        const char *name;
        int dtype;
    } types[] = {{"f4", SAW_F32}, {"f8", SAW_F64}, {"f2", SAW_F16},
                 {"i8", SAW_I64}, {"i4", SAW_I32}, {"i2", SAW_I16},
                 {"i1", SAW_I8},  {"u1", SAW_U8},  {"b1", SAW_BOOL}};
    value *v = new_value(m, SAW_PICKLE_DTYPE);
    if (!v)
        return NULL;
    v->u.integer = -1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (saw_pickle_is(item(args, 0), SAW_PICKLE_STRING, types[i].name))
            v->u.integer = types[i].dtype;
    return v;
}

/* An array without elements: BUILD brings them. */
static value *make_array(machine *m)
{
    value *v = new_value(m, SAW_PICKLE_TENSOR);
    saw_pickle_tensor *t = v ? saw_pool_alloc(m->pool, sizeof *t) : NULL;
    if (!t) {
        if (!m->status)
            m->status = saw_fail_in(m->ctx, SAW_ERR_MEMORY, m->path);
        return NULL;
    }
    v->u.tensor = t;
    return v;
}

/* (version, shape, dtype, whether in Fortran's order, bytes) */
static void fill_array(machine *m, saw_pickle_tensor *t, const value *state)
{
    value *shape = item(state, 1), *type = item(state, 2), *order = item(state, 3),
          *bytes = item(state, 4);
    if (!shape || shape->kind != SAW_PICKLE_TUPLE || shape->u.seq.n > SAW_MAX_DIMS || !type ||
        type->kind != SAW_PICKLE_DTYPE || !order || order->kind != SAW_PICKLE_BOOL || !bytes ||
        (bytes->kind != SAW_PICKLE_BYTES && bytes->kind != SAW_PICKLE_LATIN1))
        return; /* of objects, or of too many dimensions: stays empty */
    int64_t stride = 1;
    t->ndim = (int)shape->u.seq.n;
    for (int i = 0; i < t->ndim; i++) {
        int d = order->u.integer ? i : t->ndim - 1 - i;
        uint64_t n;
        if (!count_of(item(shape, (size_t)d), &n) ||
            __builtin_mul_overflow(stride, (int64_t)(n ? n : 1), &t->strides[d])) {
            fail(m, "an array has a size that is no count");
            return;
        }
        t->dims[d] = (int64_t)n;
        int64_t next = t->strides[d];
        t->strides[d] = stride;
        stride = next;
    }
    t->dtype = (int)type->u.integer;
    t->storage = bytes;
}

/* The state of an object: only numpy's is looked at. */
static void build(machine *m, value *object, const value *state)
{
    if (object->kind == SAW_PICKLE_TENSOR && !object->u.tensor->storage)
        fill_array(m, object->u.tensor, state);
    if (object->kind == SAW_PICKLE_DTYPE && saw_pickle_is(item(state, 1), SAW_PICKLE_STRING, ">"))
        object->u.integer = -1; /* big-endian */
}

/* OrderedDict(), OrderedDict([[key, value], ...]), defaultdict(factory), dict(other) */
static value *make_dict(machine *m, const value *args)
{
    value *v = new_value(m, SAW_PICKLE_DICT), *from = item(args, 0);
    if (from && from->kind == SAW_PICKLE_DICT)
        append(m, v, from->u.seq.items, from->u.seq.n);
    for (size_t i = 0; v && from && from->kind == SAW_PICKLE_LIST && i < from->u.seq.n; i++) {
        value *pair = from->u.seq.items[i];
        if ((pair->kind != SAW_PICKLE_LIST && pair->kind != SAW_PICKLE_TUPLE) || pair->u.seq.n != 2)
            fail(m, "a dict is made of something else than pairs");
        else
            append(m, v, pair->u.seq.items, 2);
        if (m->status)
            return NULL;
    }
    return v;
}

/* What calling `function` would give, as far as it is data. */
static value *reduce(machine *m, value *function, value *args)
{
    for (int i = 0;
         i < MAX_WRAPPED && item(args, 2) &&
         saw_pickle_is(function, SAW_PICKLE_GLOBAL, "torch._tensor._rebuild_from_type_v2");
         i++) { /* (function, type, args, state) */
        function = item(args, 0);
        args = item(args, 2);
    }
    if (is_one_of(function, SAW_PICKLE_GLOBAL, REBUILD_TENSOR))
        return rebuild_tensor(m, function, args);
    if (is_one_of(function, SAW_PICKLE_GLOBAL, REBUILD_PARAMETER) && item(args, 0))
        return item(args, 0);
    if (is_one_of(function, SAW_PICKLE_GLOBAL, DICTS))
        return make_dict(m, args);
    if (saw_pickle_is(function, SAW_PICKLE_GLOBAL, "torch.Size") && item(args, 0))
        return item(args, 0);
    if (is_one_of(function, SAW_PICKLE_GLOBAL, RECONSTRUCT))
        return make_array(m);
    if (saw_pickle_is(function, SAW_PICKLE_GLOBAL, "numpy.dtype"))
        return make_dtype(m, args);
    if (saw_pickle_is(function, SAW_PICKLE_GLOBAL, "_codecs.encode") && item(args, 0) &&
        item(args, 0)->kind == SAW_PICKLE_STRING &&
        saw_pickle_is(item(args, 1), SAW_PICKLE_STRING, "latin1"))
        return new_text(m, SAW_PICKLE_LATIN1, item(args, 0)->u.text.bytes, item(args, 0)->u.text.n);
    if (is_one_of(function, SAW_PICKLE_GLOBAL, NO_BYTES) && args->kind == SAW_PICKLE_TUPLE &&
        !args->u.seq.n)
        return new_text(m, SAW_PICKLE_BYTES, m->start, 0); /* bytes() */
    bool reconstruct = is_one_of(function, SAW_PICKLE_GLOBAL, KNOWN + 2) && item(args, 0);
    if (reconstruct)
        function = item(args, 0);
    bool named = function->kind == SAW_PICKLE_GLOBAL || function->kind == SAW_PICKLE_OPAQUE;
    saw_pickle_foreign *f = named ? foreign(m, function) : NULL;
    if (f && reconstruct)
        f->made = true;
    else if (f)
        f->called = true;
    return named ? new_text(m, SAW_PICKLE_OPAQUE, function->u.text.bytes, function->u.text.n)
                 : new_text(m, SAW_PICKLE_OPAQUE, "something unnamed", 17);
}

static value *new_object(machine *m, value *class, value *args)
{
    if (is_one_of(class, SAW_PICKLE_GLOBAL, DICTS))
        return make_dict(m, args);
    saw_pickle_foreign *f = foreign(m, class);
    if (f)
        f->made = true;
    if (class->kind != SAW_PICKLE_GLOBAL && class->kind != SAW_PICKLE_OPAQUE)
        return new_text(m, SAW_PICKLE_OPAQUE, "something unnamed", 17);
    return new_text(m, SAW_PICKLE_OPAQUE, class->u.text.bytes, class->u.text.n);
}

/* ---- the machine ------------------------------------------------------------------------------- ---- */

static void push_long(machine *m, uint64_t n)
{
    const uint8_t *bytes = take(m, n);
    if (m->status)
        return;
    if (n > 8) {
        push(m, new_text(m, SAW_PICKLE_LONG, bytes, (size_t)n));
        return;
    }
    uint64_t v = n && bytes[n - 1] & 0x80 ? ~(uint64_t)0 : 0;
    memcpy(&v, bytes, (size_t)n);
    push_int(m, SAW_PICKLE_INT, (int64_t)v);
}

static void push_float(machine *m)
{
    uint64_t bits =
        __builtin_bswap64(take_number(m, 8)); /* the one big-endian number of a pickle */
    value *v = new_value(m, SAW_PICKLE_FLOAT);
    if (v)
        memcpy(&v->u.real, &bits, 8);
    push(m, v);
}

static void step(machine *m)
{
    value *a, *b, **items;
    size_t n, k;
    uint8_t opcode = *take(m, 1);
    if (m->status)
        return;
    switch (opcode) {
    case 0x80: /* PROTO */
        if (take_number(m, 1) > 5)
            fail(m, "it is of a protocol above 5");
        break;
    case 0x95: /* FRAME */
        take_number(m, 8);
        break;
    case '(': /* MARK */
        if (make_room(m, (void **)&m->marks, &m->mark_room, m->mark_count + 1, sizeof *m->marks))
            m->marks[m->mark_count++] = m->stack.n;
        break;
    case '0': /* POP */
        if (!height(m) && m->mark_count)
            m->mark_count--;
        else
            pop(m);
        break;
    case '1': /* POP_MARK */
        pop_mark(m, &n);
        break;
    case '2': /* DUP */
        push(m, top(m));
        break;
    case 'N': /* NONE */
        push(m, new_value(m, SAW_PICKLE_NONE));
        break;
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        push_int(m, SAW_PICKLE_BOOL, opcode == 0x88);
        break;
    case 'J': /* BININT */
        push_int(m, SAW_PICKLE_INT, (int32_t)take_number(m, 4));
        break;
    case 'K': /* BININT1 */
        push_int(m, SAW_PICKLE_INT, (int64_t)take_number(m, 1));
        break;
    case 'M': /* BININT2 */
        push_int(m, SAW_PICKLE_INT, (int64_t)take_number(m, 2));
        break;
    case 0x8a: /* LONG1 */
        push_long(m, take_number(m, 1));
        break;
    case 0x8b: /* LONG4 */
        push_long(m, take_number(m, 4));
        break;
    case 'G': /* BINFLOAT */
        push_float(m);
        break;
    case 0x8c: /* SHORT_BINUNICODE */
    case 'U':  /* SHORT_BINSTRING */
        push_text(m, SAW_PICKLE_STRING, take_number(m, 1));
        break;
    case 'X': /* BINUNICODE */
    case 'T': /* BINSTRING */
        push_text(m, SAW_PICKLE_STRING, take_number(m, 4));
        break;
    case 0x8d: /* BINUNICODE8 */
        push_text(m, SAW_PICKLE_STRING, take_number(m, 8));
        break;
    case 'C': /* SHORT_BINBYTES */
        push_text(m, SAW_PICKLE_BYTES, take_number(m, 1));
        break;
    case 'B': /* BINBYTES */
        push_text(m, SAW_PICKLE_BYTES, take_number(m, 4));
        break;
    case 0x8e: /* BINBYTES8 */
    case 0x96: /* BYTEARRAY8 */
        push_text(m, SAW_PICKLE_BYTES, take_number(m, 8));
        break;
    case ']': /* EMPTY_LIST */
        push_seq(m, SAW_PICKLE_LIST, NULL, 0);
        break;
    case ')': /* EMPTY_TUPLE */
        push_seq(m, SAW_PICKLE_TUPLE, NULL, 0);
        break;
    case '}': /* EMPTY_DICT */
        push_seq(m, SAW_PICKLE_DICT, NULL, 0);
        break;
    case 0x8f: /* EMPTY_SET */
        push(m, new_text(m, SAW_PICKLE_OPAQUE, "set", 3));
        break;
    case 't': /* TUPLE */
        items = pop_mark(m, &n);
        push_seq(m, SAW_PICKLE_TUPLE, items, n);
        break;
    case 'l': /* LIST */
        items = pop_mark(m, &n);
        push_seq(m, SAW_PICKLE_LIST, items, n);
        break;
    case 'd': /* DICT */
        items = pop_mark(m, &n);
        if (n % 2)
            fail(m, "a dict has a key without a value");
        push_seq(m, SAW_PICKLE_DICT, items, n);
        break;
    case 0x91: /* FROZENSET */
        pop_mark(m, &n);
        push(m, new_text(m, SAW_PICKLE_OPAQUE, "frozenset", 9));
        break;
    case 0x85: /* TUPLE1 */
    case 0x86: /* TUPLE2 */
    case 0x87: /* TUPLE3 */
        push_tuple(m, (size_t)opcode - 0x84);
        break;
    case 'a': /* APPEND */
        a = pop(m);
        fill(m, SAW_PICKLE_LIST, &a, 1);
        break;
    case 'e': /* APPENDS */
    case 'u': /* SETITEMS */
        items = pop_mark(m, &n);
        fill(m, opcode == 'e' ? SAW_PICKLE_LIST : SAW_PICKLE_DICT, items, n);
        break;
    case 's': /* SETITEM */
        b = pop(m);
        a = pop(m);
        fill(m, SAW_PICKLE_DICT, (value *[]){a, b}, 2);
        break;
    case 0x90: /* ADDITEMS */
        pop_mark(m, &n);
        top(m);
        break;
    case 'q': /* BINPUT */
        memo_put(m, take_number(m, 1));
        break;
    case 'r': /* LONG_BINPUT */
        memo_put(m, take_number(m, 4));
        break;
    case 0x94: /* MEMOIZE */
        memo_put(m, m->memo.n);
        break;
    case 'h': /* BINGET */
        memo_get(m, take_number(m, 1));
        break;
    case 'j': /* LONG_BINGET */
        memo_get(m, take_number(m, 4));
        break;
    case 'c': { /* GLOBAL */
        const uint8_t *module = take_line(m, &n), *name = take_line(m, &k);
        push_global(m, module, n, name, k);
        break;
    }
    case 0x93: /* STACK_GLOBAL */
        b = pop(m);
        a = pop(m);
        if (!m->status && (a->kind != SAW_PICKLE_STRING || b->kind != SAW_PICKLE_STRING))
            fail(m, "a name is no string");
        if (!m->status)
            push_global(m, a->u.text.bytes, a->u.text.n, b->u.text.bytes, b->u.text.n);
        break;
    case 'Q': /* BINPERSID */
        a = pop(m);
        if (a)
            push(m, persistent(m, a));
        break;
    case 'R': /* REDUCE */
        b = pop(m);
        a = pop(m);
        if (a && b)
            push(m, reduce(m, a, b));
        break;
    case 0x92: /* NEWOBJ_EX: class, args, keywords */
        pop(m);
        /* fall through */
    case 0x81: /* NEWOBJ */
        b = pop(m);
        a = pop(m);
        if (a && b)
            push(m, new_object(m, a, b));
        break;
    case 'b': /* BUILD */
        b = pop(m);
        a = top(m);
        if (a && b)
            build(m, a, b);
        break;
    case '.': /* STOP */
        m->out->root = pop(m);
        break;
    default:
        if (!m->status)
            m->status = saw_fail(
                m->ctx, SAW_ERR_FORMAT,
                "%s: its pickle is damaged or of an unknown kind: opcode 0x%02x at byte %zu",
                m->path, opcode, (size_t)(m->p - m->start) - 1);
    }
}

saw_status saw_pickle_read(saw_pool *pool, const char *path, const uint8_t *bytes, size_t n,
                           saw_pickle *out)
{
    machine m = {.pool = pool,
                 .ctx = pool->ctx,
                 .path = path,
                 .start = bytes,
                 .p = bytes,
                 .end = bytes + n,
                 .out = out};
    *out = (saw_pickle){0};
    make_room(&m, (void **)&m.stack.at, &m.stack.room, 1, sizeof(value *));
    while (!out->root && !m.status)
        step(&m);
    out->used_bytes = (size_t)(m.p - m.start);
    saw_free(m.ctx, m.stack.at);
    saw_free(m.ctx, m.memo.at);
    saw_free(m.ctx, m.marks);
    if (!m.status) { /* the array moves to the pool, so that nobody has to free it */
        value **copy = saw_pool_alloc(pool, out->storage_count * sizeof(value *));
        if (copy && out->storage_count)
            memcpy(copy, out->storages, out->storage_count * sizeof(value *));
        if (!copy)
            m.status = saw_fail_in(m.ctx, SAW_ERR_MEMORY, path);
        saw_free(m.ctx, out->storages);
        out->storages = copy;
    } else {
        saw_free(m.ctx, out->storages);
        out->storages = NULL;
    }
    return m.status;
}
