/*
 * tf_bundle.c - the checkpoints that TensorFlow's Saver writes: <name>.index and, for one shard,
 * <name>.data-00000-of-00001.
 *
 * The index is a LevelDB table: blocks of entries in rising order of their keys, each key given as
 * so many bytes of the one before and the rest; an index of the blocks; a footer of 48 bytes that
 * says where that is and ends with a magic number. Behind every block are a byte that tells its
 * compression and a masked CRC-32C. The values are protocol buffers: under the empty key the
 * header, under every other key a tensor's type, shape, shard, offset and size in the data file.
 */
#include "io/checkpoint_file.h"

#include <string.h>

enum { FOOTER = 48, TRAILER = 5, MAX_BLOCK = 64 << 20, LONGEST_NAME = 4096 };
static const uint8_t MAGIC[8] = {0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb};
static const char INDEX[] = ".index", DATA[] = ".data-00000-of-00001";

/* ---- bytes ------------------------------------------------------------------------------------- ---- */

/* What is left to read; after a failure `bad` is set and everything reads as 0. */
typedef struct cursor {
    const uint8_t *p, *end;
    bool bad;
} cursor;

static uint64_t varint(cursor *c)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (c->p == c->end)
            break;
        uint8_t byte = *c->p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return v;
    }
    c->bad = true;
    return 0;
}

static cursor span(cursor *c, uint64_t n)
{
    cursor inner = {c->p, c->p, false};
    if (c->bad || n > (uint64_t)(c->end - c->p)) {
        c->bad = inner.bad = true;
        return inner;
    }
    inner.end = c->p += n;
    return inner;
}

/* The next field of a protocol buffer: its number, 0 at the end; a number or a span. */
static int field(cursor *c, uint64_t *number, cursor *bytes)
{
    if (c->bad || c->p == c->end)
        return 0;
    uint64_t tag = varint(c), wire = tag & 7;
    *number = 0;
    *bytes = (cursor){c->p, c->p, false};
    if (wire == 0)
        *number = varint(c);
    else if (wire == 2)
        *bytes = span(c, varint(c));
    else if (wire == 1 || wire == 5)
        span(c, wire == 1 ? 8 : 4);
    else
        c->bad = true;
    return c->bad || tag >> 3 > 1000 ? 0 : (int)(tag >> 3);
}

/* CRC-32C (Castagnoli), and the mask that LevelDB puts on it. */
static uint32_t masked_crc(const uint8_t *p, size_t n)
{
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = v >> 1 ^ (v & 1 ? 0x82f63b78u : 0);
        table[i] = v;
    }
    for (size_t i = 0; i < n; i++)
        crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xff];
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static saw_status damaged(saw_checkpoint *ck, const char *what)
{
    return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is damaged: %s", saw_file_path(ck->file), what);
}

/* ---- blocks ------------------------------------------------------------------------------------ ---- */

/* A block's entries, without the restart points behind them. *block is the caller's to free. */
static saw_status read_block(saw_checkpoint *ck, cursor *handle, uint8_t **block, cursor *entries)
{
    uint64_t offset = varint(handle), size = varint(handle), all = saw_file_size(ck->file);
    *block = NULL;
    if (handle->bad || size < 4 || size > MAX_BLOCK || offset > all ||
        size + TRAILER > all - offset)
        return damaged(ck, "a block lies outside of it");
    *block = saw_alloc(ck->ctx, (size_t)size + TRAILER);
    if (!*block)
        return SAW_ERR_MEMORY;
    saw_status status = saw_file_read(ck->file, offset, *block, (size_t)size + TRAILER);
    if (status)
        return status;
    uint32_t crc, restarts;
    memcpy(&crc, *block + size + 1, 4);
    memcpy(&restarts, *block + size - 4, 4);
    if (crc != masked_crc(*block, (size_t)size + 1))
        return damaged(ck, "the checksum of a block is wrong");
    if ((*block)[size])
        return saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED, "%s: is compressed, which is not understood",
                        saw_file_path(ck->file));
    if (restarts > (size - 4) / 4)
        return damaged(ck, "a block has too many restart points");
    *entries = (cursor){*block, *block + size - 4 - 4 * (uint64_t)restarts, false};
    return SAW_OK;
}

/* The next entry of a block: key grows out of the one before. false at the end. */
static bool next_entry(cursor *c, char *key, size_t *key_bytes, cursor *value)
{
    if (c->bad || c->p == c->end)
        return false;
    uint64_t same = varint(c), more = varint(c), size = varint(c);
    if (same > *key_bytes || more > LONGEST_NAME - same)
        c->bad = true;
    cursor rest = span(c, more);
    *value = span(c, size);
    if (c->bad)
        return false;
    memcpy(key + same, rest.p, (size_t)more);
    *key_bytes = (size_t)(same + more);
    return true;
}

/* ---- entries ------------------------------------------------------------------------------------ ---- */

static saw_status read_header(saw_checkpoint *ck, cursor value)
{
    uint64_t number, shards = 0, big_endian = 0;
    cursor bytes;
    for (int f; (f = field(&value, &number, &bytes)) != 0;) {
        shards = f == 1 ? number : shards;
        big_endian = f == 2 ? number : big_endian;
    }
    if (value.bad)
        return damaged(ck, "its header is no protocol buffer");
    if (big_endian || shards != 1)
        return saw_fail(ck->ctx, SAW_ERR_UNSUPPORTED,
                        "%s: has %llu data files%s; only one is understood",
                        saw_file_path(ck->file), (unsigned long long)shards,
                        big_endian ? ", from a big-endian machine" : "");
    return SAW_OK;
}

static int dtype_of(uint64_t code)
{
    static const struct {
        uint64_t code;
        saw_dtype dtype;
    } types[] = {{1, SAW_F32}, {2, SAW_F64}, {3, SAW_I32},   {4, SAW_U8},    {5, SAW_I16},
                 {6, SAW_I8},  {9, SAW_I64}, {10, SAW_BOOL}, {14, SAW_BF16}, {19, SAW_F16}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == code)
            return (int)types[i].dtype;
    return -1;
}

/* false: more dimensions than a tensor can have. */
static bool read_shape(cursor shape, saw_ckpt_tensor *t, bool *bad)
{
    uint64_t number;
    cursor dim;
    t->ndim = 0;
    for (int f; (f = field(&shape, &number, &dim)) != 0;) {
        if (f != 2)
            continue;
        if (t->ndim == SAW_MAX_DIMS)
            return false;
        uint64_t size = 0;
        cursor ignored;
        for (int k; (k = field(&dim, &number, &ignored)) != 0;)
            size = k == 1 ? number : size;
        *bad = *bad || dim.bad || size > INT64_MAX;
        t->dims[t->ndim++] = (int64_t)(size & INT64_MAX);
    }
    *bad = *bad || shape.bad;
    int64_t stride = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        t->strides[d] = stride;
        if (__builtin_mul_overflow(stride, t->dims[d] > 1 ? t->dims[d] : 1, &stride))
            *bad = true;
        if (*bad)
            break;
    }
    return true;
}

static saw_status add_entry(saw_checkpoint *ck, const char *key, size_t n, cursor value,
                            uint64_t data_bytes)
{
    saw_ckpt_tensor t = {0};
    uint64_t number, type = 0, offset = 0, size = 0;
    cursor bytes, shape = {0};
    bool whole = true, bad = false;
    for (int f; (f = field(&value, &number, &bytes)) != 0;) {
        type = f == 1 ? number : type;
        shape = f == 2 ? bytes : shape;
        offset = f == 4 ? number : offset;
        size = f == 5 ? number : size;
        whole = whole && f != 7; /* slices of a partitioned variable */
    }
    int shown = n < 200 ? (int)n : 200, dtype = dtype_of(type);
    bool fits = read_shape(shape, &t, &bad);
    if (value.bad || bad)
        return damaged(ck, "the entry of a tensor is no protocol buffer");
    if (dtype < 0 || !whole || !fits) {
        saw_ckpt_note(ck,
                      "tensor %.*s was skipped: its type, slices or dimensions are not supported",
                      shown, key);
        return SAW_OK;
    }
    t.dtype = (saw_dtype)dtype;
    if (offset > data_bytes || size > data_bytes - offset)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                        "%s: is damaged: tensor '%.*s' lies outside of the data file",
                        saw_file_path(ck->file), shown, key);
    return saw_ckpt_add(ck, key, n, &t, (saw_byte_range){offset, size}, 0);
}

static saw_status read_entries(saw_checkpoint *ck, cursor entries, uint64_t data_bytes)
{
    char key[LONGEST_NAME];
    size_t n = 0;
    cursor value;
    saw_status status = SAW_OK;
    while (!status && next_entry(&entries, key, &n, &value))
        status = n ? add_entry(ck, key, n, value, data_bytes) : read_header(ck, value);
    return !status && entries.bad ? damaged(ck, "a block ends within an entry") : status;
}

static saw_status read_table(saw_checkpoint *ck, uint64_t data_bytes)
{
    uint8_t footer[FOOTER], *index = NULL;
    saw_status status = saw_file_read(ck->file, saw_file_size(ck->file) - FOOTER, footer, FOOTER);
    if (status)
        return status;
    cursor handle = {footer, footer + FOOTER - sizeof MAGIC, false}, blocks = {0}, value;
    varint(&handle); /* where the unused meta index is */
    varint(&handle);
    status = read_block(ck, &handle, &index, &blocks);
    char key[LONGEST_NAME];
    size_t n = 0;
    while (!status && next_entry(&blocks, key, &n, &value)) {
        uint8_t *block;
        cursor entries;
        status = read_block(ck, &value, &block, &entries);
        if (!status)
            status = read_entries(ck, entries, data_bytes);
        saw_free(ck->ctx, block);
    }
    if (!status && blocks.bad)
        status = damaged(ck, "its index ends within an entry");
    saw_free(ck->ctx, index);
    return status;
}

bool saw_is_tf_bundle(saw_file *file)
{
    uint8_t end[sizeof MAGIC];
    uint64_t size = saw_file_size(file);
    return size >= FOOTER && !saw_file_read(file, size - sizeof end, end, sizeof end) &&
           !memcmp(end, MAGIC, sizeof end);
}

saw_status saw_read_tf_bundle(saw_checkpoint *ck)
{
    const char *path = saw_file_path(ck->file);
    size_t n = strlen(path), tail = sizeof INDEX - 1;
    if (n > tail && !strcmp(path + n - tail, INDEX))
        n -= tail;
    char *name = saw_format(ck->ctx, "%.*s%s", (int)n, path, DATA);
    saw_file *data = NULL;
    ck->container = "TensorFlow bundle";
    saw_status status = name ? saw_file_open(ck->ctx, name, &data) : SAW_ERR_MEMORY;
    if (!status)
        status = read_table(ck, saw_file_size(data));
    saw_free(ck->ctx, name);
    if (status) {
        saw_file_close(data);
        return status;
    }
    saw_file_close(ck->file); /* from here on it is the tensors' file that matters */
    ck->file = data;
    return SAW_OK;
}
