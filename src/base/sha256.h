/*
 * sha256.h - SHA-256 (FIPS 180-4), of bytes in pieces or of a file.
 */
#ifndef SAW_SHA256_H
#define SAW_SHA256_H

#include "base/base.h"

enum { SAW_SHA256_BYTES = 32, SAW_SHA256_TEXT = 65 };

typedef struct saw_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} saw_sha256;

void saw_sha256_start(saw_sha256 *s);
void saw_sha256_add(saw_sha256 *s, const void *bytes, size_t n);
/** The digest as lower-case hexadecimal, terminated. */
void saw_sha256_end(saw_sha256 *s, char text[SAW_SHA256_TEXT]);
/** Of a whole file. */
saw_status saw_sha256_file(saw_context *ctx, const char *path, char text[SAW_SHA256_TEXT]);

#endif
