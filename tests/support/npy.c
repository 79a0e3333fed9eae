#include "support/npy.h"

#include "base/base.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

struct npz {
    zip_t *zip;
    int count;
    char **names;
    npy **arrays;
};

static void *refuse(const char *name, const char *why)
{
    fprintf(stderr, "%s: %s\n", name, why);
    return NULL;
}

static bool parse_header(npy *a, const char *h, bool *fortran, bool *complex_values)
{
    const char *descr = strstr(h, "'descr':"), *order = strstr(h, "'fortran_order':");
    const char *shape = strstr(h, "'shape':");
    if (!descr || !order || !shape || !(descr = strchr(descr + 8, '\'')) ||
        !(shape = strchr(shape, '(')))
        return false;
    *complex_values = descr[2] == 'c';
    a->kind = *complex_values ? 'f' : descr[2];
    a->bytes = atoi(descr + 3);
    if (!strchr("<|", descr[1]) || !strchr("fiubc", descr[2]) || a->bytes < 1 || a->bytes > 16)
        return false;
    order += strcspn(order + 1, ":") + 2;
    *fortran = !strncmp(order + strspn(order, " "), "True", 4);
    a->count = 1;
    for (const char *p = shape + 1; *p && *p != ')';) {
        if (!isdigit((unsigned char)*p)) {
            p++;
            continue;
        }
        char *end;
        if (a->ndim == 8)
            return false;
        a->dims[a->ndim] = strtoll(p, &end, 10);
        a->count *= a->dims[a->ndim++];
        p = end;
    }
    if (*complex_values) {
        a->dims[a->ndim++] = 2;
        a->count *= 2;
        a->bytes /= 2;
    }
    return true;
}

/* Fortran order to C order; the re, im axis of a complex array is no axis of the file. */
static void reorder(npy *a, const uint8_t *from, int axes, size_t item)
{
    int64_t stride[9], index[9] = {0}, n = 1;
    for (int d = 0; d < axes; d++) {
        stride[d] = n;
        n *= a->dims[d];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 0;
        for (int d = 0; d < axes; d++)
            at += index[d] * stride[d];
        memcpy((uint8_t *)a->data + (size_t)i * item, from + (size_t)at * item, item);
        for (int d = axes - 1; d >= 0 && ++index[d] == a->dims[d]; d--)
            index[d] = 0;
    }
}

/* Takes the bytes of a whole .npy file; the caller frees them. */
static npy *parse(const char *name, const uint8_t *file, size_t size)
{
    if (size < 12 || memcmp(file, "\x93NUMPY", 6))
        return refuse(name, "is not an .npy file");
    bool short_length = file[6] == 1;
    size_t start = short_length ? 10 : 12;
    size_t length = file[8] | (size_t)file[9] << 8;
    if (!short_length)
        length |= (size_t)file[10] << 16 | (size_t)file[11] << 24;
    if (length > size - start)
        return refuse(name, "is cut short");
    char *header = strndup((const char *)file + start, length);
    npy *a = calloc(1, sizeof *a);
    if (!header || !a)
        abort();
    bool fortran = false, complex_values = false;
    bool known = parse_header(a, header, &fortran, &complex_values);
    free(header);
    if (!known || (size_t)a->count > (size - start - length) / (size_t)a->bytes) {
        free(a);
        return refuse(name, known ? "is cut short"
                                  : "has a type or shape that this reader does not know");
    }
    size_t bytes = (size_t)a->count * (size_t)a->bytes;
    a->data = malloc(bytes ? bytes : 1);
    if (!a->data)
        abort();
    if (fortran) {
        reorder(a, file + start + length, a->ndim - complex_values,
                (size_t)a->bytes << complex_values);
    } else {
        memcpy(a->data, file + start + length, bytes);
    }
    return a;
}

npy *npy_load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return refuse(path, "cannot be opened");
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    bool whole = bytes && size >= 0 && fread(bytes, 1, (size_t)size, f) == (size_t)size;
    npy *a = whole ? parse(path, bytes, (size_t)size) : refuse(path, "cannot be read");
    free(bytes);
    fclose(f);
    return a;
}

void npy_free(npy *a)
{
    if (!a)
        return;
    free(a->data);
    free(a->f32);
    free(a->f64);
    free(a);
}

static double value(const npy *a, int64_t i)
{
    const uint8_t *p = (const uint8_t *)a->data + i * a->bytes;
    uint64_t u = 0;
    memcpy(&u, p, a->bytes < 8 ? (size_t)a->bytes : 8);
    if (a->kind == 'f') {
        float f;
        double d;
        memcpy(&f, p, a->bytes >= 4 ? 4 : 0);
        memcpy(&d, p, a->bytes >= 8 ? 8 : 0);
        return a->bytes == 2 ? saw_f16_to_f32((uint16_t)u) : a->bytes == 4 ? f : d;
    }
    if (a->kind == 'i') {
        int shift = 64 - 8 * a->bytes;
        return (double)((int64_t)(u << shift) >> shift);
    }
    return (double)u;
}

const float *npy_f32(npy *a)
{
    if (a->kind == 'f' && a->bytes == 4)
        return a->data;
    if (!a->f32) {
        a->f32 = malloc((size_t)(a->count + 1) * sizeof *a->f32);
        for (int64_t i = 0; i < a->count; i++)
            a->f32[i] = (float)value(a, i);
    }
    return a->f32;
}

const double *npy_f64(npy *a)
{
    if (a->kind == 'f' && a->bytes == 8)
        return a->data;
    if (!a->f64) {
        a->f64 = malloc((size_t)(a->count + 1) * sizeof *a->f64);
        for (int64_t i = 0; i < a->count; i++)
            a->f64[i] = value(a, i);
    }
    return a->f64;
}

npz *npz_open(const char *path)
{
    zip_t *zip = zip_open(path, ZIP_RDONLY, NULL);
    if (!zip)
        return refuse(path, "cannot be opened as a zip file");
    npz *z = calloc(1, sizeof *z);
    if (!z)
        abort();
    z->zip = zip;
    z->count = (int)zip_get_num_entries(zip, 0);
    z->names = calloc((size_t)z->count + 1, sizeof *z->names);
    z->arrays = calloc((size_t)z->count + 1, sizeof *z->arrays);
    for (int i = 0; i < z->count; i++) {
        z->names[i] = strdup(zip_get_name(zip, (zip_uint64_t)i, 0));
        size_t n = strlen(z->names[i]);
        if (n > 4 && !strcmp(z->names[i] + n - 4, ".npy"))
            z->names[i][n - 4] = 0;
    }
    return z;
}

void npz_close(npz *z)
{
    if (!z)
        return;
    for (int i = 0; i < z->count; i++) {
        free(z->names[i]);
        npy_free(z->arrays[i]);
    }
    free(z->names);
    free(z->arrays);
    zip_discard(z->zip);
    free(z);
}

int npz_count(const npz *z)
{
    return z->count;
}

const char *npz_name(const npz *z, int i)
{
    return z->names[i];
}

npy *npz_get(npz *z, const char *name)
{
    int i = 0;
    while (i < z->count && strcmp(z->names[i], name))
        i++;
    if (i == z->count)
        return NULL;
    if (z->arrays[i])
        return z->arrays[i];
    zip_stat_t stat;
    zip_file_t *f = zip_fopen_index(z->zip, (zip_uint64_t)i, 0);
    if (!f || zip_stat_index(z->zip, (zip_uint64_t)i, 0, &stat))
        return refuse(name, "cannot be read from its .npz file");
    uint8_t *bytes = malloc(stat.size + 1);
    bool whole = bytes && zip_fread(f, bytes, stat.size) == (zip_int64_t)stat.size;
    z->arrays[i] = whole ? parse(name, bytes, stat.size) : refuse(name, "is cut short");
    free(bytes);
    zip_fclose(f);
    return z->arrays[i];
}
