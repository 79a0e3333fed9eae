/*
 * checkpoint.c - the front: which reader a file needs, the list of tensors, and reading their
 * elements.
 */
#include "io/checkpoint_file.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    CONVERT_BYTES = 64 << 10, /* read and converted at a time: stays in the cache */
    RUN_BYTES = 4096,         /* shorter runs of a strided tensor are not read one by one */
    MAX_NOTES = 200,
    POOL_BYTES = 256 << 20
};
/* A value that repeats (stride 0) makes a tensor larger than its file: up to this many elements. */
static const int64_t MAX_EXPANDED = (int64_t)1 << 26;

/* ---- what a file is -------------------------------------------------------------------------- */

/* Files that people take for a checkpoint, by their first bytes. */
static const struct {
    const char *bytes;
    int n;
    const char *what;
} OTHERS[] = {
    {"GGUF", 4, "a GGUF file of a language model"},
    {"\x89HDF", 4, "an HDF5 file"},
    {"\x1f\x8b", 2, "compressed with gzip: unpack it first"},
    {"7z\xbc\xaf", 4, "a 7z archive: unpack it first"},
    {"Rar!", 4, "a RAR archive: unpack it first"},
    {"\x93NUMPY", 6, "a numpy array"},
    {"RIFF", 4, "an audio or video file"},
    {"fLaC", 4, "an audio file"},
    {"version https://git-lfs", 23, "a Git LFS pointer: the file itself was not downloaded"},
    {"<!DOCTYPE", 9, "a web page: the download failed"},
    {"<!doctype", 9, "a web page: the download failed"},
    {"<html", 5, "a web page: the download failed"},
};

static saw_status refuse_unknown(saw_checkpoint *ck, const uint8_t *head, size_t n)
{
    const char *path = saw_file_path(ck->file);
    if (!n)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is empty, not a checkpoint", path);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        if (n >= (size_t)OTHERS[i].n && !memcmp(head, OTHERS[i].bytes, (size_t)OTHERS[i].n))
            return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is no checkpoint but %s", path,
                            OTHERS[i].what);
    if (n >= 3 && head[0] == 8 && head[2] == 0x12) /* ir_version, producer_name */
        return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is no checkpoint but probably an ONNX file",
                        path);
    size_t text = 0;
    while (text < n && (head[text] >= 32 || strchr("\t\r\n", head[text])) && head[text])
        text++;
    if (text == n)
        return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is a text file, not a checkpoint", path);
    return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                    "%s: is not a checkpoint that torch.save, safetensors or TensorFlow (.index) "
                    "wrote, or it is "
                    "damaged",
                    path);
}

static saw_status read_any(saw_checkpoint *ck)
{
    uint8_t head[64];
    uint64_t size = saw_file_size(ck->file);
    size_t n = size < sizeof head ? (size_t)size : sizeof head;
    saw_status status = saw_file_read(ck->file, 0, head, n);
    if (status)
        return status;
    if (saw_is_tf_bundle(ck->file))
        return saw_read_tf_bundle(ck);
    if (n >= 4 && (!memcmp(head, "PK\3\4", 4) || !memcmp(head, "PK\5\6", 4)))
        return saw_read_torch_zip(ck);
    if (n >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5)
        return saw_read_torch_legacy(ck);
    if (n >= 9 && head[8] == '{')
        return saw_read_safetensors(ck);
    return refuse_unknown(ck, head, n);
}

/* ---- the list -------------------------------------------------------------------------------- */

void saw_ckpt_note(saw_checkpoint *ck, const char *fmt, ...)
{
    if (ck->note_count == MAX_NOTES)
        return;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126)
            *p = '?';
    if (!ck->notes)
        ck->notes = saw_pool_alloc(&ck->pool, MAX_NOTES * sizeof *ck->notes);
    char *copy = ck->notes ? saw_pool_strndup(&ck->pool, text, strlen(text)) : NULL;
    if (copy)
        ck->notes[ck->note_count++] = copy;
}

/* Count and check sizes and strides; *reach: elements from the first to one past the last. */
static bool measure(saw_ckpt_tensor *t, uint64_t *reach)
{
    size_t count = 1, bytes, last = 0, far;
    bool empty = false;
    for (int d = 0; d < t->ndim; d++) {
        if (t->dims[d] < 0 || t->strides[d] < 0)
            return false;
        empty |= t->dims[d] == 0;
        /* one zero does not excuse the others: every partial product must be addressable */
        if (t->dims[d] &&
            (!saw_mul_size(count, (size_t)t->dims[d], &count) || count > INT64_MAX / 8))
            return false;
    }
    for (int d = 0; d < t->ndim && !empty; d++)
        if (!saw_mul_size((size_t)t->dims[d] - 1, (size_t)t->strides[d], &far) ||
            !saw_add_size(last, far, &last) || last > INT64_MAX / 8)
            return false;
    if (!saw_mul_size(count, saw_dtype_bytes(t->dtype), &bytes))
        return false;
    t->count = empty ? 0 : (int64_t)count;
    *reach = empty ? 0 : last + 1;
    return true;
}

static saw_status add_checked(saw_checkpoint *ck, const char *name, size_t name_bytes,
                              const saw_ckpt_tensor *t)
{
    saw_ckpt_tensor tensor = *t;
    size_t *there = saw_name_map_get(&ck->index, name, name_bytes);
    if (there) {
        tensor.name = ck->tensors[*there].name;
        ck->tensors[*there] = tensor;
        return SAW_OK;
    }
    tensor.name = saw_pool_strndup(&ck->pool, name, name_bytes);
    if (!tensor.name)
        return SAW_ERR_MEMORY;
    if (ck->count == ck->room) {
        int room = ck->room ? 2 * ck->room : 256;
        saw_ckpt_tensor *bigger = saw_realloc(ck->ctx, ck->tensors, (size_t)room * sizeof *bigger);
        if (!bigger)
            return SAW_ERR_MEMORY;
        ck->tensors = bigger;
        ck->room = room;
    }
    ck->tensors[ck->count] = tensor;
    return saw_name_map_put(&ck->index, tensor.name, name_bytes, (size_t)ck->count++);
}

saw_status saw_ckpt_add(saw_checkpoint *ck, const char *name, size_t name_bytes,
                        const saw_ckpt_tensor *t, saw_byte_range where, uint64_t first)
{
    saw_context *ctx = ck->ctx;
    const char *path = saw_file_path(ck->file);
    int shown = name_bytes < 200 ? (int)name_bytes : 200;
    if (memchr(name, 0, name_bytes)) {
        saw_ckpt_note(ck, "a tensor whose name has a zero byte was skipped");
        return SAW_OK;
    }
    saw_ckpt_tensor tensor = *t;
    uint64_t reach, size = saw_dtype_bytes(t->dtype);
    if (!measure(&tensor, &reach))
        return saw_fail(ctx, SAW_ERR_FORMAT,
                        "%s: is damaged: tensor '%.*s' has an impossible shape", path, shown, name);
    if (reach && (first > where.bytes / size || reach > where.bytes / size - first))
        return saw_fail(
            ctx, SAW_ERR_FORMAT,
            "%s: is damaged: tensor '%.*s' needs %llu elements from %llu on, its storage has %llu",
            path, shown, name, (unsigned long long)reach, (unsigned long long)first,
            (unsigned long long)(where.bytes / size));
    if ((uint64_t)tensor.count > where.bytes / size && tensor.count > MAX_EXPANDED)
        return saw_fail(
            ctx, SAW_ERR_FORMAT,
            "%s: tensor '%.*s' repeats %llu stored elements to %lld, which is not believable", path,
            shown, name, (unsigned long long)(where.bytes / size), (long long)tensor.count);
    tensor.offset_bytes = where.offset + (reach ? first * size : 0);
    return add_checked(ck, name, name_bytes, &tensor);
}

static saw_status index_names(saw_checkpoint *ck)
{
    saw_name_map_free(&ck->index);
    ck->index = (saw_name_map){.ctx = ck->ctx};
    saw_status status = SAW_OK;
    for (int k = 0; k < ck->count && !status; k++)
        status = saw_name_map_put(&ck->index, ck->tensors[k].name, strlen(ck->tensors[k].name),
                                  (size_t)k);
    return status;
}

saw_status saw_checkpoint_rename(saw_checkpoint *ck, int i, const char *name, const int *order)
{
    saw_ckpt_tensor *t = &ck->tensors[i], old = *t;
    t->name = saw_pool_strndup(&ck->pool, name, strlen(name));
    if (!t->name) {
        t->name = old.name;
        return SAW_ERR_MEMORY;
    }
    for (int d = 0; order && d < t->ndim; d++) {
        t->dims[d] = old.dims[order[d]];
        t->strides[d] = old.strides[order[d]];
    }
    return index_names(ck);
}

/* Remove the prefixes that all names have. */
static saw_status strip_prefixes(saw_checkpoint *ck)
{
    static const char *const prefixes[] = {"module.", "model.", "net.", "_orig_mod."};
    const char *whole = ck->count ? ck->tensors[0].name : "";
    size_t cut = 0;
    for (size_t i = 0; i < 4 && ck->count;) {
        size_t n = strlen(prefixes[i]);
        int k = 0;
        while (k < ck->count && !strncmp(ck->tensors[k].name, prefixes[i], n) &&
               ck->tensors[k].name[n])
            k++;
        if (k < ck->count) {
            i++;
            continue;
        }
        for (k = 0; k < ck->count; k++)
            ck->tensors[k].name += n;
        cut += n;
        saw_ckpt_note(ck, "prefix %s removed from every name", prefixes[i]);
        i = 0;
    }
    if (!cut)
        return SAW_OK;
    ck->prefix = saw_pool_strndup(&ck->pool, whole, cut);
    return ck->prefix ? index_names(ck) : SAW_ERR_MEMORY;
}

/* ---- folders --------------------------------------------------------------------------------- */

enum { MAX_PARTS = 64 };

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n > k && !strcmp(s + n - k, tail);
}

static bool is_checkpoint_name(const char *name)
{
    static const char *const tails[] = {".ckpt", ".pt",          ".pth",  ".th",
                                        ".bin",  ".safetensors", ".index"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        if (name[0] != '.' && ends_in(name, tails[i]))
            return true;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Paths of the checkpoints in a folder, in the order of their names; the caller's to free. */
static saw_status list_folder(saw_context *ctx, const char *path, char **files, int *count)
{
    DIR *folder = opendir(path);
    *count = 0;
    if (!folder)
        return saw_fail(ctx, SAW_ERR_IO, "%s: the folder cannot be read", path);
    saw_status status = SAW_OK;
    for (struct dirent *e; !status && (e = readdir(folder));) {
        if (!is_checkpoint_name(e->d_name))
            continue;
        if (*count == MAX_PARTS)
            status = saw_fail(ctx, SAW_ERR_UNSUPPORTED, "%s: holds more than %d checkpoints", path,
                              (int)MAX_PARTS);
        else if (!(files[*count] = saw_format(ctx, "%s/%s", path, e->d_name)))
            status = SAW_ERR_MEMORY;
        else
            ++*count;
    }
    closedir(folder);
    qsort(files, (size_t)*count, sizeof *files, by_name);
    if (!status && !*count)
        status = saw_fail(ctx, SAW_ERR_FORMAT,
                          "%s: is a folder without a checkpoint (.ckpt, .pt, .pth, .th, .bin, "
                          ".safetensors, .index)",
                          path);
    return status;
}

/* Take over the tensors of file i as "i.<name>". */
static saw_status join_part(saw_checkpoint *ck, int i)
{
    const saw_checkpoint *part = ck->parts[i];
    saw_status status = SAW_OK;
    for (int k = 0; k < part->count && !status; k++) {
        char *name = saw_format(ck->ctx, "%d.%s", i, part->tensors[k].name);
        saw_ckpt_tensor t = part->tensors[k];
        t.part = i;
        status = name ? add_checked(ck, name, strlen(name), &t) : SAW_ERR_MEMORY;
        saw_free(ck->ctx, name);
    }
    const char *file = strrchr(saw_file_path(part->file), '/');
    saw_ckpt_note(ck, "names %d.* are from %s", i, file ? file + 1 : saw_file_path(part->file));
    return status;
}

static saw_status new_checkpoint(saw_context *ctx, saw_checkpoint **out)
{
    saw_checkpoint *ck = *out = saw_calloc(ctx, 1, sizeof *ck);
    if (!ck)
        return SAW_ERR_MEMORY;
    ck->ctx = ck->index.ctx = ctx;
    ck->prefix = "";
    saw_pool_init(&ck->pool, ctx, POOL_BYTES);
    return SAW_OK;
}

static saw_status open_folder(saw_context *ctx, const char *path, saw_checkpoint **out)
{
    char *files[MAX_PARTS];
    int count;
    saw_status status = list_folder(ctx, path, files, &count);
    if (!status && count == 1) {
        status = saw_checkpoint_open(ctx, files[0], out);
    } else if (!status) {
        saw_checkpoint *ck;
        status = new_checkpoint(ctx, &ck);
        if (ck && !(ck->parts = saw_calloc(ctx, (size_t)count, sizeof *ck->parts)))
            status = SAW_ERR_MEMORY;
        for (int i = 0; i < count && !status; i++) {
            status = saw_checkpoint_open(ctx, files[i], &ck->parts[i]);
            ck->part_count += !status;
            if (!status)
                status = join_part(ck, i);
        }
        if (!status)
            ck->container = ck->parts[0]->container;
        else
            saw_checkpoint_close(ck);
        *out = status ? NULL : ck;
    }
    for (int i = 0; i < count; i++)
        saw_free(ctx, files[i]);
    return status;
}

saw_status saw_checkpoint_open(saw_context *ctx, const char *path, saw_checkpoint **out)
{
    *out = NULL;
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        return open_folder(ctx, path, out);
    saw_checkpoint *ck;
    saw_status status = new_checkpoint(ctx, &ck);
    if (status)
        return status;
    status = saw_file_open(ctx, path, &ck->file);
    if (!status)
        status = read_any(ck);
    if (!status && !ck->count)
        status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: holds no tensors", path);
    if (!status)
        status = strip_prefixes(ck);
    if (status) {
        saw_checkpoint_close(ck);
        return status;
    }
    *out = ck;
    return SAW_OK;
}

saw_status saw_checkpoint_of_formula(saw_context *ctx, const saw_safetensors_entry *entries, int n,
                                     saw_checkpoint_formula *formula, uint64_t seed,
                                     saw_checkpoint **out)
{
    saw_checkpoint *ck;
    saw_status status = new_checkpoint(ctx, &ck);
    *out = NULL;
    for (int i = 0; i < n && !status; i++) {
        saw_ckpt_tensor t = {.dtype = SAW_F32, .ndim = entries[i].ndim, .count = 1};
        memcpy(t.dims, entries[i].dims, sizeof t.dims);
        for (int d = t.ndim - 1; d >= 0; d--) {
            t.strides[d] = t.count;
            t.count *= t.dims[d];
        }
        status = add_checked(ck, entries[i].name, strlen(entries[i].name), &t);
    }
    if (status) {
        saw_checkpoint_close(ck);
        return status;
    }
    ck->container = "formula";
    ck->formula = formula;
    ck->seed = seed;
    *out = ck;
    return SAW_OK;
}

void saw_checkpoint_close(saw_checkpoint *ck)
{
    if (!ck)
        return;
    for (int i = 0; i < ck->part_count; i++)
        saw_checkpoint_close(ck->parts[i]);
    saw_free(ck->ctx, ck->parts);
    saw_file_close(ck->file);
    saw_name_map_free(&ck->index);
    saw_free(ck->ctx, ck->tensors);
    saw_pool_free(&ck->pool);
    saw_free(ck->ctx, ck);
}

int saw_checkpoint_count(const saw_checkpoint *ck)
{
    return ck->count;
}

const saw_ckpt_tensor *saw_checkpoint_at(const saw_checkpoint *ck, int i)
{
    return &ck->tensors[i];
}

const saw_ckpt_tensor *saw_checkpoint_find(const saw_checkpoint *ck, const char *name)
{
    const size_t *i = saw_name_map_get(&ck->index, name, strlen(name));
    return i ? &ck->tensors[*i] : NULL;
}

const char *saw_checkpoint_meta(const saw_checkpoint *ck, const char *key)
{
    for (int i = 0; i < ck->meta_count; i++)
        if (!strcmp(ck->meta[2 * i], key))
            return ck->meta[2 * i + 1];
    return NULL;
}

const char *saw_checkpoint_container(const saw_checkpoint *ck)
{
    return ck->container;
}

const char *saw_checkpoint_prefix(const saw_checkpoint *ck)
{
    return ck->prefix;
}

int saw_checkpoint_note_count(const saw_checkpoint *ck)
{
    return ck->note_count;
}

const char *saw_checkpoint_note(const saw_checkpoint *ck, int i)
{
    return ck->notes[i];
}

/* ---- reading elements ------------------------------------------------------------------------ */

/* Elements of the innermost axes that lie one after another in the file. */
static int64_t run_length(const saw_ckpt_tensor *t)
{
    int64_t run = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->dims[d] != 1 && t->strides[d] != run)
            break;
        run *= t->dims[d];
    }
    return run;
}

/* Offset, in elements, of element i counted in C order. */
static int64_t element_offset(const saw_ckpt_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->dims[d] * t->strides[d];
        i /= t->dims[d];
    }
    return at;
}

/* n elements, `stride` elements apart, one after another. */
static void pick(void *out, const void *from, int64_t n, int64_t stride, size_t size)
{
#define PICK(type)                                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                              \
        ((type *)out)[i] = ((const type *)from)[i * stride];                                       \
    }
    if (size == 1)
        PICK(uint8_t)
    else if (size == 2)
        PICK(uint16_t)
    else if (size == 4)
        PICK(uint32_t)
    else
        PICK(uint64_t)
#undef PICK
}

/* Bytes [first, first + n) of a tensor's elements as they are stored. */
static saw_status read_stored(saw_checkpoint *ck, const saw_ckpt_tensor *t, uint64_t first,
                              uint8_t *out, size_t n)
{
    saw_file *file = ck->part_count ? ck->parts[t->part]->file : ck->file;
    if (!t->text_bytes)
        return saw_file_read(file, t->offset_bytes + first, out, n);
    uint8_t *text = saw_alloc(ck->ctx, CONVERT_BYTES), lead = 0;
    saw_status status = text ? SAW_OK : SAW_ERR_MEMORY;
    for (uint64_t at = 0; at < t->text_bytes && n && !status; at += CONVERT_BYTES) {
        uint64_t left = t->text_bytes - at;
        size_t take = left < CONVERT_BYTES ? (size_t)left : CONVERT_BYTES;
        status = saw_file_read(file, t->offset_bytes + at, text, take);
        for (size_t i = 0; i < take && n && !status; i++) {
            if (text[i] >= 0xc0) { /* two bytes of text for one of the tensor */
                lead = (uint8_t)(text[i] << 6);
                continue;
            }
            uint8_t byte = text[i] < 0x80 ? text[i] : (uint8_t)(lead | (text[i] & 0x3f));
            if (first) {
                first--;
            } else {
                *out++ = byte;
                n--;
            }
        }
    }
    saw_free(ck->ctx, text);
    if (n && !status)
        status =
            saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: tensor '%s' has changed since it was opened",
                     saw_file_path(file), t->name);
    return status;
}

/* Short runs: read all from the first to the last element and pick. The span lies in the file. */
static saw_status read_span(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first, int64_t n,
                            uint8_t *out)
{
    size_t size = saw_dtype_bytes(t->dtype), span = 1;
    for (int d = 0; d < t->ndim; d++)
        span += (size_t)(t->dims[d] - 1) * (size_t)t->strides[d];
    uint8_t *all = saw_alloc(ck->ctx, span * size);
    if (!all)
        return SAW_ERR_MEMORY;
    saw_status status = read_stored(ck, t, 0, all, span * size);
    int64_t row = t->dims[t->ndim - 1], stride = t->strides[t->ndim - 1];
    while (n && !status) {
        int64_t take = row - first % row < n ? row - first % row : n;
        pick(out, all + (size_t)element_offset(t, first) * size, take, stride, size);
        out += (size_t)take * size;
        first += take;
        n -= take;
    }
    saw_free(ck->ctx, all);
    return status;
}

static saw_status check_range(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                              int64_t n)
{
    if (first >= 0 && n >= 0 && first <= t->count && n <= t->count - first)
        return SAW_OK;
    return saw_fail(ck->ctx, SAW_ERR_ARGUMENT,
                    "%lld elements from %lld on were asked for, tensor '%s' has %lld", (long long)n,
                    (long long)first, t->name, (long long)t->count);
}

saw_status saw_checkpoint_read_raw(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, void *out)
{
    saw_status status = check_range(ck, t, first, n);
    if (status || !n)
        return status;
    if (ck->formula) {
        ck->formula(ck, ck->seed, t, first, n, out);
        return SAW_OK;
    }
    int64_t size = (int64_t)saw_dtype_bytes(t->dtype), run = run_length(t);
    if (run < t->count && run * size < RUN_BYTES)
        return read_span(ck, t, first, n, out);
    uint8_t *to = out;
    while (n && !status) {
        int64_t take = run - first % run < n ? run - first % run : n;
        status = read_stored(ck, t, (uint64_t)(element_offset(t, first) * size), to,
                             (size_t)(take * size));
        to += take * size;
        first += take;
        n -= take;
    }
    return status;
}

/* Binary16 to binary32 by masks alone, so that the compiler can use vectors. Exact. */
static float half_to_float(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, bits;
    uint32_t large = 0 - (uint32_t)(magnitude >= 0x0f800000u); /* infinity, NaN */
    uint32_t small = 0 - (uint32_t)(magnitude < 0x00800000u);  /* zero, subnormal */
    float tiny = (float)(int32_t)(h & 0x3ff) * 0x1p-24f, f;
    memcpy(&bits, &tiny, sizeof bits);
    bits = (bits & small) | ((magnitude + 0x38000000u + (0x38000000u & large)) & ~small);
    bits |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float brain_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#define CONVERT_CASE(dtype, stored, expression)                                                    \
    case dtype:                                                                                    \
        for (size_t i = 0; i < n; i++) {                                                           \
            stored v = ((const stored *)from)[i];                                                  \
            out[i] = expression;                                                                   \
        }                                                                                          \
        break;

#define DEFINE_CONVERT(name, real)                                                                 \
    static void name(saw_dtype dtype, const void *from, size_t n, real *out)                       \
    {                                                                                              \
        switch (dtype) {                                                                           \
            CONVERT_CASE(SAW_F32, float, v)                                                        \
            CONVERT_CASE(SAW_F64, double, (real)v)                                                 \
            CONVERT_CASE(SAW_F16, uint16_t, half_to_float(v))                                      \
            CONVERT_CASE(SAW_BF16, uint16_t, brain_to_float(v))                                    \
            CONVERT_CASE(SAW_I8, int8_t, v)                                                        \
            CONVERT_CASE(SAW_U8, uint8_t, v)                                                       \
            CONVERT_CASE(SAW_I16, int16_t, v)                                                      \
            CONVERT_CASE(SAW_I32, int32_t, (real)v)                                                \
            CONVERT_CASE(SAW_I64, int64_t, (real)v)                                                \
            CONVERT_CASE(SAW_BOOL, uint8_t, v != 0)                                                \
        case SAW_DTYPE_COUNT:                                                                      \
            break;                                                                                 \
        }                                                                                          \
    }
DEFINE_CONVERT(to_f32, float)
DEFINE_CONVERT(to_f64, double)

/* A strided tensor is read in one piece: its span would be read again for every piece. */
static saw_status read_converted(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                 int64_t n, float *out32, double *out64)
{
    if (t->dtype == (out32 ? SAW_F32 : SAW_F64))
        return saw_checkpoint_read_raw(ck, t, first, n, out32 ? (void *)out32 : (void *)out64);
    saw_status status = check_range(ck, t, first, n);
    if (status)
        return status;
    int64_t size = (int64_t)saw_dtype_bytes(t->dtype), piece = n;
    if (run_length(t) == t->count && piece > CONVERT_BYTES / size)
        piece = CONVERT_BYTES / size;
    void *raw = saw_alloc(ck->ctx, (size_t)(piece * size));
    if (!raw)
        return SAW_ERR_MEMORY;
    while (n && !status) {
        int64_t take = piece < n ? piece : n;
        status = saw_checkpoint_read_raw(ck, t, first, take, raw);
        if (!status && out32)
            to_f32(t->dtype, raw, (size_t)take, out32);
        else if (!status)
            to_f64(t->dtype, raw, (size_t)take, out64);
        out32 = out32 ? out32 + take : NULL;
        out64 = out64 ? out64 + take : NULL;
        first += take;
        n -= take;
    }
    saw_free(ck->ctx, raw);
    return status;
}

saw_status saw_checkpoint_read_f32(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, float *out)
{
    return read_converted(ck, t, first, n, out, NULL);
}

saw_status saw_checkpoint_read_f64(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, double *out)
{
    return read_converted(ck, t, first, n, NULL, out);
}
