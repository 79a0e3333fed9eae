/* test_sha256.c - the vectors of FIPS 180-4's examples and of NIST's test suite, and any cut into
 * pieces. */
#include "base/sha256.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

static void check(const char *bytes, size_t n, const char *want)
{
    char text[SAW_SHA256_TEXT];
    for (size_t piece = 1; piece <= n + 1; piece = piece < 70 ? piece + 1 : piece * 2) {
        saw_sha256 s;
        saw_sha256_start(&s);
        for (size_t at = 0; at < n; at += piece)
            saw_sha256_add(&s, bytes + at, n - at < piece ? n - at : piece);
        saw_sha256_end(&s, text);
        assert_string_equal(text, want);
    }
}

static void vectors(void **state)
{
    (void)state;
    check("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
          "lmnopqrsmnopqrst"
          "nopqrstu",
          112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

static void a_million(void **state)
{
    (void)state;
    size_t n = 1000000;
    char *a = malloc(n), *folder = test_temp_folder(), path[512], text[SAW_SHA256_TEXT];
    memset(a, 'a', n);
    snprintf(path, sizeof path, "%s/a", folder);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(a, 1, n, f), n);
    fclose(f);
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_sha256_file(ctx, path, text), SAW_OK);
    assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(saw_sha256_file(ctx, folder, text), SAW_ERR_IO);
    saw_context_close(ctx);
    test_remove_folder(folder);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors), cmocka_unit_test(a_million)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
