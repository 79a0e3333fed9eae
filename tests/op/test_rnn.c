/* test_rnn.c - a recurrent layer with state: any cut of time into calls gives the bits of one call.
 */
#include "core/program.h"
#include "kernels/ops.h"
#include "support/formula.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 2, FRAMES = 12, BANDS = 3, FEATURES = 5, HIDDEN = 7 };

typedef struct layer {
    saw_context *ctx;
    saw_weights *weights;
    saw_rnn_kind kind;
    int64_t gates;
} layer;

static layer open_layer(saw_rnn_kind kind)
{
    static const char *const names[] = {"w_ih", "w_hh", "b_ih", "b_hh"};
    layer l = {.kind = kind, .gates = (kind == SAW_RNN_LSTM ? 4 : 3) * HIDDEN};
    saw_dims dims[] = {SAW_DIMS(l.gates, FEATURES), SAW_DIMS(l.gates, HIDDEN), SAW_DIMS(l.gates),
                       SAW_DIMS(l.gates)};
    assert_int_equal(saw_context_open(&l.ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_weights_open(l.ctx, NULL, &l.weights), SAW_OK);
    for (int i = 0; i < 4; i++) {
        float values[4 * HIDDEN * HIDDEN];
        for (int64_t k = 0; k < saw_dims_count(&dims[i]); k++)
            values[k] = (float)test_value(names[i], k);
        assert_int_equal(saw_weights_set(l.weights, names[i], dims[i], values), SAW_OK);
    }
    return l;
}

static void close_layer(layer *l)
{
    saw_weights_close(l->weights);
    saw_context_close(l->ctx);
}

static void set(saw_tensor *t, int64_t i, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

static double get(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((double *)t->data)[i] : (double)((float *)t->data)[i];
}

/* The layer over all frames, `block` of them a call; with `twice` the whole again after a reset. */
static void run_blocks(layer *l, saw_device device, bool stateful, int64_t block, bool twice,
                       double *out)
{
    saw_graph *g;
    saw_program *p;
    saw_run *run;
    assert_int_equal(saw_graph_open(l->ctx, &g), SAW_OK);
    saw_val x = saw_input(g, "x", SAW_DIMS(BATCH, block, BANDS, FEATURES));
    saw_rnn_weights w = {saw_param(g, "w_ih", SAW_DIMS(l->gates, FEATURES)),
                         saw_param(g, "w_hh", SAW_DIMS(l->gates, HIDDEN)),
                         saw_param(g, "b_ih", SAW_DIMS(l->gates)),
                         saw_param(g, "b_hh", SAW_DIMS(l->gates))};
    saw_output(g, "y", saw_rnn(g, x, l->kind, 1, 1, &w, stateful));
    if (saw_program_build(g, &(saw_program_options){.device = device}, &p) ||
        saw_run_open(p, l->weights, &run))
        fail_msg("%s", saw_context_error(l->ctx));
    for (int pass = 0; pass < 1 + twice; pass++) {
        saw_run_reset(run);
        for (int64_t t = 0; t < FRAMES; t += block) {
            saw_tensor in = saw_run_named(run, "x"), y = saw_run_named(run, "y");
            for (int64_t i = 0; i < BATCH * block * BANDS * FEATURES; i++) {
                int64_t row = i / (BANDS * FEATURES), b = row / block;
                set(&in, i,
                    test_value("x", ((b * FRAMES + t + row % block) * BANDS * FEATURES) +
                                        i % (BANDS * FEATURES)));
            }
            assert_int_equal(saw_run_execute(run), SAW_OK);
            for (int64_t i = 0; i < BATCH * block * BANDS * HIDDEN; i++) {
                int64_t row = i / (BANDS * HIDDEN), b = row / block;
                out[(b * FRAMES + t + row % block) * BANDS * HIDDEN + i % (BANDS * HIDDEN)] =
                    get(&y, i);
            }
        }
    }
    saw_run_close(run);
    saw_program_close(p);
}

static void check_kind(saw_rnn_kind kind)
{
    enum { COUNT = BATCH * FRAMES * BANDS * HIDDEN };
    static const saw_device devices[] = {SAW_DEVICE_CPU, SAW_DEVICE_REF32, SAW_DEVICE_REF64};
    static double whole[COUNT], got[COUNT];
    layer l = open_layer(kind);
    for (int d = 0; d < 3; d++) {
        run_blocks(&l, devices[d], false, FRAMES, false, whole);
        for (int64_t block = 1; block <= FRAMES; block++) {
            if (FRAMES % block)
                continue;
            run_blocks(&l, devices[d], true, block, block == 3, got);
            assert_memory_equal(got, whole, sizeof whole);
        }
        run_blocks(&l, devices[d], false, 3, false,
                   got); /* without state the blocks do not know of each other */
        assert_memory_not_equal(got, whole, sizeof whole);
    }
    close_layer(&l);
}

static void test_lstm_state(void **state)
{
    (void)state;
    check_kind(SAW_RNN_LSTM);
}

static void test_gru_state(void **state)
{
    (void)state;
    check_kind(SAW_RNN_GRU);
}

static void test_refused(void **state)
{
    (void)state;
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    for (int i = 0; i < 4; i++) {
        saw_graph *g;
        assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
        saw_val x = saw_input(g, "x", SAW_DIMS(1, 4, 3, 5));
        int64_t depth = i == 3 ? 6 : 5; /* 3: weights for other features */
        saw_val w_ih = saw_input(g, "a", SAW_DIMS(8, depth)),
                w_hh = saw_input(g, "b", SAW_DIMS(8, 2));
        saw_val bias = saw_input(g, "c", SAW_DIMS(8));
        saw_rnn_weights w[2] = {{w_ih, w_hh, bias, bias}, {w_ih, w_hh, bias, bias}};
        int axis = i == 0 ? 3 : 2, directions = i == 1 ? 3 : 1; /* 2: state along bands */
        assert_int_equal(saw_rnn(g, x, SAW_RNN_LSTM, axis, directions, w, i == 2), 0);
        assert_int_equal(saw_graph_status(g), i == 3 ? SAW_ERR_SHAPE : SAW_ERR_ARGUMENT);
        saw_graph_close(g);
    }
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lstm_state),
        cmocka_unit_test(test_gru_state),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
