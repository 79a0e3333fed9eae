/*
 * test_ops.c - every op of ops.def through the table of cases (support/op_case.h), and closed forms
 * that the reference itself is held to.
 */
#include "nn/nn.h"
#include "support/op_case.h"
#include "support/test.h"

#include <math.h>
#include <stdlib.h>

static void for_all_cases(void (*check)(const op_case *))
{
    for (int i = 0; op_case_lists[i]->count; i++)
        for (int j = 0; j < op_case_lists[i]->count; j++)
            check(&op_case_lists[i]->cases[j]);
}

static void test_every_op_has_a_case(void **state)
{
    (void)state;
    for (int i = 0; saw_kernels_at(i); i++) {
        const saw_op *op = saw_kernels_at(i)->op;
        bool found = false;
        for (int a = 0; op_case_lists[a]->count; a++)
            for (int b = 0; b < op_case_lists[a]->count && !found; b++)
                found = op_case_op(&op_case_lists[a]->cases[b]) == op;
        if (!found)
            fail_msg("the op %s has no case", op->name);
        assert_int_equal(op->differentiable, saw_kernels_at(i)->ref64_backward != NULL);
        assert_true(op->tolerance_db > 0);
        assert_true(op->differentiable || !op->cpu_backward);
    }
}

static void test_accuracy(void **state)
{
    (void)state;
    for_all_cases(op_case_check_accuracy);
}

static void test_gradients(void **state)
{
    (void)state;
    for_all_cases(op_case_check_gradients);
}

static void test_backward(void **state)
{
    (void)state;
    for_all_cases(op_case_check_backward);
}

static void test_cuts(void **state)
{
    (void)state;
    for_all_cases(op_case_check_cuts);
}

static void test_views(void **state)
{
    (void)state;
    for_all_cases(op_case_check_views);
}

static void test_in_place(void **state)
{
    (void)state;
    for_all_cases(op_case_check_in_place);
}

/* ---- closed forms ---------------------------------------------------------------------------- */

typedef saw_val recorder(saw_graph *g, const saw_val *in);

/* in: n_in arrays. */
static void expect(recorder *record, int n_in, const saw_dims *dims, const double *const *in,
                   const double *want, int n)
{
    double *got = op_forward64(record, n_in, dims, in);
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-12))
            fail_msg("element %d is %.15g, not %.15g", i, got[i], want[i]);
    free(got);
}

static saw_val gelu(saw_graph *g, const saw_val *in)
{
    return saw_gelu(g, in[0]);
}

static saw_val softplus(saw_graph *g, const saw_val *in)
{
    return saw_softplus(g, in[0]);
}

static saw_val silu(saw_graph *g, const saw_val *in)
{
    return saw_silu(g, in[0]);
}

static saw_val elu(saw_graph *g, const saw_val *in)
{
    return saw_elu(g, in[0]);
}

static void test_unary_values(void **state)
{
    (void)state;
    saw_dims d = SAW_DIMS(3);
    const double x[] = {-1, 0, 2}, *in[] = {x};
    expect(gelu, 1, &d, in, (double[]){-0.15865525393145705, 0, 1.9544997361036416}, 3);
    expect(softplus, 1, &d, in,
           (double[]){0.3132616875182228, 0.6931471805599453, 2.1269280110429727}, 3);
    expect(silu, 1, &d, in, (double[]){-0.2689414213699951, 0, 1.7615941559557649}, 3);
    expect(elu, 1, &d, in, (double[]){-0.6321205588285577, 0, 2}, 3);
}

static saw_val linear(saw_graph *g, const saw_val *in)
{
    return saw_linear(g, in[0], in[1], in[2]);
}

static saw_val band_linear(saw_graph *g, const saw_val *in)
{
    return saw_band_linear(g, in[0], 2, in + 1, in + 3, true);
}

static void test_linear_values(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3}, w[] = {1, 0, -1, 2, 2, 2}, b[] = {10, 20};
    expect(linear, 3, (saw_dims[]){SAW_DIMS(1, 3), SAW_DIMS(2, 3), SAW_DIMS(2)},
           (const double *[]){x, w, b}, (double[]){8, 32}, 2);
    const double w1[] = {5}, w2[] = {1, 10, 100, 1000}, b1[] = {0.5}, b2[] = {0, 0.25};
    expect(
        band_linear, 5,
        (saw_dims[]){SAW_DIMS(1, 1, 3), SAW_DIMS(1, 1), SAW_DIMS(2, 2), SAW_DIMS(1), SAW_DIMS(2)},
        (const double *[]){x, w1, w2, b1, b2}, (double[]){5.5, 32, 3200.25}, 3);
}

static saw_val rmsnorm(saw_graph *g, const saw_val *in)
{
    return saw_rmsnorm(g, in[0], in[1]);
}

static void test_rmsnorm_values(void **state)
{
    (void)state;
    const double x[] = {3, 4, 0, 0, 0, 0, 0, 0}, gamma[] = {1, 2, 3, 4};
    expect(rmsnorm, 2, (saw_dims[]){SAW_DIMS(2, 4), SAW_DIMS(4)}, (const double *[]){x, gamma},
           (double[]){1.2, 3.2, 0, 0, 0, 0, 0, 0}, 8);
}

static saw_val rope_table(saw_graph *g, const saw_val *in)
{
    return saw_rope_table(g, in[0], 3);
}

static saw_val rope(saw_graph *g, const saw_val *in)
{
    return saw_rope(g, in[0], in[1], 0);
}

static saw_val pope_phase(saw_graph *g, const saw_val *in)
{
    return saw_pope_phase(g, in[0]);
}

static saw_val pope(saw_graph *g, const saw_val *in)
{
    return saw_pope(g, in[0], in[1], in[2], 0);
}

static void test_rotation_values(void **state)
{
    (void)state;
    const double quarter = acos(0), freqs[] = {quarter}, turns[] = {1, 0, 0, 1, -1, 0};
    expect(rope_table, 1, (saw_dims[]){SAW_DIMS(1)}, (const double *[]){freqs}, turns, 6);
    const double x[] = {1, 2, 1, 2, 1, 2};
    expect(rope, 2, (saw_dims[]){SAW_DIMS(3, 1, 2), SAW_DIMS(3, 1, 2)},
           (const double *[]){x, turns}, (double[]){1, 2, -2, 1, -1, -2}, 6);
    const double bias[] = {1, -quarter, -7 * quarter};
    expect(pope_phase, 1, (saw_dims[]){SAW_DIMS(1, 3)}, (const double *[]){bias},
           (double[]){1, 0, 0, -1, 1, 0}, 6);
    const double zeros[] = {0, 0, 0}, phase[] = {0, -1}, l = log(2); /* a quarter turn back */
    expect(pope, 3, (saw_dims[]){SAW_DIMS(3, 1, 1), SAW_DIMS(3, 1, 2), SAW_DIMS(1, 1, 2)},
           (const double *[]){zeros, turns, phase}, (double[]){0, -l, l, 0, 0, l}, 6);
}

static saw_val attention(saw_graph *g, const saw_val *in)
{
    return saw_attention(g, in[0], in[1], in[2], 0, 2);
}

static saw_val linear_attention(saw_graph *g, const saw_val *in)
{
    return saw_linear_attention(g, in[0], in[1], in[2], in[3], 0.5);
}

static saw_val mul_heads(saw_graph *g, const saw_val *in)
{
    return saw_mul_heads(g, in[0], in[1]);
}

static void test_attention_values(void **state)
{
    (void)state;
    const double q[] = {1, 0}, k[] = {0, log(3) / 2},
                 v[] = {4, 8}; /* weights 1/4, 3/4; then 1/2, 1/2 */
    expect(attention, 3, (saw_dims[]){SAW_DIMS(2, 1), SAW_DIMS(2, 1), SAW_DIMS(2, 1)},
           (const double *[]){q, k, v}, (double[]){7, 6}, 2);
    /* Channel 0 lives at position 0, channel 1 at position 1: scores are 1/2 e^temperature times
     * the unit matrix. */
    const double a[] = {5, 0, 0, 3}, b[] = {2, 0, 0, 0.1}, w[] = {4, 8, 1, 2},
                 temperature[] = {log(2 * log(3))};
    saw_dims five = SAW_DIMS(1, 2, 1, 1, 2);
    expect(linear_attention, 4, (saw_dims[]){five, five, five, SAW_DIMS(1, 1, 1)},
           (const double *[]){a, b, w, temperature}, (double[]){5, 7, 1.25, 1.75}, 4);
    expect(mul_heads, 2, (saw_dims[]){SAW_DIMS(1, 2, 2), SAW_DIMS(1, 2)}, (const double *[]){w, q},
           (double[]){4, 8, 0, 0}, 4);
}

static saw_val glu(saw_graph *g, const saw_val *in)
{
    return saw_glu(g, in[0], 2, (int64_t[]){2, 1});
}

static saw_val gather(saw_graph *g, const saw_val *in)
{
    return saw_gather(g, in[0], (int32_t[]){2, 0, -1, 2}, 4);
}

static saw_val scatter(saw_graph *g, const saw_val *in)
{
    return saw_scatter(g, in[0], (int32_t[]){2, 0, -1, 2, 2, 0}, 4);
}

static saw_val cmul(saw_graph *g, const saw_val *in)
{
    return saw_cmul(g, in[0], in[1]);
}

static saw_val l1_loss(saw_graph *g, const saw_val *in)
{
    return saw_wave_loss(g, in[0], in[1], SAW_WAVE_L1, 0);
}

static saw_val mul(saw_graph *g, const saw_val *in)
{
    return saw_mul(g, in[0], in[1]);
}

static void test_feature_values(void **state)
{
    (void)state;
    const double x[] = {4, 8, log(3), -log(3), 2, 0}, *in[] = {x};
    saw_dims six = SAW_DIMS(1, 6);
    expect(glu, 1, &six, in, (double[]){3, 2, 1}, 3);
    expect(gather, 1, &six, in, (double[]){log(3), 4, 0, log(3)}, 4);
    expect(scatter, 1, &six, in, (double[]){(8 + 0) / 2.0, 0, (4 - log(3) + 2) / 3, 0}, 4);
    const double a[] = {1, 2, 0, 1}, b[] = {3, 4, 0, 1};
    saw_dims four[] = {SAW_DIMS(1, 4), SAW_DIMS(1, 4)};
    expect(cmul, 2, four, (const double *[]){a, b}, (double[]){-5, 10, -1, 0}, 4);
    expect(l1_loss, 2, four, (const double *[]){a, b}, (double[]){1}, 1);
    expect(mul, 2, (saw_dims[]){SAW_DIMS(2, 2), SAW_DIMS(2, 1)}, (const double *[]){a, b},
           (double[]){3, 6, 0, 4}, 4);
}

static saw_val stft(saw_graph *g, const saw_val *in)
{
    return saw_stft_op(g, in[0], nn_stft_plan(g, &(saw_stft_options){.n_fft = 4, .hop = 2}));
}

static void test_stft_layout(void **state)
{
    (void)state;
    /* Channel 0 is 1, channel 1 alternates; the periodic Hann window of 4 is 0, 1/2, 1, 1/2. */
    const double x[] = {1, 1, 1, 1, 1, 1, 1, -1, 1, -1, 1, -1}, *in[] = {x};
    saw_dims d = SAW_DIMS(1, 2, 6);
    const double frame[] = {2, 0, 0, 0, -1, 0, -1, 0, 0, 0, 2, 0}; /* [K,C,2] */
    double want[24];
    memcpy(want, frame, sizeof frame);
    memcpy(want + 12, frame, sizeof frame);
    expect(stft, 1, &d, in, want, 24);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static saw_val gather_outside(saw_graph *g, const saw_val *in)
{
    return saw_gather(g, in[0], (int32_t[]){0, 99}, 2);
}

static saw_val scatter_outside(saw_graph *g, const saw_val *in)
{
    return saw_scatter(g, in[0], (int32_t[]){0, 4, 0, 0, 0, 0}, 4);
}

static saw_val attention_last_axis(saw_graph *g, const saw_val *in)
{
    return saw_attention(g, in[0], in[1], in[2], 1, 1);
}

static saw_val short_stft(saw_graph *g, const saw_val *in)
{
    return saw_stft_op(g, in[0],
                       nn_stft_plan(g, &(saw_stft_options){.n_fft = 64, .hop = 2, .center = true}));
}

static void test_shapes_are_refused(void **state)
{
    (void)state;
    const struct {
        recorder *record;
        saw_dims in[5];
    } wrong[] = {
        {mul, {SAW_DIMS(2, 3), SAW_DIMS(2, 4)}},
        {mul, {SAW_DIMS(2, 3), SAW_DIMS(3)}},
        {cmul, {SAW_DIMS(2, 3), SAW_DIMS(2, 3)}},
        {linear, {SAW_DIMS(2, 3), SAW_DIMS(5, 4), SAW_DIMS(5)}},
        {linear, {SAW_DIMS(2, 3), SAW_DIMS(5, 3), SAW_DIMS(4)}},
        {linear, {SAW_DIMS(2, 3)}},
        {band_linear,
         {SAW_DIMS(1, 1, 3), SAW_DIMS(2, 1), SAW_DIMS(2, 3), SAW_DIMS(2), SAW_DIMS(2)}},
        {band_linear, {SAW_DIMS(1, 1, 3), SAW_DIMS(2, 1), SAW_DIMS(2), SAW_DIMS(2), SAW_DIMS(2)}},
        {rmsnorm, {SAW_DIMS(2, 3), SAW_DIMS(2)}},
        {rope, {SAW_DIMS(3, 1, 2), SAW_DIMS(2, 1, 2)}},
        {rope, {SAW_DIMS(3, 1, 2), SAW_DIMS(3, 2, 2)}},
        {pope, {SAW_DIMS(3, 1, 2), SAW_DIMS(3, 2, 2), SAW_DIMS(2, 2, 2)}},
        {attention, {SAW_DIMS(2, 3), SAW_DIMS(2, 3), SAW_DIMS(3, 3)}},
        {attention_last_axis, {SAW_DIMS(2, 3), SAW_DIMS(2, 3), SAW_DIMS(2, 3)}},
        {linear_attention,
         {SAW_DIMS(1, 2, 1, 1, 2), SAW_DIMS(1, 2, 1, 1, 2), SAW_DIMS(1, 2, 1, 1, 2),
          SAW_DIMS(2, 1, 1)}},
        {mul_heads, {SAW_DIMS(2, 3, 4), SAW_DIMS(2, 4)}},
        {glu, {SAW_DIMS(2, 3)}},
        {gather_outside, {SAW_DIMS(2, 3)}},
        {scatter_outside, {SAW_DIMS(2, 6)}},
        {short_stft, {SAW_DIMS(1, 1, 20)}},
        {stft, {SAW_DIMS(1, 20)}},
        {l1_loss, {SAW_DIMS(2, 3), SAW_DIMS(3, 2)}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        saw_context *ctx;
        saw_graph *g;
        assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
        assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
        saw_val in[5] = {0};
        for (int j = 0; j < 5; j++) {
            char name[2] = {(char)('a' + j)};
            if (wrong[i].in[j].n)
                in[j] = saw_input(g, name, wrong[i].in[j]);
        }
        if (wrong[i].record(g, in) || saw_graph_status(g) != SAW_ERR_SHAPE)
            fail_msg("wrong shapes %zu were not refused", i);
        assert_true(strlen(saw_context_error(ctx)) > 10);
        saw_graph_close(g);
        saw_context_close(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_has_a_case),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_unary_values),
        cmocka_unit_test(test_linear_values),
        cmocka_unit_test(test_rmsnorm_values),
        cmocka_unit_test(test_rotation_values),
        cmocka_unit_test(test_attention_values),
        cmocka_unit_test(test_feature_values),
        cmocka_unit_test(test_stft_layout),
        cmocka_unit_test(test_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
