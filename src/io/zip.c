/*
 * zip.c - end record -> central directory -> local header: data = local offset + 30 + name + extra.
 * Sizes come from the central directory; the local header may have zeros there (torch writes it
 * so).
 */
#include "io/zip.h"

#include <string.h>

enum {
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30,
    MAX_COMMENT = 65535,
    ENCRYPTED = 1
};
static const uint64_t MAX_DIRECTORY_BYTES = 64u << 20;

static uint64_t number(const void *p, size_t bytes)
{
    uint64_t v = 0;
    memcpy(&v, p, bytes);
    return v;
}

static saw_status damaged(saw_zip *z, const char *what)
{
    return saw_fail(z->ctx, SAW_ERR_FORMAT, "%s: is a damaged zip file: %s", saw_file_path(z->file),
                    what);
}

/* The end record: count, size and offset of the directory, of its ZIP64 form where there is one. */
static saw_status find_end(saw_zip *z, uint64_t *count, uint64_t *bytes, uint64_t *offset)
{
    uint64_t size = saw_file_size(z->file);
    size_t n = size < END_BYTES + MAX_COMMENT ? (size_t)size : END_BYTES + MAX_COMMENT;
    uint8_t *tail = saw_alloc(z->ctx, n), end64[END64_BYTES];
    if (!tail)
        return SAW_ERR_MEMORY;
    saw_status status = saw_file_read(z->file, size - n, tail, n);
    const uint8_t *end = NULL;
    for (size_t i = END_BYTES; i <= n && !end && !status; i++)
        if (!memcmp(tail + n - i, "PK\5\6", 4) && number(tail + n - i + 20, 2) == i - END_BYTES)
            end = tail + n - i;
    if (end) {
        *count = number(end + 10, 2);
        *bytes = number(end + 12, 4);
        *offset = number(end + 16, 4);
        bool wide = *count == 0xffff || *bytes == 0xffffffff || *offset == 0xffffffff;
        if (wide && end - tail >= LOCATOR_BYTES && !memcmp(end - LOCATOR_BYTES, "PK\6\7", 4)) {
            status = saw_file_read(z->file, number(end - LOCATOR_BYTES + 8, 8), end64, END64_BYTES);
            if (!status && memcmp(end64, "PK\6\6", 4) != 0)
                status = damaged(z, "its ZIP64 record is missing");
            if (!status) {
                *count = number(end64 + 32, 8);
                *bytes = number(end64 + 40, 8);
                *offset = number(end64 + 48, 8);
            }
        }
    } else if (!status) {
        status = damaged(z, "its directory is missing, so it was probably cut short");
    }
    saw_free(z->ctx, tail);
    return status;
}

/* 64-bit sizes from extra field 1: those whose 32-bit place is full, in this order. */
static bool widen(const uint8_t *extra, size_t n, uint64_t *plain, uint64_t *stored,
                  uint64_t *offset)
{
    uint64_t *wanted[3] = {plain, stored, offset};
    while (n >= 4) {
        size_t id = (size_t)number(extra, 2), length = (size_t)number(extra + 2, 2);
        if (length > n - 4)
            return false;
        const uint8_t *p = extra + 4;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*wanted[i] != 0xffffffff)
                continue;
            if (length - (size_t)(p - (extra + 4)) < 8)
                return false;
            *wanted[i] = number(p, 8);
            p += 8;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return true;
}

saw_status saw_zip_open(saw_context *ctx, saw_file *file, saw_zip *z)
{
    uint64_t count = 0, bytes = 0, offset = 0;
    *z = (saw_zip){.ctx = ctx, .file = file, .index.ctx = ctx};
    saw_status status = find_end(z, &count, &bytes, &offset);
    if (status)
        return status;
    if (bytes > MAX_DIRECTORY_BYTES || count > bytes / ENTRY_BYTES)
        return damaged(z, "its directory has an impossible size");
    z->directory = saw_alloc(ctx, (size_t)bytes);
    z->members = saw_calloc(ctx, (size_t)count, sizeof *z->members);
    if (!z->directory || !z->members)
        return SAW_ERR_MEMORY;
    status = saw_file_read(file, offset, z->directory, (size_t)bytes);
    const uint8_t *p = (const uint8_t *)z->directory, *end = p + bytes;
    for (uint64_t i = 0; i < count && !status; i++) {
        if (end - p < ENTRY_BYTES || memcmp(p, "PK\1\2", 4) != 0)
            return damaged(z, "an entry of its directory is missing");
        size_t name = (size_t)number(p + 28, 2), extra = (size_t)number(p + 30, 2);
        size_t whole = ENTRY_BYTES + name + extra + (size_t)number(p + 32, 2);
        if (whole > (size_t)(end - p))
            return damaged(z, "an entry of its directory is cut short");
        uint64_t stored = number(p + 20, 4), plain = number(p + 24, 4), header = number(p + 42, 4);
        if (!widen(p + ENTRY_BYTES + name, extra, &plain, &stored, &header))
            return damaged(z, "a 64-bit size of its directory is missing");
        z->members[i] = (saw_zip_member){.name = (const char *)p + ENTRY_BYTES,
                                         .name_bytes = name,
                                         .header_offset = header,
                                         .stored_bytes = stored,
                                         .method = (unsigned)number(p + 10, 2),
                                         .flags = (unsigned)number(p + 8, 2)};
        z->count++;
        status = saw_name_map_put(&z->index, z->members[i].name, name, (size_t)i);
        p += whole;
    }
    return status;
}

void saw_zip_close(saw_zip *z)
{
    saw_name_map_free(&z->index);
    saw_free(z->ctx, z->directory);
    saw_free(z->ctx, z->members);
    *z = (saw_zip){0};
}

const saw_zip_member *saw_zip_find(const saw_zip *z, const char *name, size_t name_bytes)
{
    const size_t *i = saw_name_map_get(&z->index, name, name_bytes);
    return i ? &z->members[*i] : NULL;
}

saw_status saw_zip_locate(const saw_zip *z, const saw_zip_member *member, saw_byte_range *out)
{
    const char *path = saw_file_path(z->file);
    int shown = member->name_bytes < 200 ? (int)member->name_bytes : 200;
    uint8_t local[LOCAL_BYTES];
    if (member->method != 0 || member->flags & ENCRYPTED)
        return saw_fail(
            z->ctx, SAW_ERR_UNSUPPORTED,
            "%s: member '%.*s' is %s, which torch.save never does: save the checkpoint anew", path,
            shown, member->name, member->method ? "compressed" : "encrypted");
    saw_status status = saw_file_read(z->file, member->header_offset, local, sizeof local);
    if (status)
        return status;
    uint64_t size = saw_file_size(z->file);
    uint64_t start =
        member->header_offset + LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    if (memcmp(local, "PK\3\4", 4) != 0 || start > size || member->stored_bytes > size - start)
        return saw_fail(z->ctx, SAW_ERR_FORMAT,
                        "%s: is damaged or cut short: member '%.*s' is not inside it", path, shown,
                        member->name);
    *out = (saw_byte_range){start, member->stored_bytes};
    return SAW_OK;
}
