/*
 * test_ring.c - the ring against a plain list, over many random writes, peeks and drops.
 */
#include "support/test.h"

#include "dsp/ring.h"

static void test_against_list(void **state)
{
    (void)state;
    enum { ROOM = 37, ALL = 4000 };
    saw_context *ctx;
    saw_ring *r;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_ring_open(ctx, 2, ROOM, &r), SAW_OK);
    uint64_t calls = saw_context_memory(ctx).calls;
    float source[2][ALL + 64], got[2][64];
    for (int i = 0; i < ALL + 64; i++) {
        source[0][i] = (float)i;
        source[1][i] = (float)-i;
    }
    int64_t begin = 0, end = 0; /* the ring holds source[begin, end) */
    for (uint64_t step = 0; end < ALL; step++) {
        uint32_t word[4];
        saw_philox(1, 0, step, word);
        int64_t n = word[0] % 50, held = end - begin, offset = word[1] % 40;
        int64_t fits = n < ROOM - held ? n : ROOM - held;
        const float *in[2] = {source[0] + end, source[1] + end};
        assert_int_equal(saw_ring_write(r, in, n), fits);
        end += fits;
        held += fits;
        assert_int_equal(saw_ring_size(r), held);
        assert_int_equal(saw_ring_room(r), ROOM - held);
        float *out[2] = {got[0], got[1]};
        int64_t behind = held > offset ? held - offset : 0, seen = n < behind ? n : behind;
        assert_int_equal(saw_ring_peek(r, offset, out, n), seen);
        assert_memory_equal(got[0], source[0] + begin + offset, (size_t)seen * sizeof(float));
        assert_memory_equal(got[1], source[1] + begin + offset, (size_t)seen * sizeof(float));
        int64_t away = word[2] % 50;
        assert_int_equal(saw_ring_drop(r, away), away < held ? away : held);
        begin += away < held ? away : held;
    }
    saw_ring_drop(r, ROOM);
    assert_int_equal(saw_ring_write(r, NULL, 5), 5);
    assert_int_equal(saw_ring_peek(r, 0, (float *[]){got[0], got[1]}, 9), 5);
    for (int i = 0; i < 5; i++)
        assert_true(got[0][i] == 0 && got[1][i] == 0);
    assert_int_equal(saw_context_memory(ctx).calls, calls);
    saw_ring_close(r);
    saw_ring_close(NULL);
    assert_int_equal(saw_ring_open(ctx, 0, 5, &r), SAW_ERR_ARGUMENT);
    assert_int_equal(saw_ring_open(ctx, 2, 0, &r), SAW_ERR_ARGUMENT);
    assert_null(r);
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
