/*
 * fuzz_main.c - runs a fuzzer without libFuzzer: over the files given (of a folder: all in it),
 * then over N random mutations of them. The same arguments give the same inputs, so that a failure
 * can be repeated.
 *
 *   fuzz_<name> [-n N] FILE_OR_FOLDER...
 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BYTES = 1 << 20 };

typedef struct input {
    uint8_t *bytes;
    size_t n;
} input;

static input *inputs;
static size_t input_count;
static uint64_t draws;

static uint32_t below(size_t n) /* a number in [0, n) */
{
    uint32_t r[4];
    saw_philox(2026, 0, draws++, r);
    return n ? (uint32_t)(r[0] % n) : 0;
}

static void add_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    input in = {malloc(MAX_BYTES), 0};
    inputs = realloc(inputs, (input_count + 1) * sizeof *inputs);
    if (!f || !in.bytes || !inputs) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    in.n = fread(in.bytes, 1, MAX_BYTES, f);
    in.bytes = realloc(in.bytes, in.n + 1);
    inputs[input_count++] = in;
    fclose(f);
}

static void add_path(const char *path)
{
    struct stat st;
    struct dirent **entries;
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
        add_file(path);
        return;
    }
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
        if (!stat(inner, &st) && S_ISREG(st.st_mode))
            add_file(inner);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

/* Replace `cut` bytes at `at` by n others. */
static size_t replace(uint8_t *bytes, size_t size, size_t at, size_t cut, const uint8_t *by,
                      size_t n)
{
    if (size - cut + n > MAX_BYTES)
        return size;
    memmove(bytes + at + n, bytes + at + cut, size - at - cut);
    memmove(bytes + at, by, n);
    return size - cut + n;
}

static size_t mutate(uint8_t *bytes, size_t size)
{
    static const uint64_t numbers[] = {0,          1,         0x7f,       0x80,
                                       0xff,       0xffff,    0x7fffffff, 0x80000000,
                                       0xffffffff, INT64_MAX, UINT64_MAX, 1ull << 40};
    size_t at = below(size), n = 1 + below(size - at < 32 ? size - at : 32);
    const input *other = &inputs[below(input_count)];
    uint8_t some[8];
    if (!size)
        return replace(bytes, 0, 0, 0, (const uint8_t *)"\x80", 1);
    switch (below(7)) {
    case 0: /* a bit */
        bytes[at] ^= (uint8_t)(1u << below(8));
        return size;
    case 1: /* a byte */
        bytes[at] = (uint8_t)below(256);
        return size;
    case 2: /* a number of 1, 2, 4 or 8 bytes */
        memcpy(some, &numbers[below(sizeof numbers / sizeof *numbers)], 8);
        n = (size_t)1 << below(4);
        return replace(bytes, size, at, n < size - at ? n : size - at, some, n);
    case 3: /* bytes removed */
        return replace(bytes, size, at, n, some, 0);
    case 4: /* bytes repeated */
        return replace(bytes, size, at, 0, bytes + at, n);
    case 5: /* bytes of another input */
        n = n < other->n ? n : other->n;
        return replace(bytes, size, at,
                       below(2)        ? 0
                       : n < size - at ? n
                                       : size - at,
                       other->bytes + below(other->n - n + 1), n);
    default: /* cut short */
        return below(4) ? size : at;
    }
}

int main(int argc, char **argv)
{
    long mutations = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-n") && i + 1 < argc)
            mutations = atol(argv[++i]);
        else
            add_path(argv[i]);
    }
    if (!input_count) {
        fprintf(stderr, "usage: %s [-n MUTATIONS] FILE_OR_FOLDER...\n", argv[0]);
        return 2;
    }
    uint8_t *work = malloc(2 * MAX_BYTES);
    if (!work)
        return 1;
    for (size_t i = 0; i < input_count; i++)
        LLVMFuzzerTestOneInput(inputs[i].bytes, inputs[i].n);
    for (long i = 0; i < mutations; i++) {
        const input *in = &inputs[below(input_count)];
        size_t n = in->n;
        memcpy(work, in->bytes, n);
        for (uint32_t k = 1 + below(4); k > 0; k--)
            n = mutate(work, n);
        uint8_t *exact =
            malloc(n + 1); /* a block of its own size lets the sanitizer see reads past it */
        if (exact)
            LLVMFuzzerTestOneInput(memcpy(exact, work, n), n);
        free(exact);
    }
    printf("%zu inputs, %ld mutations\n", input_count, mutations);
    for (size_t i = 0; i < input_count; i++)
        free(inputs[i].bytes);
    free(inputs);
    free(work);
    return 0;
}
