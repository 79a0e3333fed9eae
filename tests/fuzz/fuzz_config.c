/* fuzz_config.c - the input as YAML and as JSON; what was read must come back the same from its
 * JSON. */
#include "fuzz/fuzz.h"
#include "io/config.h"

#include <math.h>
#include <string.h>

static void look(const saw_config *node)
{
    int64_t i;
    double d;
    bool b;
    saw_config_as_int(node, &i);
    saw_config_as_double(node, &d);
    saw_config_as_bool(node, &b);
    for (int k = 0; k < saw_config_size(node); k++) {
        const char *key = saw_config_key(node, k);
        FUZZ_PROMISE(!key == (saw_config_kind_of(node) == SAW_CONFIG_LIST));
        FUZZ_PROMISE(!key || k > 100 || saw_config_get(node, key) == saw_config_at(node, k));
        look(saw_config_at(node, k));
    }
}

static bool same_number(const saw_config *a, const saw_config *b)
{
    double x, y;
    return saw_config_as_double(a, &x) && saw_config_as_double(b, &y) &&
           (x == y || (isnan(x) && isnan(y)));
}

static void compare(const saw_config *a, const saw_config *b)
{
    saw_config_kind kind = saw_config_kind_of(a);
    FUZZ_PROMISE(saw_config_size(a) == saw_config_size(b));
    for (int k = 0; k < saw_config_size(a); k++) {
        FUZZ_PROMISE(kind == SAW_CONFIG_LIST ||
                     !strcmp(saw_config_key(a, k), saw_config_key(b, k)));
        compare(saw_config_at(a, k), saw_config_at(b, k));
    }
    if (kind == SAW_CONFIG_DOUBLE) /* infinity and NaN come back as text that says so */
        FUZZ_PROMISE(same_number(a, b));
    else
        FUZZ_PROMISE(kind == saw_config_kind_of(b));
    if (kind == SAW_CONFIG_INT)
        FUZZ_PROMISE(same_number(a, b));
    if (kind == SAW_CONFIG_STRING)
        FUZZ_PROMISE(!strcmp(saw_config_as_string(a), saw_config_as_string(b)));
}

static void check(saw_context *ctx, saw_config *root)
{
    saw_config *back;
    saw_buffer b = {.ctx = ctx};
    look(root);
    saw_status status = saw_config_write_json(root, &b);
    FUZZ_PROMISE(status == SAW_OK || b.size > 16 << 20);
    if (b.size < 64 << 10) { /* enough, and aliases under the limit do not slow the search */
        FUZZ_PROMISE(saw_config_parse_json(ctx, "back", b.data, b.size, &back) == SAW_OK);
        compare(root, back);
        saw_config_free(back);
    }
    saw_buffer_free(&b);
    saw_config_free(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    saw_context *ctx = fuzz_context();
    saw_config *root;
    if (!saw_config_parse_yaml(ctx, "input", (const char *)bytes, n, &root))
        check(ctx, root);
    if (!saw_config_parse_json(ctx, "input", (const char *)bytes, n, &root))
        check(ctx, root);
    FUZZ_PROMISE(saw_context_memory(ctx).now_bytes == 0);
    return 0;
}
