/*
 * test_config.c - settings: what PyYAML would read, tags that must not act, limits, JSON and back.
 */
#include "io/config.h"
#include "support/test.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>

static saw_context *ctx;

static int set_up(void **state)
{
    (void)state;
    return saw_context_open(&ctx, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    size_t held = saw_context_memory(ctx).now_bytes;
    saw_context_close(ctx);
    return held != 0;
}

static saw_config *yaml(const char *text)
{
    saw_config *root;
    if (saw_config_parse_yaml(ctx, "test.yaml", text, strlen(text), &root))
        fail_msg("%s", saw_context_error(ctx));
    return root;
}

static void assert_refused(const char *text, size_t n, bool json, const char *words)
{
    saw_config *root;
    saw_status status = json ? saw_config_parse_json(ctx, "t", text, n, &root)
                             : saw_config_parse_yaml(ctx, "t", text, n, &root);
    if (!status || !strstr(saw_context_error(ctx), words))
        fail_msg("status %d, '%s'; wanted '%s'", status, saw_context_error(ctx), words);
    assert_null(root);
}

static char *json_of(const saw_config *node)
{
    static char text[4096];
    saw_buffer b = {.ctx = ctx};
    assert_int_equal(saw_config_write_json(node, &b), SAW_OK);
    assert_true(b.size < sizeof text);
    memcpy(text, b.data, b.size + 1);
    saw_buffer_free(&b);
    return text;
}

static void a_model_config(void **state)
{
    (void)state;
    saw_config *root = yaml("audio:\n"
                            "  chunk_size: 352800\n"
                            "  min_mean_abs: 0.000\n"
                            "model:\n"
                            "  dim: 384   # width\n"
                            "  stereo: true\n"
                            "  freqs_per_bands: !!python/tuple\n"
                            "    - 2\n"
                            "    - 4\n"
                            "  windows: !!python/tuple [4096, 2048]\n"
                            "training:\n"
                            "  instruments: ['vocals', other]\n"
                            "  target_instrument: null\n"
                            "  lr: 9.0e-05\n"
                            "  optimizer: adam\n"
                            "  use_amp: Yes\n");
    int64_t i;
    double d;
    bool b;
    const char *s;
    assert_int_equal(saw_config_int(ctx, root, "model.dim", 1, &i), SAW_OK);
    assert_int_equal(i, 384);
    assert_int_equal(saw_config_int(ctx, root, "model.depth", 12, &i), SAW_OK);
    assert_int_equal(i, 12);
    assert_int_equal(saw_config_double(ctx, root, "training.lr", 0, &d), SAW_OK);
    assert_true(d == 9e-5);
    assert_int_equal(saw_config_bool(ctx, root, "training.use_amp", false, &b), SAW_OK);
    assert_true(b);
    assert_int_equal(saw_config_string(ctx, root, "training.target_instrument", "none", &s),
                     SAW_OK);
    assert_string_equal(s, "none");
    assert_int_equal(saw_config_int(ctx, root, "model.stereo", 0, &i), SAW_ERR_ARGUMENT);
    assert_string_equal(saw_context_error(ctx),
                        "test.yaml, line 6: model.stereo must be a whole number, but it is 'true'");
    assert_int_equal(saw_config_bool(ctx, root, "model", true, &b), SAW_ERR_ARGUMENT);
    assert_non_null(strstr(saw_context_error(ctx), "but it is a map"));

    const saw_config *bands = saw_config_find(root, "model.freqs_per_bands");
    assert_int_equal(saw_config_kind_of(bands), SAW_CONFIG_LIST);
    assert_int_equal(saw_config_size(bands), 2);
    assert_int_equal(saw_config_line(bands), 7);
    assert_true(saw_config_as_int(saw_config_at(bands, 1), &i) && i == 4);
    assert_null(saw_config_at(bands, 2));
    assert_string_equal(saw_config_as_string(saw_config_find(root, "training.instruments.1")),
                        "other");
    assert_null(saw_config_find(root, "training.instruments.2"));
    assert_null(saw_config_find(root, "training.instruments.x"));
    assert_null(saw_config_find(root, "model.dim.x"));
    assert_int_equal(saw_config_size(root), 3);
    assert_string_equal(saw_config_key(root, 2), "training");
    assert_ptr_equal(saw_config_at(root, 1), saw_config_get(root, "model"));
    assert_null(saw_config_get(bands, "model"));
    assert_string_equal(
        json_of(root),
        "{\"audio\":{\"chunk_size\":352800,\"min_mean_abs\":0.000},\"model\":{\"dim\":384,"
        "\"stereo\":true,\"freqs_per_bands\":[2,4],\"windows\":[4096,2048]},\"training\":"
        "{\"instruments\":[\"vocals\",\"other\"],\"target_instrument\":null,\"lr\":9.0e-05,"
        "\"optimizer\":\"adam\",\"use_amp\":true}}");
    saw_config_free(root);
}

static void scalars(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        saw_config_kind kind;
        double value;
    } cases[] = {
        {"12", SAW_CONFIG_INT, 12},
        {"-12", SAW_CONFIG_INT, -12},
        {"+12", SAW_CONFIG_INT, 12},
        {"1_000_000", SAW_CONFIG_INT, 1e6},
        {"0x1F", SAW_CONFIG_INT, 31},
        {"0b101", SAW_CONFIG_INT, 5},
        {"0o17", SAW_CONFIG_INT, 15},
        {"017", SAW_CONFIG_INT, 15},
        {"-9223372036854775808", SAW_CONFIG_INT, -9223372036854775808.0},
        {"9223372036854775808", SAW_CONFIG_DOUBLE, 9223372036854775808.0},
        {"1e-5", SAW_CONFIG_DOUBLE, 1e-5},
        {"1.0e-05", SAW_CONFIG_DOUBLE, 1e-5},
        {"4.851e5", SAW_CONFIG_DOUBLE, 485100},
        {".5", SAW_CONFIG_DOUBLE, 0.5},
        {"5.", SAW_CONFIG_DOUBLE, 5},
        {"-.inf", SAW_CONFIG_DOUBLE, -INFINITY},
        {".INF", SAW_CONFIG_DOUBLE, INFINITY},
        {"0x1p3", SAW_CONFIG_STRING, 0}, /* what C's parser would take and YAML does not */
        {"inf", SAW_CONFIG_STRING, 0},
        {"nan", SAW_CONFIG_STRING, 0},
        {"1__0", SAW_CONFIG_STRING, 0},
        {"_1", SAW_CONFIG_STRING, 0},
        {"1_", SAW_CONFIG_STRING, 0},
        {"1e", SAW_CONFIG_STRING, 0},
        {"+", SAW_CONFIG_STRING, 0},
        {"0x", SAW_CONFIG_STRING, 0},
        {"12 monkeys", SAW_CONFIG_STRING, 0},
        {"~", SAW_CONFIG_NULL, 0},
        {"NULL", SAW_CONFIG_NULL, 0},
        {"yes", SAW_CONFIG_BOOL, 1},
        {"Off", SAW_CONFIG_BOOL, 0},
        {"FALSE", SAW_CONFIG_BOOL, 0},
        {"y", SAW_CONFIG_STRING, 0},
        {"!!str 12", SAW_CONFIG_STRING, 12},
        {"'12'", SAW_CONFIG_STRING, 12},
        {"\"1.5\"", SAW_CONFIG_STRING, 1.5},
        {"!!python/object/apply:os.system ls", SAW_CONFIG_STRING, 0},
    };
    char *old = strdup(setlocale(LC_NUMERIC, NULL));
    setlocale(LC_NUMERIC, "de_DE.UTF-8"); /* where there is one, a comma must change nothing */
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        saw_config *root = yaml(cases[k].text);
        double d = 0;
        bool b = false;
        if (saw_config_kind_of(root) != cases[k].kind)
            fail_msg("'%s' is of kind %d", cases[k].text, saw_config_kind_of(root));
        if (cases[k].kind == SAW_CONFIG_BOOL)
            assert_true(saw_config_as_bool(root, &b) && b == (cases[k].value != 0));
        else if (saw_config_as_double(root, &d) ? d != cases[k].value : cases[k].value != 0)
            fail_msg("'%s' is %g", cases[k].text, d);
        assert_true((saw_config_as_string(root) == NULL) == (cases[k].kind == SAW_CONFIG_NULL));
        saw_config_free(root);
    }
    int64_t i = 7;
    saw_config *root = yaml("[2.0, 2.5, 1e30, true]");
    assert_true(saw_config_as_int(saw_config_at(root, 0), &i) && i == 2);
    for (int k = 1; k < 4; k++)
        assert_false(saw_config_as_int(saw_config_at(root, k), &i));
    saw_config_free(root);
    setlocale(LC_NUMERIC, old);
    free(old);
}

static void aliases_and_merges(void **state)
{
    (void)state;
    saw_config *root = yaml("base: &base {a: 1, b: [1, &x two], c: 3}\n"
                            "more: &more {c: 4, d: 5}\n"
                            "again: *x\n"
                            "one: {<<: *base, b: 9}\n"
                            "two: {<<: [*more, *base], e: 6, e: 7}\n"
                            "text: {'<<': 1}\n");
    assert_string_equal(json_of(saw_config_get(root, "again")), "\"two\"");
    assert_string_equal(json_of(saw_config_get(root, "one")), "{\"b\":9,\"a\":1,\"c\":3}");
    assert_string_equal(json_of(saw_config_get(root, "two")),
                        "{\"e\":7,\"c\":4,\"d\":5,\"a\":1,\"b\":[1,\"two\"]}");
    assert_string_equal(json_of(saw_config_get(root, "text")), "{\"<<\":1}");
    saw_config_free(root);
}

static void bad_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool json;
        const char *words;
    } cases[] = {
        {"a: [1, 2", false, "did not find expected ',' or ']'"},
        {"a: 1\n b: 2\n", false, "line 2: "},
        {"", false, "is empty"},
        {"# only a comment\n", false, "is empty"},
        {"a: 1\n---\nb: 2\n", false, "second document"},
        {"a: *nothing\n", false, "alias"},
        {"a: &a [1, *a]\n", false, "stands inside what it names"},
        {"&a {b: {<<: *a}}\n", false, "stands inside what it names"},
        {"{<<: 3}", false, "merge key"},
        {"{<<: [[1]]}", false, "merge key"},
        {"? [1, 2]\n: x\n", false, "a key must be plain text"},
        {"a: \"\\0\"\n", false, "zero byte"},
        {"a: \xff\n", false, "line "},
        {"{\"a\": 1", true, "line 1: "},
        {"{\"a\": 1}\nx", true, "line 2: "},
        {"{\"a\": 99999999999999999999}", true, "too big"},
        {"{\"a\": \"\\u0000\"}", true, "\\u0000"},
        {"", true, "line "},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        assert_refused(cases[k].text, strlen(cases[k].text), cases[k].json, cases[k].words);
}

static void limits(void **state)
{
    (void)state;
    saw_buffer b = {.ctx = ctx};
    saw_buffer_printf(&b,
                      "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"); /* ten times more on each line */
    for (int i = 1; i < 12; i++) {
        saw_buffer_printf(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            saw_buffer_printf(&b, "%s*a%d", k ? ", " : "", i - 1);
        saw_buffer_printf(&b, "]\n");
    }
    assert_refused(b.data, b.size, false, "more than 200000 values");
    saw_buffer_free(&b);

    b = (saw_buffer){.ctx = ctx};
    saw_buffer_printf(&b, "m0: &m0 {a: 1, b: 2}\n"); /* the same with merge keys */
    for (int i = 1; i < 100000 && b.size < 3 << 20; i++)
        saw_buffer_printf(&b, "m%d: &m%d {<<: *m%d, k%d: 1}\n", i, i, i - 1, i);
    assert_refused(b.data, b.size, false, "more than 200000 values");
    saw_buffer_free(&b);

    b = (saw_buffer){.ctx = ctx};
    saw_buffer_printf(&b, "- &a \"%0100000d\"\n", 7); /* a text that aliases repeat */
    for (int i = 0; i < 1000; i++)
        saw_buffer_printf(&b, "- *a\n");
    saw_config *long_text = yaml(b.data);
    saw_buffer out = {.ctx = ctx};
    assert_int_equal(saw_config_write_json(long_text, &out), SAW_ERR_UNSUPPORTED);
    assert_true(out.size < 17 << 20);
    saw_buffer_free(&out);
    saw_buffer_free(&b);
    saw_config_free(long_text);

    for (int json = 0; json < 2; json++) {
        for (int depth = 64; depth <= 65; depth++) {
            char text[200];
            memset(text, '[', 100);
            memset(text + depth, ']', 100);
            saw_config *root = NULL;
            saw_status status =
                json ? saw_config_parse_json(ctx, "t", text, 2 * (size_t)depth, &root)
                     : saw_config_parse_yaml(ctx, "t", text, 2 * (size_t)depth, &root);
            assert_int_equal(status, depth == 64 ? SAW_OK : SAW_ERR_FORMAT);
            saw_config_free(root);
        }
        b = (saw_buffer){.ctx = ctx};
        saw_buffer_add(&b, "[", 1);
        for (int i = 0; i < 200000; i++)
            saw_buffer_add(&b, "1,", 2);
        saw_buffer_add(&b, "1]", 2);
        assert_refused(b.data, b.size, json, "more than 200000 values");
        while (b.size < (4 << 20) + 1)
            saw_buffer_add(&b, "          ", 10);
        assert_refused(b.data, b.size, json, "4 MB");
        saw_buffer_free(&b);
    }
}

static void builder_and_json(void **state)
{
    (void)state;
    saw_config *root = saw_config_new(ctx);
    assert_int_equal(saw_config_put_int(root, "dim", 384), SAW_OK);
    assert_int_equal(saw_config_put_int(root, "dim", -9223372036854775807 - 1), SAW_OK);
    assert_int_equal(saw_config_put_double(root, "lr", 0.1), SAW_OK);
    assert_int_equal(saw_config_put_double(root, "third", 1.0 / 3), SAW_OK);
    assert_int_equal(saw_config_put_double(root, "whole", 44100), SAW_OK);
    assert_int_equal(saw_config_put_double(root, "tiny", 5e-324), SAW_OK);
    assert_int_equal(saw_config_put_double(root, "far", -INFINITY), SAW_OK);
    assert_int_equal(saw_config_put_bool(root, "stereo", true), SAW_OK);
    assert_int_equal(saw_config_put_string(root, "looks", "12"), SAW_OK);
    assert_int_equal(saw_config_put_string(root, "quote\"d", "a\n\"b\" \xc3\xa9"), SAW_OK);
    saw_config *list = saw_config_put_list(root, "stems"), *map = saw_config_put_map(root, "map");
    assert_int_equal(saw_config_put_string(list, NULL, "vocals"), SAW_OK);
    assert_int_equal(saw_config_put_copy(list, NULL, list), SAW_OK);
    assert_int_equal(saw_config_put_bool(map, "x", false), SAW_OK);
    static const char want[] =
        "{\"dim\":-9223372036854775808,\"lr\":0.1,\"third\":0.3333333333333333,"
        "\"whole\":44100.0,\"tiny\":4.94066e-324,\"far\":\"-.inf\",\"stereo\":true,"
        "\"looks\":\"12\",\"quote\\\"d\":\"a\\n\\\"b\\\" \xc3\xa9\","
        "\"stems\":[\"vocals\",[\"vocals\"]],\"map\":{\"x\":false}}";
    assert_string_equal(json_of(root), want);
    saw_config *back, *again;
    assert_int_equal(saw_config_parse_json(ctx, "t", want, strlen(want), &back), SAW_OK);
    assert_string_equal(json_of(back), want);
    again = yaml(want); /* JSON is YAML too */
    assert_string_equal(json_of(again), want);
    double d;
    assert_true(saw_config_as_double(saw_config_get(back, "tiny"), &d) && d == 5e-324);
    assert_true(saw_config_as_double(saw_config_get(back, "third"), &d) && d == 1.0 / 3);
    assert_true(saw_config_as_double(saw_config_get(back, "far"), &d) && d == -INFINITY);
    saw_config_free(again);
    again = yaml("[9223372036854775808, 1e-5, 010, 1_0.5, 5., .nan]"); /* numbers that JSON writes
                                                                          otherwise */
    assert_string_equal(json_of(again), "[9.223372036854776e+18,1e-5,8,10.5,5.0,\".nan\"]");
    saw_config_free(again);
    saw_config_free(back);
    saw_config_free(root);
    saw_config_free(NULL);
}

static void files(void **state)
{
    (void)state;
    char *folder = test_temp_folder(), path[512];
    saw_config *root;
    for (int json = 0; json < 2; json++) {
        snprintf(path, sizeof path, "%s/%s", folder, json ? "a.json" : "a.yaml");
        FILE *f = fopen(path, "wb");
        fprintf(f, json ? "{\"a\": 1e-5}" : "a: 1e-5\n");
        fclose(f);
        assert_int_equal(saw_config_load(ctx, path, &root), SAW_OK);
        double d = 0;
        assert_true(saw_config_as_double(saw_config_get(root, "a"), &d) && d == 1e-5);
        saw_config_free(root);
    }
    snprintf(path, sizeof path, "%s/missing.yaml", folder);
    assert_int_equal(saw_config_load(ctx, path, &root), SAW_ERR_IO);
    assert_null(root);
    test_remove_folder(folder);
}

static int left;

static void *failing_alloc(void *user, size_t bytes)
{
    (void)user;
    return left-- > 0 ? malloc(bytes) : NULL;
}

static void failing_release(void *user, void *block)
{
    (void)user;
    free(block);
}

static void memory_fails_anywhere(void **state)
{
    (void)state;
    static const char text[] = "a: &a {b: 1, c: [1, 2, {d: &e 3}]}\nf: {<<: *a, g: *e}\n";
    saw_status status = SAW_ERR_MEMORY;
    for (int n = 1; status; n++) {
        saw_options options = {.threads = 1, .alloc = failing_alloc, .release = failing_release};
        saw_context *poor;
        saw_config *root;
        left = n;
        assert_int_equal(saw_context_open(&poor, &options), SAW_OK);
        status = saw_config_parse_yaml(poor, "t", text, sizeof text - 1, &root);
        assert_true(status == SAW_OK || status == SAW_ERR_MEMORY);
        saw_buffer b = {.ctx = poor};
        if (!status)
            status = saw_config_write_json(root, &b);
        assert_true(status == SAW_OK || status == SAW_ERR_MEMORY);
        saw_buffer_free(&b);
        saw_config_free(root);
        assert_int_equal(saw_context_memory(poor).now_bytes, 0);
        saw_context_close(poor);
        assert_true(n < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_model_config, set_up, tear_down),
        cmocka_unit_test_setup_teardown(scalars, set_up, tear_down),
        cmocka_unit_test_setup_teardown(aliases_and_merges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(builder_and_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_fails_anywhere, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
