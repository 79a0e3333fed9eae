/*
 * test_recipe.c - recipes: where values come from and in which order, what is refused and how it is
 * said, and that what is saved is what is loaded.
 */
#include "support/test.h"

#include "run/recipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static saw_context *ctx;
static char *folder;

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    return saw_context_open(&ctx, NULL) ? -1 : 0;
}

static int leave(void **state)
{
    (void)state;
    saw_context_close(ctx);
    test_leave_folder(folder);
    return 0;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void open_fresh(saw_recipe *r)
{
    assert_int_equal(saw_recipe_open(ctx, r), SAW_OK);
}

static void set(saw_recipe *r, const char *key, const char *value)
{
    if (saw_recipe_set(r, "--set", key, value))
        fail_msg("%s = %s: %s", key, value, saw_context_error(ctx));
}

/* ---- values ---------------------------------------------------------------------------------- */

static void test_defaults(void **state)
{
    (void)state;
    saw_recipe r;
    open_fresh(&r);
    assert_null(r.model);
    assert_null(r.resume);
    assert_true(isnan(r.lr));
    assert_true(isnan(r.chunk_s));
    assert_int_equal(r.memory, 0);
    assert_int_equal(r.stems.count, 0);
    assert_int_equal(r.batch, 1);
    assert_true(r.balance);
    assert_false(r.rehearsal);
    assert_string_equal(r.checkpointing, "auto");
    assert_true(r.valid_fraction == 0.15);
    saw_recipe_free(&r);
}

static void test_texts_become_values(void **state)
{
    (void)state;
    saw_recipe r;
    open_fresh(&r);
    set(&r, "lr", "3e-4");
    set(&r, "optimizer.beta1", "0.5");
    set(&r, "memory", "1.5G");
    set(&r, "stems", " santoor , keys=piano+organ,");
    set(&r, "rules", "*.to_qkv: lora; *.norm: train, lr 2");
    set(&r, "rehearsal", "Yes");
    set(&r, "chunk_s", "AUTO");
    set(&r, "replay", "");
    assert_true(r.lr == 3e-4);
    assert_true(r.beta1 == 0.5);
    assert_int_equal(r.memory, 1610612736);
    assert_int_equal(r.stems.count, 2);
    assert_string_equal(r.stems.items[0], "santoor");
    assert_string_equal(r.stems.items[1], "keys=piano+organ");
    assert_int_equal(r.rules.count, 2);
    assert_string_equal(r.rules.items[1], "*.norm: train, lr 2");
    assert_true(r.rehearsal);
    assert_true(isnan(r.chunk_s));
    assert_null(r.replay);
    saw_recipe_free(&r);
}

static void test_wrong_values_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"lr", "fast"},        {"lr", "-1"},
                                           {"lr", "nan"},         {"lr", "inf"},
                                           {"rank", "auto"},      {"rank", "0"},
                                           {"rank", "8.5"},       {"rank", "99999999999"},
                                           {"steps", ""},         {"ema", "1"},
                                           {"schedule", "cosin"}, {"schedule", "cosine|plateau"},
                                           {"balance", "2"},      {"memory", "0"},
                                           {"memory", "-2G"},     {"memory", "lots"},
                                           {"gate_db", "3"},      {"model", "caf\xe9"},
                                           {"stems", "a,b\nc"},   {"batch", "0x10000000"},
                                           {"clip", "1e400"}};
    saw_recipe r;
    open_fresh(&r);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(saw_recipe_set(&r, "--set", wrong[i][0], wrong[i][1]), SAW_ERR_ARGUMENT);
        assert_non_null(strstr(saw_context_error(ctx), wrong[i][0]));
        assert_non_null(strstr(saw_context_error(ctx), "--set"));
    }
    saw_recipe same;
    open_fresh(&same);
    saw_buffer a = {.ctx = ctx}, b = {.ctx = ctx};
    for (int i = 0; saw_recipe_key_at(i); i++) {
        saw_recipe_print(&r, saw_recipe_key_at(i), &a);
        saw_recipe_print(&same, saw_recipe_key_at(i), &b);
    }
    assert_string_equal(a.data, b.data); /* a refused value changes nothing */
    saw_buffer_free(&a);
    saw_buffer_free(&b);
    saw_recipe_free(&same);
    saw_recipe_free(&r);
}

/* ---- order ----------------------------------------------------------------------------------- */

static void test_later_goes_over_earlier(void **state)
{
    (void)state;
    saw_recipe r;
    write_text("r.yaml", "method:\n  rank: 32\nsteps: 77\noptimizer:\n  lr: 0.002\n");
    open_fresh(&r);
    assert_int_equal(saw_recipe_set_preset(&r, "quick"), SAW_OK);
    assert_int_equal(r.rank, 8);
    assert_int_equal(r.steps, 300);
    assert_int_equal(r.patience, 3);
    assert_int_equal(saw_recipe_load(&r, "r.yaml"), SAW_OK);
    set(&r, "steps", "5");
    assert_int_equal(r.rank, 32);    /* file over preset */
    assert_int_equal(r.steps, 5);    /* flag over file */
    assert_int_equal(r.patience, 3); /* preset over default */
    assert_true(r.lr == 0.002);
    saw_recipe_free(&r);
}

static void test_a_file_may_name_a_preset(void **state)
{
    (void)state;
    saw_recipe r;
    write_text("r.yaml", "steps: 9\npreset: full\n");
    open_fresh(&r);
    assert_int_equal(saw_recipe_load(&r, "r.yaml"), SAW_OK);
    assert_string_equal(r.method, "full");
    assert_int_equal(r.steps, 9); /* wherever it stands in the file */
    saw_recipe_free(&r);
    open_fresh(&r);
    assert_int_equal(saw_recipe_set_preset(&r, "quick"), SAW_OK);
    assert_int_equal(saw_recipe_load(&r, "r.yaml"), SAW_OK);
    assert_string_equal(r.method, "lora"); /* that of the command line stays */
    saw_recipe_free(&r);
}

static void test_presets_are_rows_of_values(void **state)
{
    (void)state;
    for (int i = 0; saw_recipe_preset_name(i); i++) {
        saw_recipe r;
        saw_buffer text = {.ctx = ctx};
        int rows = 0;
        open_fresh(&r);
        assert_int_equal(saw_recipe_set_preset(&r, saw_recipe_preset_name(i)), SAW_OK);
        for (int k = 0; saw_recipe_key_at(k); k++) {
            const char *value = saw_recipe_preset_value(i, saw_recipe_key_at(k)->name);
            text.size = 0;
            saw_recipe_print(&r, saw_recipe_key_at(k), &text);
            rows += value != NULL;
            if (value && saw_recipe_key_at(k)->kind != SAW_RECIPE_NAMES)
                assert_string_equal(text.data, value);
        }
        assert_true(rows >= 5);
        saw_buffer_free(&text);
        saw_recipe_free(&r);
    }
    saw_recipe r;
    open_fresh(&r);
    assert_int_equal(saw_recipe_set_preset(&r, "quik"), SAW_ERR_ARGUMENT);
    assert_string_equal(saw_context_error(ctx), "there is no preset 'quik': did you mean quick?");
    saw_recipe_free(&r);
}

/* ---- unknown keys ---------------------------------------------------------------------------- */

static void test_unknown_keys(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"run:\n  stpes: 10\n",
         "r.yaml, line 2: there is no key 'run.stpes': did you mean run.steps?"},
        {"learning_rat: 1\n", "r.yaml, line 1: there is no key 'learning_rat'"},
        {"data:\n  lr: 1\n", "there is no key 'data.lr': did you mean optimizer.lr?"},
        {"optimiser:\n  lr: 1\n", "there is no key 'optimiser': did you mean optimizer.optimizer?"},
        {"preste: quick\n", "did you mean preset?"},
        {"xyzzyq: 1\n", "`bandsaw finetune --help-recipe` lists them"},
        {"run:\n  steps: [1, 2]\n", "r.yaml, line 2: steps '[...]' makes no sense"},
        {"run:\n  steps: {a: 1}\n", "line 2: steps '{...}' makes no sense"},
        {"data:\n  stems: [a, [b]]\n", "stems '' makes no sense: a list of plain texts is wanted"},
        {"- 1\n- 2\n", "a recipe is a map"},
        {"preset: quik\n", "r.yaml: there is no preset 'quik'"},
        {"a: [\n", "r.yaml"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        saw_recipe r;
        write_text("r.yaml", cases[i].text);
        open_fresh(&r);
        assert_int_not_equal(saw_recipe_load(&r, "r.yaml"), SAW_OK);
        if (!strstr(saw_context_error(ctx), cases[i].says))
            fail_msg("%s\nsays: %s\nwanted: %s", cases[i].text, saw_context_error(ctx),
                     cases[i].says);
        saw_recipe_free(&r);
    }
}

static void test_nulls_say_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {"run:\n", "steps:\n", "run:\n  steps: ~\n", "run: {}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        saw_recipe r;
        write_text("r.yaml", texts[i]);
        open_fresh(&r);
        assert_int_equal(saw_recipe_load(&r, "r.yaml"), SAW_OK);
        assert_int_equal(r.steps, 1000);
        saw_recipe_free(&r);
    }
}

/* ---- saving ---------------------------------------------------------------------------------- */

static void assert_same(const saw_recipe *a, const saw_recipe *b)
{
    for (int i = 0; saw_recipe_key_at(i); i++) {
        saw_buffer x = {.ctx = ctx}, y = {.ctx = ctx};
        saw_recipe_print(a, saw_recipe_key_at(i), &x);
        saw_recipe_print(b, saw_recipe_key_at(i), &y);
        if (strcmp(x.data, y.data))
            fail_msg("%s: %s became %s", saw_recipe_key_at(i)->name, x.data, y.data);
        saw_buffer_free(&x);
        saw_buffer_free(&y);
    }
}

static void save_and_load(const char *key, const char *value)
{
    saw_recipe a, b;
    open_fresh(&a);
    set(&a, key, value);
    assert_int_equal(saw_recipe_save(&a, "saved.yaml"), SAW_OK);
    open_fresh(&b);
    if (saw_recipe_load(&b, "saved.yaml"))
        fail_msg("%s = %s: %s", key, value, saw_context_error(ctx));
    assert_same(&a, &b);
    saw_recipe_free(&a);
    saw_recipe_free(&b);
}

static void test_what_is_saved_is_what_is_loaded(void **state)
{
    (void)state;
    save_and_load("model", "/no/such/'quoted\" #model: [x], {y}\\z.ckpt");
    save_and_load("loss", "l1 + mrstft(windows=2048:1024, hop=160) * 0.5");
    save_and_load("stems", "null,true,12,~,h\xc3\xa4nde,a: b,- x,-,*y,&z,!t,%p,@q,`r,0x10,.nan,<<");
    save_and_load("rules", "layers.?.*: lora; *: freeze");
    save_and_load("lr", "0.1");
    save_and_load("weight_decay", "0.30000000000000004");
    save_and_load("l2sp", "1e-300");
    save_and_load("memory", "1537");
    save_and_load("memory", "3G");
    save_and_load("seed", "9007199254740991");
    save_and_load("rehearsal", "on");
    save_and_load("replay", "");
}

static void test_paths_are_absolute(void **state)
{
    (void)state;
    saw_recipe r;
    char here[4096], want[5000];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(mkdir("my songs", 0777), 0);
    open_fresh(&r);
    set(&r, "data", "./my songs/");
    set(&r, "forgetting", "not there");
    assert_int_equal(saw_recipe_save(&r, "saved.yaml"), SAW_OK);
    saw_recipe_free(&r);
    open_fresh(&r);
    assert_int_equal(saw_recipe_load(&r, "saved.yaml"), SAW_OK);
    snprintf(want, sizeof want, "%s/my songs", here);
    assert_string_equal(r.data, want);
    assert_string_equal(r.forgetting, "not there");
    saw_recipe_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_texts_become_values),
        cmocka_unit_test(test_wrong_values_are_refused),
        cmocka_unit_test(test_later_goes_over_earlier),
        cmocka_unit_test(test_a_file_may_name_a_preset),
        cmocka_unit_test(test_presets_are_rows_of_values),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_nulls_say_nothing),
        cmocka_unit_test(test_what_is_saved_is_what_is_loaded),
        cmocka_unit_test(test_paths_are_absolute),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
