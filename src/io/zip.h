/*
 * zip.h - where the members of a zip file lie. Only the directory is read: stored members can then
 * be read in place, at any offset, with no copy. ZIP64 is understood; compressed members are
 * refused.
 */
#ifndef SAW_ZIP_H
#define SAW_ZIP_H

#include "io/checkpoint_file.h"

typedef struct saw_zip_member {
    const char *name; /* not terminated */
    size_t name_bytes;
    uint64_t header_offset, stored_bytes;
    unsigned method, flags;
} saw_zip_member;

typedef struct saw_zip {
    saw_context *ctx;
    saw_file *file;
    char *directory; /* the central directory; the names lie in it */
    saw_zip_member *members;
    size_t count;
    saw_name_map index;
} saw_zip;

/** Read the directory of an open file, which must outlive z. Close z also when this fails. */
saw_status saw_zip_open(saw_context *ctx, saw_file *file, saw_zip *z);
void saw_zip_close(saw_zip *z);
/** Member by name, NULL when there is none. */
const saw_zip_member *saw_zip_find(const saw_zip *z, const char *name, size_t name_bytes);
/** Where the bytes of a member are. Fails when it is compressed, encrypted or beyond the end. */
saw_status saw_zip_locate(const saw_zip *z, const saw_zip_member *member, saw_byte_range *out);

#endif
