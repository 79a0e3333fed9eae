/* unpack.c - libzip reads the archive; every size is checked before it is believed. */
#include "io/unpack.h"

#include <zip.h>

enum { PIECE = 64 << 10 };

static saw_status copy_member(saw_context *ctx, zip_t *z, const char *archive, const char *name,
                              uint64_t limit, FILE *to)
{
    zip_stat_t st;
    if (zip_stat(z, name, 0, &st) || !(st.valid & ZIP_STAT_SIZE))
        return saw_fail(ctx, SAW_ERR_FORMAT, "%s: holds no file %s", archive, name);
    if (st.size > limit)
        return saw_fail(ctx, SAW_ERR_FORMAT, "%s: %s has %llu MB, which is not believable", archive,
                        name, (unsigned long long)st.size >> 20);
    zip_file_t *from = zip_fopen(z, name, 0);
    char *piece = saw_alloc(ctx, PIECE);
    saw_status status = piece ? SAW_OK : SAW_ERR_MEMORY;
    if (!from)
        status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: %s cannot be unpacked: %s", archive, name,
                          zip_strerror(z));
    for (uint64_t left = st.size; left && !status;) {
        zip_int64_t n = zip_fread(from, piece, left < PIECE ? left : PIECE);
        if (n <= 0)
            status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: is damaged: %s ends early", archive, name);
        else if (fwrite(piece, 1, (size_t)n, to) != (size_t)n)
            status = saw_fail(ctx, SAW_ERR_IO, "%s: cannot be written: is the disk full?", name);
        else
            left -= (uint64_t)n;
    }
    if (from && zip_fclose(from) && !status) /* its checksum was wrong */
        status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: is damaged: the checksum of %s is wrong",
                          archive, name);
    saw_free(ctx, piece);
    return status;
}

saw_status saw_unpack(saw_context *ctx, const char *archive, const char *name, uint64_t limit,
                      const char *to)
{
    int code;
    zip_t *z = zip_open(archive, ZIP_RDONLY, &code);
    if (!z)
        return saw_fail(ctx, SAW_ERR_FORMAT, "%s: cannot be opened as a zip archive", archive);
    saw_atomic_file out = {0};
    saw_status status = saw_atomic_open(ctx, to, &out);
    if (!status)
        status = copy_member(ctx, z, archive, name, limit, out.file);
    if (!status)
        status = saw_atomic_commit(&out);
    saw_atomic_abort(&out);
    zip_discard(z);
    return status;
}
