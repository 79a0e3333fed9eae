/*
 * torch.c - what torch.save writes.
 *
 * zip:    <prefix>/data.pkl, one pickle; <prefix>/data/<key>, the raw elements of storage <key>.
 * legacy: five pickles: a magic number, 1001, a dict about the system, the object, the list of
 * keys; then for every key its number of elements (int64) and the elements.
 */
#include "io/pickle.h"
#include "io/zip.h"

#include <string.h>

static const uint64_t MAX_PICKLE_BYTES = 128u << 20;
enum { LEGACY_FIRST_BYTES = 1 << 20, LEGACY_PROTOCOL = 1001, LONGEST_TEXT = 120, MAX_DEPTH = 64 };
static const uint8_t LEGACY_MAGIC[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                         0x20, 0x6a, 0xa8, 0x50, 0x19};

typedef saw_pickle_value value;

/* Finds the bytes of a storage; fails with a sentence when the file has not got it. */
typedef saw_status locate_fn(saw_checkpoint *ck, void *arg, const saw_pickle_storage *s,
                             saw_byte_range *out);

/* Where the numbers of an object are: storages elsewhere, arrays in the pickle itself. */
typedef struct locator {
    locate_fn *storage;
    void *arg;
    const char *pickle;
    uint64_t pickle_offset; /* in the file */
} locator;

/* Values of a pickle: an opcode makes one of 48 bytes and a pointer to it, seldom more. */
static size_t value_bytes(uint64_t pickle_bytes)
{
    static const size_t most = 512u << 20, least = 1u << 20;
    return pickle_bytes < (most - least) / 96 ? (size_t)pickle_bytes * 96 + least : most;
}

/* ---- the state dict and the rest --------------------------------------------------------------- ---- */

static bool has_tensors(const value *dict)
{
    for (size_t i = 1; dict->kind == SAW_PICKLE_DICT && i < dict->u.seq.n; i += 2)
        if (dict->u.seq.items[i]->kind == SAW_PICKLE_TENSOR &&
            dict->u.seq.items[i - 1]->kind == SAW_PICKLE_STRING)
            return true;
    return false;
}

/*
 * Where the tools put it, in the order in which MSST looks; a name counts only when tensors are
 * there. Writes the dicts on the way to path, returns how many, 0 when there are no tensors.
 */
static int find_state_dict(const value *dict, int from, const value **path)
{
    static const char *const names[] = {"state", "state_dict", "model_state_dict", "model"};
    path[0] = dict;
    for (int i = from; i < 4; i++) {
        const value *inner = saw_pickle_find(dict, names[i]);
        int n = inner ? find_state_dict(inner, i + 1, path + 1) : 0;
        if (n)
            return n + 1;
    }
    return has_tensors(dict) ? 1 : 0;
}

/* Tensors in v and below, each value once. */
static int64_t count_tensors(value *v, int depth)
{
    if (v->kind == SAW_PICKLE_TENSOR)
        return 1;
    if ((v->kind != SAW_PICKLE_LIST && v->kind != SAW_PICKLE_TUPLE && v->kind != SAW_PICKLE_DICT) ||
        v->seen || depth == MAX_DEPTH)
        return 0;
    int64_t n = 0;
    v->seen = true;
    for (size_t i = 0; i < v->u.seq.n; i++)
        n += count_tensors(v->u.seq.items[i], depth + 1);
    return n;
}

static int text_length(const value *v)
{
    return v->u.text.n < LONGEST_TEXT ? (int)v->u.text.n : LONGEST_TEXT;
}

/* One line about an entry that is not part of the state dict. */
static void note_entry(saw_checkpoint *ck, const value *key, value *v)
{
    char name[LONGEST_TEXT + 1];
    if (key->kind == SAW_PICKLE_STRING)
        snprintf(name, sizeof name, "%.*s", text_length(key), key->u.text.bytes);
    else if (key->kind == SAW_PICKLE_INT)
        snprintf(name, sizeof name, "%lld", (long long)key->u.integer);
    else
        snprintf(name, sizeof name, "entry");
    int64_t tensors = count_tensors(v, 0);
    if (tensors) {
        saw_ckpt_note(ck, "%s: %lld tensor%s (not read)", name, (long long)tensors,
                      tensors == 1 ? "" : "s");
        return;
    }
    switch (v->kind) {
    case SAW_PICKLE_NONE:
        saw_ckpt_note(ck, "%s: none", name);
        break;
    case SAW_PICKLE_BOOL:
        saw_ckpt_note(ck, "%s: %s", name, v->u.integer ? "true" : "false");
        break;
    case SAW_PICKLE_INT:
        saw_ckpt_note(ck, "%s: %lld", name, (long long)v->u.integer);
        break;
    case SAW_PICKLE_FLOAT:
        saw_ckpt_note(ck, "%s: %g", name, v->u.real);
        break;
    case SAW_PICKLE_STRING:
        saw_ckpt_note(ck, "%s: %.*s", name, text_length(v), v->u.text.bytes);
        break;
    case SAW_PICKLE_LIST:
    case SAW_PICKLE_TUPLE:
        saw_ckpt_note(ck, "%s: a list of %zu (ignored)", name, v->u.seq.n);
        break;
    case SAW_PICKLE_DICT:
        saw_ckpt_note(ck, "%s: a dict of %zu (ignored)", name, v->u.seq.n / 2);
        break;
    case SAW_PICKLE_GLOBAL:
        saw_ckpt_note(ck, "%s: class %.*s (ignored)", name, text_length(v), v->u.text.bytes);
        break;
    case SAW_PICKLE_OPAQUE:
        saw_ckpt_note(ck, "%s: %.*s (ignored)", name, text_length(v), v->u.text.bytes);
        break;
    default:
        saw_ckpt_note(ck, "%s: (ignored)", name);
    }
}

static void note_foreign(saw_checkpoint *ck, const saw_pickle *p)
{
    for (int i = 0; i < p->foreign_count; i++) {
        const saw_pickle_foreign *f = &p->foreign[i];
        const char *name = f->name->u.text.bytes;
        int n = text_length(f->name);
        if (f->called)
            saw_ckpt_note(ck, "call of %.*s refused, nothing was run", n, name);
        else if (f->made)
            saw_ckpt_note(ck, "object of class %.*s (ignored)", n, name);
    }
    if (p->foreign_count == SAW_PICKLE_MAX_FOREIGN)
        saw_ckpt_note(ck, "and more classes and calls, all ignored");
}

/* Bytes that a text of characters below 256 stands for; false when it is none. */
static bool latin1_bytes(const value *text, uint64_t *bytes)
{
    const uint8_t *p = (const uint8_t *)text->u.text.bytes, *end = p + text->u.text.n;
    *bytes = 0;
    for (; p < end; p++, ++*bytes)
        if (*p >= 0x80) {
            if ((*p != 0xc2 && *p != 0xc3) || p + 1 == end || (p[1] & 0xc0) != 0x80)
                return false;
            p++;
        }
    return true;
}

static saw_status add_array(saw_checkpoint *ck, const value *name, saw_ckpt_tensor *t,
                            const value *data, const locator *at)
{
    saw_byte_range where = {at->pickle_offset + (uint64_t)(data->u.text.bytes - at->pickle),
                            data->u.text.n};
    if (data->kind == SAW_PICKLE_LATIN1) {
        t->text_bytes = where.bytes;
        if (!latin1_bytes(data, &where.bytes))
            return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                            "%s: is damaged: the bytes of array '%.*s' are no bytes",
                            saw_file_path(ck->file), text_length(name), name->u.text.bytes);
    }
    return saw_ckpt_add(ck, name->u.text.bytes, name->u.text.n, t, where, 0);
}

static saw_status add_tensor(saw_checkpoint *ck, const value *name, const saw_pickle_tensor *t,
                             const locator *at)
{
    const char *key = name->u.text.bytes;
    int shown = text_length(name);
    if (!t->storage || t->dtype < 0) {
        saw_ckpt_note(ck, "tensor %.*s was skipped: its dtype is not supported", shown, key);
        return SAW_OK;
    }
    saw_ckpt_tensor tensor = {.dtype = (saw_dtype)t->dtype, .ndim = t->ndim};
    memcpy(tensor.dims, t->dims, sizeof t->dims);
    memcpy(tensor.strides, t->strides, sizeof t->strides);
    if (t->storage->kind != SAW_PICKLE_STORAGE)
        return add_array(ck, name, &tensor, t->storage, at);
    const saw_pickle_storage *s = &t->storage->u.storage;
    saw_byte_range where;
    size_t used, skipped;
    saw_status status = at->storage(ck, at->arg, s, &where);
    if (status)
        return status;
    if (!saw_mul_size((size_t)s->count, (size_t)s->item_bytes, &used) ||
        !saw_mul_size((size_t)s->view_first, (size_t)s->item_bytes, &skipped) ||
        skipped > where.bytes || used > where.bytes - skipped)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                        "%s: is damaged: tensor '%.*s' wants %llu elements of storage '%.*s', "
                        "which has %llu bytes",
                        saw_file_path(ck->file), shown, key, (unsigned long long)s->count,
                        text_length(s->key), s->key->u.text.bytes, (unsigned long long)where.bytes);
    where = (saw_byte_range){where.offset + skipped, used};
    return saw_ckpt_add(ck, key, name->u.text.n, &tensor, where, t->first);
}

static saw_status refuse_root(saw_checkpoint *ck, const value *root)
{
    const char *path = saw_file_path(ck->file);
    const value *model = saw_pickle_find(root, "model");
    if (model && model->kind == SAW_PICKLE_OPAQUE)
        root = model;
    if (root->kind == SAW_PICKLE_OPAQUE || root->kind == SAW_PICKLE_GLOBAL)
        return saw_fail(
            ck->ctx, SAW_ERR_UNSUPPORTED,
            "%s: is a whole pickled object of class %.*s, not a state dict: save its state_dict() "
            "with the program that made it",
            path, text_length(root), root->u.text.bytes);
    if (root->kind != SAW_PICKLE_DICT)
        return saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED, "%s: holds no dict of tensors by name", path);
    saw_buffer names = {.ctx = ck->ctx};
    for (size_t i = 0; i < root->u.seq.n && names.size < 200; i += 2) {
        const value *key = root->u.seq.items[i];
        if (key->kind == SAW_PICKLE_STRING)
            saw_buffer_printf(&names, "%s%.*s", names.size ? ", " : "", text_length(key),
                              key->u.text.bytes);
    }
    saw_status status = saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED,
                                 "%s: has no state dict where one is expected; its entries: %s",
                                 path, names.size ? names.data : "none");
    saw_buffer_free(&names);
    return status;
}

static saw_status read_object(saw_checkpoint *ck, const saw_pickle *p, const locator *at)
{
    const value *path[5];
    value *root = p->root;
    int n = root->kind == SAW_PICKLE_DICT ? find_state_dict(root, 0, path) : 0;
    if (!n)
        return refuse_root(ck, root);
    ((value *)path[n - 1])->seen = true; /* its tensors are read, not counted */
    saw_status status = SAW_OK;
    for (int d = 0; d < n; d++) {
        for (size_t i = 0; i < path[d]->u.seq.n && !status; i += 2) {
            value *key = path[d]->u.seq.items[i], *v = path[d]->u.seq.items[i + 1];
            if (d < n - 1 && v == path[d + 1])
                continue;
            if (d == n - 1 && key->kind == SAW_PICKLE_STRING && v->kind == SAW_PICKLE_TENSOR)
                status = add_tensor(ck, key, v->u.tensor, at);
            else
                note_entry(ck, key, v);
        }
    }
    note_foreign(ck, p);
    return status;
}

/* ---- zip --------------------------------------------------------------------------------------- ---- */

typedef struct torch_zip {
    saw_zip zip;
    saw_pool values;
    char *pickle;
    const char *prefix; /* up to and with the '/', not terminated */
    size_t prefix_bytes;
} torch_zip;

/* *out is NULL when there is no such member. */
static saw_status find_member(saw_checkpoint *ck, const torch_zip *z, const char *folder,
                              const char *name, size_t n, const saw_zip_member **out)
{
    saw_buffer path = {.ctx = ck->ctx};
    saw_buffer_add(&path, z->prefix, z->prefix_bytes);
    saw_buffer_add(&path, folder, strlen(folder));
    saw_buffer_add(&path, name, n);
    *out = path.failed ? NULL : saw_zip_find(&z->zip, path.data, path.size);
    saw_status status = path.failed ? SAW_ERR_MEMORY : SAW_OK;
    saw_buffer_free(&path);
    return status;
}

static saw_status locate_member(saw_checkpoint *ck, void *arg, const saw_pickle_storage *s,
                                saw_byte_range *out)
{
    const torch_zip *z = arg;
    const saw_zip_member *m;
    saw_status status = find_member(ck, z, "data/", s->key->u.text.bytes, s->key->u.text.n, &m);
    if (!status && !m)
        status = saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is damaged: storage '%.*s' is missing",
                          saw_file_path(ck->file), text_length(s->key), s->key->u.text.bytes);
    return status ? status : saw_zip_locate(&z->zip, m, out);
}

/* The member that ends in "data.pkl" tells the prefix; renaming the file did not change it. */
static const saw_zip_member *find_pickle(torch_zip *z)
{
    static const char name[] = "data.pkl";
    size_t n = sizeof name - 1;
    for (size_t i = 0; i < z->zip.count; i++) {
        const saw_zip_member *m = &z->zip.members[i];
        if (m->name_bytes < n || memcmp(m->name + m->name_bytes - n, name, n) != 0)
            continue;
        z->prefix = m->name;
        z->prefix_bytes = m->name_bytes - n;
        if (!z->prefix_bytes || z->prefix[z->prefix_bytes - 1] == '/')
            return m;
    }
    return NULL;
}

static saw_status check_byte_order(saw_checkpoint *ck, const torch_zip *z)
{
    char order[6];
    saw_byte_range where;
    const saw_zip_member *m;
    saw_status status = find_member(ck, z, "", "byteorder", 9, &m);
    if (status || !m)
        return status;
    status = saw_zip_locate(&z->zip, m, &where);
    if (!status && where.bytes == sizeof order)
        status = saw_file_read(ck->file, where.offset, order, sizeof order);
    if (!status && (where.bytes != sizeof order || memcmp(order, "little", sizeof order) != 0))
        status = saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED, "%s: was written on a big-endian machine",
                          saw_file_path(ck->file));
    return status;
}

static saw_status read_zip(saw_checkpoint *ck, torch_zip *z)
{
    const char *path = saw_file_path(ck->file);
    saw_status status = saw_zip_open(ck->ctx, ck->file, &z->zip);
    if (status)
        return status;
    const saw_zip_member *m = find_pickle(z);
    if (!m)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                        "%s: is a zip file, but not one that torch.save wrote", path);
    saw_byte_range where;
    status = saw_zip_locate(&z->zip, m, &where);
    if (!status)
        status = check_byte_order(ck, z);
    if (status)
        return status;
    if (where.bytes > MAX_PICKLE_BYTES)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                        "%s: its pickle has %llu MB, which is not believable", path,
                        (unsigned long long)where.bytes >> 20);
    z->pickle = saw_alloc(ck->ctx, (size_t)where.bytes);
    if (!z->pickle)
        return SAW_ERR_MEMORY;
    saw_pool_init(&z->values, ck->ctx, value_bytes(where.bytes));
    status = saw_file_read(ck->file, where.offset, z->pickle, (size_t)where.bytes);
    saw_pickle object;
    if (!status)
        status =
            saw_pickle_read(&z->values, path, (uint8_t *)z->pickle, (size_t)where.bytes, &object);
    if (!status)
        status = read_object(ck, &object, &(locator){locate_member, z, z->pickle, where.offset});
    return status;
}

saw_status saw_read_torch_zip(saw_checkpoint *ck)
{
    torch_zip z = {0};
    ck->container = "torch zip";
    saw_status status = read_zip(ck, &z);
    saw_pool_free(&z.values);
    saw_free(ck->ctx, z.pickle);
    saw_zip_close(&z.zip);
    return status;
}

/* ---- legacy ------------------------------------------------------------------------------------ ---- */

typedef struct torch_legacy {
    saw_pickle part[5];
    uint64_t bytes; /* of the five */
    saw_name_map index;
    saw_byte_range *ranges; /* of the storages, in the order of the list of keys */
} torch_legacy;

enum { MAGIC, PROTOCOL, SYSTEM, OBJECT, KEYS };

static saw_status read_parts(saw_checkpoint *ck, saw_pool *values, const uint8_t *bytes, size_t n,
                             torch_legacy *l, bool *cut_short)
{
    const char *path = saw_file_path(ck->file);
    size_t at = 0;
    *cut_short = false;
    for (int i = MAGIC; i <= KEYS; i++) {
        saw_status status = saw_pickle_read(values, path, bytes + at, n - at, &l->part[i]);
        if (status) {
            *cut_short = l->part[i].cut_short;
            return status;
        }
        at += l->part[i].used_bytes;
        const value *v = l->part[i].root;
        if (i == MAGIC && (v->kind != SAW_PICKLE_LONG || v->u.text.n != sizeof LEGACY_MAGIC ||
                           memcmp(v->u.text.bytes, LEGACY_MAGIC, sizeof LEGACY_MAGIC) != 0))
            return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                            "%s: is a Python pickle, but not one that torch.save wrote", path);
        if (i == PROTOCOL && (v->kind != SAW_PICKLE_INT || v->u.integer != LEGACY_PROTOCOL))
            return saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED,
                            "%s: is of an unknown protocol of torch.save", path);
        const value *little = saw_pickle_find(v, "little_endian");
        if (i == SYSTEM && little && little->kind == SAW_PICKLE_BOOL && !little->u.integer)
            return saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED, "%s: was written on a big-endian machine",
                            path);
        if (i == KEYS && v->kind != SAW_PICKLE_LIST)
            return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                            "%s: is damaged: its list of storages is missing", path);
    }
    l->bytes = at;
    return SAW_OK;
}

static saw_status locate_legacy(saw_checkpoint *ck, void *arg, const saw_pickle_storage *s,
                                saw_byte_range *out)
{
    const torch_legacy *l = arg;
    const size_t *i = saw_name_map_get(&l->index, s->key->u.text.bytes, s->key->u.text.n);
    if (!i || *i >= l->part[KEYS].root->u.seq.n)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is damaged: storage '%.*s' is missing",
                        saw_file_path(ck->file), text_length(s->key), s->key->u.text.bytes);
    *out = l->ranges[*i];
    return SAW_OK;
}

/* Walk over the storages. How long an element is, only the object's pickle tells. */
static saw_status find_storages(saw_checkpoint *ck, torch_legacy *l)
{
    const saw_pickle *object = &l->part[OBJECT];
    const value *keys = l->part[KEYS].root;
    const char *path = saw_file_path(ck->file);
    saw_status status = SAW_OK;
    saw_name_map item_bytes = {.ctx = ck->ctx};
    uint64_t at = l->bytes, count;
    size_t bytes, size = (size_t)saw_file_size(ck->file);
    l->ranges = saw_calloc(ck->ctx, keys->u.seq.n, sizeof *l->ranges);
    if (!l->ranges)
        return SAW_ERR_MEMORY;
    for (size_t i = 0; i < object->storage_count && !status; i++) {
        const saw_pickle_storage *s = &object->storages[i]->u.storage;
        if (s->item_bytes)
            status = saw_name_map_put(&item_bytes, s->key->u.text.bytes, s->key->u.text.n,
                                      s->item_bytes);
    }
    for (size_t i = 0; i < keys->u.seq.n && !status; i++) {
        const value *key = keys->u.seq.items[i];
        const size_t *item = key->kind == SAW_PICKLE_STRING
                                 ? saw_name_map_get(&item_bytes, key->u.text.bytes, key->u.text.n)
                                 : NULL;
        if (!item)
            status = saw_fail(ck->ctx, SAW_ERR_FORMAT,
                              "%s: is damaged: its list of storages is wrong", path);
        if (!status)
            status = saw_file_read(ck->file, at, &count, 8);
        if (!status && (!saw_mul_size((size_t)count, *item, &bytes) || bytes > size - at - 8))
            status =
                saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is cut short: storage '%.*s' is not whole",
                         path, text_length(key), key->u.text.bytes);
        if (!status) {
            l->ranges[i] = (saw_byte_range){at + 8, bytes};
            at += 8 + bytes;
            status = saw_name_map_put(&l->index, key->u.text.bytes, key->u.text.n, i);
        }
    }
    saw_name_map_free(&item_bytes);
    return status;
}

/* The pickles have no length before them: read so much, and more when it was not enough. */
static saw_status read_legacy(saw_checkpoint *ck, torch_legacy *l, saw_pool *values, char **block)
{
    uint64_t size = saw_file_size(ck->file);
    uint64_t most = size < MAX_PICKLE_BYTES ? size : MAX_PICKLE_BYTES, n = LEGACY_FIRST_BYTES;
    saw_status status;
    bool cut_short = false, again;
    do {
        n = n < most ? n : most;
        saw_free(ck->ctx, *block);
        *block = saw_alloc(ck->ctx, (size_t)n);
        if (!*block)
            return SAW_ERR_MEMORY;
        saw_pool_free(values);
        saw_pool_init(values, ck->ctx, value_bytes(n));
        status = saw_file_read(ck->file, 0, *block, (size_t)n);
        if (!status)
            status = read_parts(ck, values, (uint8_t *)*block, (size_t)n, l, &cut_short);
        again = status && cut_short && n < most;
        n *= 4;
    } while (again);
    if (!status)
        status = find_storages(ck, l);
    if (!status)
        status = read_object(ck, &l->part[OBJECT], &(locator){locate_legacy, l, *block, 0});
    return status;
}

saw_status saw_read_torch_legacy(saw_checkpoint *ck)
{
    torch_legacy l = {.index.ctx = ck->ctx};
    saw_pool values = {0};
    char *block = NULL;
    ck->container = "torch legacy";
    saw_status status = read_legacy(ck, &l, &values, &block);
    saw_name_map_free(&l.index);
    saw_free(ck->ctx, l.ranges);
    saw_pool_free(&values);
    saw_free(ck->ctx, block);
    return status;
}
