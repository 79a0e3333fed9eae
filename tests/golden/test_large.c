/* test_large.c - the large golden set: checkpoints as their home projects save them. */
#include "models/roformer.h"
#include "support/golden_large.h"
#include "support/test.h"

static bool same_roformer(const void *configured, const void *inferred)
{
    const roformer_options *a = configured, *b = inferred;
    assert_int_equal(a->common.channels, b->common.channels);
    assert_int_equal(a->common.stems, b->common.stems);
    assert_int_equal(a->dim, b->dim);
    assert_int_equal(a->depth, b->depth);
    assert_int_equal(a->time_depth, b->time_depth);
    assert_int_equal(a->freq_depth, b->freq_depth);
    assert_int_equal(a->linear_depth, b->linear_depth);
    assert_int_equal(a->dim_head, b->dim_head);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->n_fft, b->n_fft);
    assert_int_equal(a->mask_depth, b->mask_depth);
    assert_int_equal(a->mlp_expansion, b->mlp_expansion);
    assert_int_equal(a->pope, b->pope);
    assert_int_equal(a->module_shift, b->module_shift);
    assert_int_equal(a->bands, b->bands);
    assert_memory_equal(a->band, b->band, (size_t)a->bands * sizeof *a->band);
    return a->hop == b->hop && a->win == b->win && a->stft_normalized == b->stft_normalized &&
           a->zero_dc == b->zero_dc && a->skip == b->skip && a->match_length == b->match_length;
}

static const large_case cases[] = {
    {"bs_roformer_stereo2", same_roformer, NULL},
    {"bs_roformer_mono_skip", same_roformer, NULL},
    {"bs_roformer_pope", same_roformer, "*.pope_embed.bias"},
    {"mel_band_roformer_stereo1", same_roformer, NULL},
    {"mel_band_roformer_mono2", same_roformer, NULL},
};
enum { CASES = sizeof cases / sizeof *cases };

static void each(void (*check)(const large_case *c))
{
    if (!golden_large_there(CASES))
        skip();
    for (int i = 0; i < CASES; i++)
        check(&cases[i]);
}

static void outputs(void **state)
{
    (void)state;
    each(golden_large_check_outputs);
}

static void gradients(void **state)
{
    (void)state;
    each(golden_large_check_gradients);
}

static void without_configuration(void **state)
{
    (void)state;
    each(golden_large_check_inference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs),
        cmocka_unit_test(gradients),
        cmocka_unit_test(without_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
