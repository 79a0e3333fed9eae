/*
 * test_cli.c - the program as a person types it. Every case runs the built program through the
 * shell, in a fresh folder that is also $HOME; `$B` is the program.
 */
#include "support/test.h"
#include "support/tiny_model.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEMS "\"vocals\",\"other\""

/* ---- running --------------------------------------------------------------------------------- */

typedef struct result {
    int code; /* exit code, or 128 + signal */
    char *out, *err;
    long peak_kb;
} result;

static char *folder;

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    setenv("HOME", folder, 1);
    unsetenv("XDG_DATA_HOME");
    setenv("B", BANDSAW_PROGRAM, 1);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    test_leave_folder(folder);
    return 0;
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    size_t size = 0;
    if (!f || getdelim(&text, &size, -1, f) < 0) {
        free(text);
        text = strdup("");
    }
    if (f)
        fclose(f);
    return text;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

static pid_t start(const char *line)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("stdout.txt", "wb", stdout) || !freopen("stderr.txt", "wb", stderr))
            _exit(99);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static result finish(pid_t pid)
{
    int status;
    struct rusage usage;
    result r;
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.peak_kb = usage.ru_maxrss;
    r.out = read_text("stdout.txt");
    r.err = read_text("stderr.txt");
    return r;
}

static void drop(result r)
{
    free(r.out);
    free(r.err);
}

/* Run a line; fail the test unless it ends with `code`, and `says` (may be NULL) is in one of its
 * outputs. */
static void run(const char *line, int code, const char *says)
{
    result r = finish(start(line));
    if (r.code != code || (says && !strstr(r.out, says) && !strstr(r.err, says)))
        fail_msg("%s\nexit code %d, wanted %d and \"%s\"\nstdout: %s\nstderr: %s", line, r.code,
                 code, says ? says : "", r.out, r.err);
    drop(r);
}

static int count_files(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* Run a line that must fail with one sentence on stderr that has `says`, nothing on stdout, and
 * nothing in out/. */
static void run_bad(const char *line, int code, const char *says)
{
    int before = count_files("out");
    result r = finish(start(line));
    size_t n = strlen(r.err);
    bool one_line = n > 1 && strchr(r.err, '\n') == r.err + n - 1;
    if (r.code != code || !strstr(r.err, says) || !one_line || *r.out ||
        count_files("out") != before)
        fail_msg("%s\nexit code %d, wanted %d, one sentence with \"%s\", no output (%d "
                 "files)\nstdout: %s\nstderr: %s",
                 line, r.code, code, says, count_files("out"), r.out, r.err);
    drop(r);
}

/* ---- audio ----------------------------------------------------------------------------------- */

typedef struct audio {
    int rate, channels;
    sf_count_t frames;
    float *x; /* interleaved */
} audio;

/* Tones below 0.45 of `band_hz`, another for every channel, that fade in and out. */
static audio make_audio(int rate, int channels, sf_count_t frames, int band_hz)
{
    audio a = {rate, channels, frames, malloc((size_t)(frames * channels) * sizeof(float))};
    double fade = (double)(frames < 8 * 2048 ? frames / 8 : 2048);
    for (sf_count_t i = 0; i < frames; i++)
        for (int c = 0; c < channels; c++) {
            double t = (double)i / rate, x = 0;
            double edge = fmin(1, fmin((double)i, (double)(frames - 1 - i)) / fade);
            for (int k = 1; k <= 4; k++)
                x += 0.1 * sin(2 * M_PI * band_hz * (0.44 * k / 4 - 0.01 * c) * t + k);
            a.x[i * channels + c] =
                (float)(x * (0.5 - 0.5 * cos(M_PI * edge)) * (c == 1 ? 0.8 : 1));
        }
    return a;
}

static void save(const audio *a, const char *path, int format)
{
    SF_INFO info = {.samplerate = a->rate, .channels = a->channels, .format = format};
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    assert_non_null(f);
    assert_int_equal(sf_writef_float(f, a->x, a->frames), a->frames);
    sf_close(f);
}

static void save_wav(const audio *a, const char *path)
{
    save(a, path, SF_FORMAT_WAV | SF_FORMAT_FLOAT);
}

static audio load(const char *path)
{
    SF_INFO info = {0};
    SNDFILE *f = sf_open(path, SFM_READ, &info);
    if (!f)
        fail_msg("%s: %s", path, sf_strerror(NULL));
    audio a = {info.samplerate, info.channels, info.frames,
               calloc((size_t)(info.frames * info.channels) + 1, sizeof(float))};
    assert_int_equal(sf_readf_float(f, a.x, a.frames), a.frames);
    sf_close(f);
    return a;
}

/* A song of two channels, 44.1 kHz, as song.wav. */
static audio make_song(double seconds)
{
    audio a = make_audio(44100, 2, (sf_count_t)(seconds * 44100), 44100);
    save_wav(&a, "song.wav");
    return a;
}

static size_t values(const audio *a)
{
    return (size_t)(a->frames * a->channels);
}

static void assert_same_shape(const audio *a, const audio *b)
{
    assert_int_equal(a->rate, b->rate);
    assert_int_equal(a->channels, b->channels);
    assert_int_equal(a->frames, b->frames);
}

static void assert_same_file(const char *a, const char *b)
{
    char line[512];
    snprintf(line, sizeof line, "cmp '%s' '%s'", a, b);
    run(line, 0, NULL);
}

/* ---- help and usage -------------------------------------------------------------------------- */

static void test_help(void **state)
{
    (void)state;
    static const char *const commands[] = {"separate", "inspect", "convert", "bench"};
    char line[256];
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "$B %s --help", commands[i]);
        run(line, 0, "Examples:");
        snprintf(line, sizeof line, "$B help %s", commands[i]);
        run(line, 0, "Usage: bandsaw ");
    }
    run("$B --help", 0, "separate songs into stems");
    run("$B", 2, "Commands:");
    run("$B --version", 0, "bandsaw 0.");
    run("$B man", 0, ".TH BANDSAW 1");
    run("$B completion zsh", 0, "#compdef bandsaw");
    /* Every flag that help shows is in the man page. */
    run("$B separate --help | grep -o '^ *\\(-.,\\)\\? *--[a-z-]*' | grep -o -- '--[a-z-]*' | grep "
        "-v help > flags.txt; "
        "test $(wc -l < flags.txt) -ge 23 || exit 3; $B man > page.txt; "
        "while read -r f; do tr -d '\\\\' < page.txt | grep -q -e \"fB$f\\|, fB$f\\|$f\" || exit "
        "4; done < flags.txt",
        0, NULL);
}

static void test_bash_completion(void **state)
{
    (void)state;
    if (system("bash -c true"))
        skip();
    run("$B completion bash > c.sh; bash -c '. ./c.sh; COMP_WORDS=(bandsaw sep); COMP_CWORD=1; "
        "_bandsaw; "
        "echo \"[${COMPREPLY[*]}]\"'",
        0, "[separate]");
    run("bash -c '. ./c.sh; COMP_WORDS=(bandsaw separate --form); COMP_CWORD=2; _bandsaw; echo "
        "\"[${COMPREPLY[*]}]\"'",
        0, "[--format]");
    run("bash -c '. ./c.sh; COMP_WORDS=(bandsaw separate --format f); COMP_CWORD=3; _bandsaw; "
        "echo \"[${COMPREPLY[*]}]\"'",
        0, "[flac]");
}

static void test_usage_errors(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"$B seperate", "did you mean separate?"},
        {"$B sing", "unknown command sing"},
        {"$B help seprate", "did you mean separate?"},
        {"$B completion fish", "bash"},
        {"$B separate", "what should be separated?"},
        {"$B separate a.wav --stem vocals", "did you mean --stems?"},
        {"$B separate a.wav --ovrelap=2", "did you mean --overlap?"},
        {"$B separate a.wav --qqqqqqq", "unknown flag --qqqqqqq"},
        {"$B separate a.wav -x", "unknown flag -x"},
        {"$B separate a.wav --model", "--model needs a value"},
        {"$B separate a.wav --model=", "--model needs a value"},
        {"$B separate a.wav --tta=yes", "takes no value"},
        {"$B separate a.wav --overlap 0", "from 1 to 64"},
        {"$B separate a.wav --overlap two", "from 1 to 64"},
        {"$B separate a.wav --format aiff", "wav|flac|ogg|opus|mp3"},
        {"$B separate a.wav --format flac --subtype float", "flac has no subtype float"},
        {"$B separate a.wav --precision f64", "f32|bf16|int8"},
        {"$B separate a.wav --device gpu", "cpu"},
        {"$B separate a.wav --chunk big", "seconds from 0.01 on, or whole"},
        {"$B separate a.wav --chunk -1", "seconds from 0.01 on, or whole"},
        {"$B separate a.wav --chunk nan", "seconds from 0.01 on, or whole"},
        {"$B separate a.wav --chunk whole --overlap 4", "no windows"},
        {"$B separate a.wav --start 1:75", "seconds"},
        {"$B separate a.wav --duration 0", "seconds"},
        {"$B separate a.wav --memory lots", "2G"},
        {"$B separate a.wav --stems a,,b", "comma"},
        {"$B separate - -", "only once"},
        {"$B separate a.wav b.wav -o - --stems vocals", "one stem of one input"},
        {"$B separate a.wav -o -", "one stem of one input"},
        {"$B separate a.wav -o - --stems vocals --json", "--json"},
        {"$B separate a.wav -o - --stems vocals --format flac", "wav only"},
        {"$B separate a.wav -m a -m b", "--ensemble"},
        {"$B separate a.wav -m a --ensemble mean_wave", "two --model"},
        {"$B separate a.wav -m a -m b --ensemble mean", "mean_wave"},
        {"$B separate a.wav -m a -m b --ensemble max_mag --weights 1,2", "median"},
        {"$B separate a.wav -m a -m b --ensemble mean_mag --weights 1",
         "one number for every --model"},
        {"$B separate a.wav -m a -m b --ensemble mean_mag --weights 1,x", "numbers"},
        {"$B separate a.wav -m a -m b --config c --ensemble mean_wave", "once for every --model"},
        {"$B separate --list-models a.wav", "no inputs"},
        {"$B inspect", "MODEL"},
        {"$B inspect a b", "one too many"},
        {"$B convert a", "IN OUT"},
        {"$B convert a b --dtype f64", "f32|f16|bf16|int8"},
        {"$B bench --peak --ops", "only the peak"},
        {"$B bench --config x", "--model"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_bad(cases[i].line, 2, cases[i].says);
}

/* ---- bad input ------------------------------------------------------------------------------- */

static void truncate_copy(const char *from, const char *to, double part)
{
    char line[512];
    struct stat s;
    assert_int_equal(stat(from, &s), 0);
    snprintf(line, sizeof line, "head -c %lld '%s' > '%s'", (long long)((double)s.st_size * part),
             from, to);
    run(line, 0, NULL);
}

static void test_bad_audio(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    audio a = make_song(1);
    truncate_copy("song.wav", "cut.wav", 0.5);
    write_text("empty.wav", "");
    write_text("text.wav", "This is not audio but a text, and it has a few words.\n");
    assert_int_equal(mkdir("nothing", 0755), 0);
    a.x[5000] = NAN;
    save_wav(&a, "nan.wav");
    run_bad("$B separate cut.wav -m m.safetensors -o out", 1, "cut.wav");
    run_bad("$B separate empty.wav -m m.safetensors -o out", 1, "empty.wav");
    run_bad("$B separate text.wav -m m.safetensors -o out", 1, "text.wav");
    run_bad("$B separate nan.wav -m m.safetensors -o out", 1, "nan.wav");
    run_bad("$B separate nothing -m m.safetensors -o out", 1, "no audio files");
    run_bad("$B separate missing.wav -m m.safetensors -o out", 1, "missing.wav");
    run_bad("$B separate song.wav -m m.safetensors -o out --start 0:05", 1, "song.wav");
    run_bad("cat empty.wav | $B separate - -m m.safetensors -o out", 1, "standard input");
    run_bad("cat text.wav | $B separate - -m m.safetensors -o out", 1, "standard input");
    run_bad("$B separate m.safetensors -m m.safetensors -o out", 1, "m.safetensors");
    free(a.x);
}

static void test_bad_models(void **state)
{
    (void)state;
    free(make_song(0.5).x);
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    tiny_model_write("nan.safetensors", &(tiny_model){.nan = true});
    tiny_model_write("bare.safetensors", &(tiny_model){.stems = STEMS, .without_config = true});
    truncate_copy("m.safetensors", "cut.safetensors", 0.7);
    write_text("text.ckpt", "vocals: yes\n");
    write_text("empty.ckpt", "");
    assert_int_equal(mkdir("folder.ckpt", 0755), 0);
    /* A pickle that would run `touch owned`, as a bare protocol 2 stream. */
    FILE *f = fopen("evil.ckpt", "wb");
    fputs("\x80\x02"
          "cposix\nsystem\nX\x0b",
          f);
    fwrite("\0\0\0touch owned", 1, 14, f);
    fputs("\x85R.", f);
    fclose(f);
    /* Aliases that would unfold to 10^10 items. */
    f = fopen("bomb.yaml", "wb");
    fputs("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n", f);
    for (int i = 1; i < 10; i++) {
        fprintf(f, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            fprintf(f, "%s*a%d", k ? ", " : "", i - 1);
        fputs("]\n", f);
    }
    fclose(f);
    static const struct {
        const char *from, *to, *file;
    } edits[] = {{"\"stft_hop_length\":256", "\"stft_hop_length\":0", "hop.json"},
                 {"\"depth\":1", "\"depth\":1000000000", "depth.json"},
                 {"\"dim\":8", "\"dim\":16", "shape.json"},
                 {"\"dim\":8", "\"dim\":8,\"hyper_drive\":true", "option.json"},
                 {"\"chunk_size\":16384", "\"chunk_size\":-3", "chunk.json"}};
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char text[2048];
        const char *config = tiny_model_config(&(tiny_model){.stems = STEMS}),
                   *at = strstr(config, edits[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, edits[i].to,
                 at + strlen(edits[i].from));
        write_text(edits[i].file, text);
    }
    static const struct {
        const char *flags, *says;
    } cases[] = {{"-m nowhere", "nowhere: there is no such file"},
                 {"-m text.ckpt", "text.ckpt"},
                 {"-m empty.ckpt", "empty.ckpt"},
                 {"-m folder.ckpt", "folder.ckpt"},
                 {"-m cut.safetensors", "cut.safetensors"},
                 {"-m nan.safetensors", "nan.safetensors"},
                 {"-m evil.ckpt", "evil.ckpt"},
                 {"-m " SAW_TEST_GOLDEN "/formats/foreign_reduce.ckpt", "foreign_reduce.ckpt"},
                 {"-m song.wav", "song.wav"},
                 {"-m bare.safetensors --config bomb.yaml", "bomb.yaml"},
                 {"-m bare.safetensors --config nowhere.yaml", "nowhere.yaml"},
                 {"-m bare.safetensors --config hop.json", "stft_hop_length"},
                 {"-m bare.safetensors --config depth.json", "depth"},
                 {"-m bare.safetensors --config shape.json", "bare.safetensors"},
                 {"-m bare.safetensors --config option.json", "hyper_drive"},
                 {"-m bare.safetensors --config chunk.json", "chunk"},
                 {"-m m.safetensors --stems vocals,drums", "has no stem drums"},
                 {"-m m.safetensors --stems vocals,vocals", "twice"},
                 {"-m m.safetensors --residual other", "other"},
                 {"-m m.safetensors --template '../{stem}'", "template"},
                 {"-m m.safetensors --template '/tmp/{stem}'", "template"},
                 {"-m m.safetensors --template '{track}'", "{stem}"},
                 {"-m m.safetensors --template '{song}/{stem}'", "{track}"},
                 {"-m m.safetensors --memory 100K", "limit"},
                 {"", "no model was named"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[512];
        snprintf(line, sizeof line, "$B separate song.wav -o out %s", cases[i].flags);
        run_bad(line, 1, cases[i].says);
    }
    assert_int_not_equal(access("owned", F_OK), 0);
    run_bad("$B inspect text.ckpt", 1, "text.ckpt");
    run_bad("$B inspect evil.ckpt", 1, "evil.ckpt");
    run_bad("$B convert cut.safetensors new.safetensors", 1, "cut.safetensors");
    run_bad("$B convert nan.safetensors new.safetensors", 1, "not a finite number");
    assert_int_not_equal(access("new.safetensors", F_OK), 0);
}

static void test_bad_places(void **state)
{
    (void)state;
    free(make_song(2).x);
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    write_text("file", "x");
    run_bad("$B separate song.wav -m m.safetensors -o file", 1, "file");
    run_bad("$B separate song.wav -m m.safetensors -o /proc/none", 1, "/proc/none");
    /* No file may grow beyond 64 kB: as a disk that is full. */
    run_bad("trap '' XFSZ; ulimit -f 128; $B separate song.wav -m m.safetensors -o out", 1, "song");
    assert_int_not_equal(access("out/song", F_OK), 0);
    run_bad("trap '' XFSZ; ulimit -f 16; $B convert m.safetensors new.safetensors", 1,
            "new.safetensors");
    run("$B separate song.wav -m m.safetensors -o - --stems vocals > /dev/full", 1,
        "standard output");
    if (geteuid()) {
        assert_int_equal(mkdir("locked", 0555), 0);
        run_bad("$B separate song.wav -m m.safetensors -o locked", 1, "locked");
    }
    run("mkdir song_dir; cp song.wav song_dir/vocals.wav", 0, NULL);
    run_bad("$B separate song_dir/vocals.wav -m m.safetensors -o song_dir --template '{stem}' "
            "--overwrite",
            1, "overwrite the input");
}

/* ---- what comes out -------------------------------------------------------------------------- */

/* Every rate and channel count comes back with its rate, channels, length and, from a model whose
 * mask is one, its samples. */
static void test_identity(void **state)
{
    (void)state;
    static const int rates[] = {44100, 48000, 96000, 22050}, channels[] = {1, 2, 6};
    tiny_model_write("m.safetensors", &(tiny_model){.identity = true});
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) {
            sf_count_t frames = rates[i] * 3 / 2 + 17;
            audio in =
                make_audio(rates[i], channels[k], frames, rates[i] < 44100 ? rates[i] : 44100);
            save_wav(&in, "in.wav");
            run("$B separate in.wav -m m.safetensors -o out --overwrite", 0, "x real time");
            audio out = load("out/in/vocals.wav");
            assert_same_shape(&out, &in);
            double db = test_snr_db(out.x, in.x, values(&in));
            if (db < 100)
                fail_msg("%d Hz, %d channels: %.1f dB", rates[i], channels[k], db);
            free(out.x);
            free(in.x);
        }
    /* In one piece, with another model rate, and a model of one channel. */
    audio in = make_song(1.3);
    run("$B separate song.wav -m m.safetensors -o whole --chunk whole", 0, NULL);
    tiny_model_write("mono.safetensors", &(tiny_model){.identity = true, .mono = true});
    run("$B separate song.wav -m mono.safetensors -o mono", 0, NULL);
    tiny_model_write("norm.safetensors", &(tiny_model){.identity = true, .normalize = true});
    run("$B separate song.wav -m norm.safetensors -o norm", 0, NULL);
    run("$B separate song.wav -m m.safetensors -o tta --tta", 0, NULL);
    static const char *const names[] = {"whole/song/vocals.wav", "mono/song/vocals.wav",
                                        "norm/song/vocals.wav", "tta/song/vocals.wav"};
    for (int i = 0; i < 4; i++) {
        audio out = load(names[i]);
        assert_same_shape(&out, &in);
        assert_true(test_snr_db(out.x, in.x, values(&in)) > 100);
        free(out.x);
    }
    free(in.x);
    run_bad("$B separate - -m norm.safetensors -o out2 < song.wav", 1, "first pass");
    run_bad("$B separate - -m m.safetensors --chunk whole -o out2 < song.wav", 1, "first pass");
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *flags, *file;
        int format;
        bool exact;
        double db;
    } cases[] = {
        {"", "wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, true, 100},
        {"--subtype pcm_16", "wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, true, 70},
        {"--subtype pcm_24", "wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, true, 100},
        {"--format flac", "flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, true, 100},
        {"--format flac --subtype pcm_16", "flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, true, 70},
        {"--format ogg", "ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, true, 10},
        {"--format opus", "opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, false, 0}};
    tiny_model_write("m.safetensors", &(tiny_model){.identity = true});
    audio in = make_song(1.01);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256], path[64];
        snprintf(line, sizeof line, "$B separate song.wav -m m.safetensors -o out%zu %s", i,
                 cases[i].flags);
        snprintf(path, sizeof path, "out%zu/song/vocals.%s", i, cases[i].file);
        run(line, 0, NULL);
        SF_INFO info = {0};
        SNDFILE *f = sf_open(path, SFM_READ, &info);
        assert_non_null(f);
        sf_close(f);
        assert_int_equal(info.format & ~SF_FORMAT_ENDMASK, cases[i].format);
        audio out = load(path);
        assert_int_equal(out.channels, 2);
        if (cases[i].exact) {
            assert_same_shape(&out, &in);
            assert_true(test_snr_db(out.x, in.x, values(&in)) > cases[i].db);
        }
        free(out.x);
    }
    /* What is read from 16 bits and unchanged is written as the same 16 bits. */
    save(&in, "song.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16);
    run("$B separate song.wav -m m.safetensors -o bits --subtype pcm_16", 0, NULL);
    audio a = load("song.wav"), b = load("bits/song/vocals.wav");
    assert_memory_equal(a.x, b.x, values(&a) * sizeof(float));
    free(a.x);
    free(b.x);
    /* Too loud for integers: clamped and said, kept by float. */
    for (size_t i = 0; i < values(&in); i++)
        in.x[i] *= 5;
    save_wav(&in, "loud.wav");
    run("$B separate loud.wav -m m.safetensors -o loud --subtype pcm_16", 0, "were clamped");
    run("$B separate loud.wav -m m.safetensors -o loud_float", 0, NULL);
    b = load("loud_float/loud/vocals.wav");
    assert_true(test_snr_db(b.x, in.x, values(&in)) > 100);
    free(b.x);
    free(in.x);
}

static void test_residual(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = "\"vocals\",\"drums\",\"bass\""});
    for (int rate = 32000; rate <= 44100; rate += 12100) {
        audio in = make_audio(rate, 2, rate * 2, rate);
        save_wav(&in, "in.wav");
        run("$B separate in.wav -m m.safetensors -o out --overwrite --stems drums,vocals "
            "--residual rest",
            0, NULL);
        assert_int_equal(count_files("out/in"), 3);
        audio a = load("out/in/drums.wav"), b = load("out/in/vocals.wav"),
              c = load("out/in/rest.wav");
        double worst = 0;
        for (size_t i = 0; i < values(&in); i++)
            worst = fmax(worst, fabs((double)a.x[i] + b.x[i] + c.x[i] - in.x[i]));
        assert_true(worst < 1e-6);
        assert_true(test_snr_db(c.x, in.x, values(&in)) < 40); /* the model does something */
        assert_same_shape(&c, &in);
        free(a.x);
        free(b.x);
        free(c.x);
        free(in.x);
    }
    /* One stem alone is what it is among all. */
    run("$B separate in.wav -m m.safetensors -o all; $B separate in.wav -m m.safetensors -o one "
        "--stems bass",
        0, NULL);
    assert_int_equal(count_files("one/in"), 1);
    assert_same_file("all/in/bass.wav", "one/in/bass.wav");
}

static void test_section(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.identity = true});
    audio in = make_song(3);
    run("$B separate song.wav -m m.safetensors -o out --start 0:01.5 --duration 1", 0,
        "song.wav: 1.0 s");
    audio out = load("out/song/vocals.wav");
    assert_int_equal(out.frames, 44100);
    assert_true(test_snr_db(out.x + 2 * 4410, in.x + 2 * (66150 + 4410), 2 * 30000) > 100);
    free(out.x);
    run("$B separate song.wav -m m.safetensors -o tail --start 2.75 --duration 99", 0, NULL);
    out = load("tail/song/vocals.wav");
    assert_int_equal(out.frames, 11025);
    free(out.x);
    free(in.x);
}

static void test_pipes(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    free(make_song(1.5).x);
    run("$B separate song.wav -m m.safetensors -o out", 0, NULL);
    run("cat song.wav | $B separate - -m m.safetensors -o - --stems other > piped.wav", 0,
        "x real time");
    audio a = load("out/song/other.wav"), b = load("piped.wav");
    assert_int_equal(a.channels, b.channels);
    assert_int_equal(a.rate, b.rate);
    assert_true(b.frames >= a.frames); /* a header that cannot be filled in later */
    assert_memory_equal(a.x, b.x, values(&a) * sizeof(float));
    run("$B separate - -m m.safetensors -o out < song.wav", 0, NULL);
    assert_same_file("out/song/other.wav", "out/stdin/other.wav");
    /* A reader that goes away is an error, not a death. */
    run("$B separate song.wav -m m.safetensors -o - --stems other 2> err.txt | head -c 100 > "
        "/dev/null; cat err.txt",
        0, "standard output");
    free(a.x);
    free(b.x);
}

/* ---- batches --------------------------------------------------------------------------------- */

static void test_folders(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    free(make_song(0.5).x);
    run("mkdir -p in/a in/b; cp song.wav in/a/x.wav; cp song.wav in/b/x.wav; cp song.wav in/y.WAV; "
        "echo hi > in/z.txt; "
        "head -c 20000 song.wav > in/b/broken.wav",
        0, NULL);
    run("$B separate in -m m.safetensors -o in/stems", 1, "3 done, 0 skipped, 1 failed");
    assert_int_equal(count_files("in/stems/a/x"), 2);
    assert_int_equal(count_files("in/stems/b/x"), 2);
    assert_int_equal(count_files("in/stems/y"), 2);
    assert_int_equal(count_files("in/stems/b"), 1);
    /* What came out is not taken for input, and what is there is skipped. */
    run("$B separate in -m m.safetensors -o in/stems", 1, "0 done, 3 skipped, 1 failed");
    run("rm in/b/broken.wav in/stems/a/x/vocals.wav; $B separate in -m m.safetensors -o in/stems",
        0, "1 done, 2 skipped, 0 failed");
    run("$B separate in -m m.safetensors -o in/stems --overwrite", 0,
        "3 done, 0 skipped, 0 failed");
    run("cp song.wav in/y.flac.wav; cp song.wav song.aif; $B separate song.wav song.aif -m "
        "m.safetensors -o out",
        1, "would both write");
    assert_int_equal(count_files("out"), 0);
    run("$B separate song.wav -m m.safetensors -o out --template '{model}-{track}-{stem}'", 0,
        NULL);
    assert_int_equal(access("out/m-song-vocals.wav", F_OK), 0);
}

static void test_hostile_names(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = "\"../../up\",\"..\",\"a/b\""});
    free(make_song(0.3).x);
    run("mkdir -p deep/er && cd deep/er && $B separate ../../song.wav -m ../../m.safetensors -o .",
        0, NULL);
    assert_int_equal(access("deep/er/song/.._.._up.wav", F_OK), 0);
    assert_int_equal(access("deep/er/song/_.wav", F_OK), 0);
    assert_int_equal(access("deep/er/song/a_b.wav", F_OK), 0);
    assert_int_equal(count_files("deep"), 1);
}

static void test_models_folder(void **state)
{
    (void)state;
    free(make_song(0.3).x);
    run("$B separate --list-models", 0, "no models yet");
    run("mkdir -p .local/share/bandsaw/models", 0, NULL);
    tiny_model_write(".local/share/bandsaw/models/small.safetensors",
                     &(tiny_model){.stems = STEMS});
    run("$B separate --list-models", 0, "small");
    run("$B separate song.wav -o out1", 0, "vocals.wav");
    tiny_model_write(".local/share/bandsaw/models/other.safetensors", &(tiny_model){0});
    run_bad("$B separate song.wav -o out", 1, "2 models");
    run("$B separate song.wav -o out2 --model small", 0, "vocals.wav");
    run_bad("$B separate song.wav -o out --model smal", 1, "no model of this name");
    run("XDG_DATA_HOME=$HOME/elsewhere $B separate --list-models --json", 0, NULL);
}

/* Kill it in the middle; run it again; the result is that of a run that was left alone. */
static void interrupt_with(int number, int code)
{
    pid_t pid = start("exec $B separate song.wav -m m.safetensors -o out --threads 1 --overlap 32");
    for (int i = 0; i < 1000 && count_files("out/song") < 2; i++)
        usleep(10000);
    usleep(100000);
    kill(pid, number);
    result r = finish(pid);
    assert_int_equal(r.code, code);
    drop(r);
    assert_int_not_equal(access("out/song/vocals.wav", F_OK), 0);
    if (number != SIGKILL)
        assert_int_not_equal(access("out/song", F_OK), 0);
}

static void test_interrupted(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    free(make_song(20).x);
    interrupt_with(SIGINT, 130);
    interrupt_with(SIGTERM, 130);
    interrupt_with(SIGKILL, 128 + SIGKILL);
    assert_true(count_files("out/song") > 0);
    run("$B separate song.wav -m m.safetensors -o out --threads 1 --overlap 32", 0, NULL);
    run("$B separate song.wav -m m.safetensors -o alone --overlap 32", 0, NULL);
    assert_same_file("out/song/vocals.wav", "alone/song/vocals.wav");
    assert_same_file("out/song/other.wav", "alone/song/other.wav");
    assert_int_equal(count_files("out/song"), 2); /* nothing of the killed run */
}

/* ---- how it is computed ---------------------------------------------------------------------- */

static void test_bits(void **state)
{
    (void)state;
    static const char *const flags[] = {"--batch 2", "--batch 5 --threads 2", "--threads 3"};
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    free(make_song(4.2).x);
    run("$B separate song.wav -m m.safetensors -o ref --threads 1", 0, NULL);
    for (int i = 0; i < 3; i++) {
        char line[256];
        snprintf(line, sizeof line, "$B separate song.wav -m m.safetensors -o out --overwrite %s",
                 flags[i]);
        run(line, 0, NULL);
        assert_same_file("ref/song/vocals.wav", "out/song/vocals.wav");
        assert_same_file("ref/song/other.wav", "out/song/other.wav");
    }
}

/* A file with its channels swapped or its sign turned. */
static audio changed(const audio *a, bool swap, float sign)
{
    audio b = *a;
    b.x = malloc(values(a) * sizeof(float));
    for (size_t i = 0; i < values(a); i++)
        b.x[i] = sign * a->x[swap ? i ^ 1 : i];
    return b;
}

static void test_tta(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    audio in = make_song(1.4), swapped = changed(&in, true, 1), turned = changed(&in, false, -1);
    save_wav(&swapped, "swapped.wav");
    save_wav(&turned, "turned.wav");
    run("$B separate song.wav swapped.wav turned.wav -m m.safetensors -o out", 0, NULL);
    run("$B separate song.wav -m m.safetensors -o tta --tta", 0, NULL);
    audio a = load("out/song/other.wav"), b = load("out/swapped/other.wav"),
          c = load("out/turned/other.wav");
    audio got = load("tta/song/other.wav"), want = changed(&a, false, 1);
    for (size_t i = 0; i < values(&a); i++)
        want.x[i] = (a.x[i] + b.x[i ^ 1] - c.x[i]) / 3;
    assert_true(test_snr_db(got.x, want.x, values(&a)) > 110);
    assert_true(test_snr_db(got.x, a.x, values(&a)) < 60); /* and it is not what one pass gives */
    audio *all[] = {&in, &swapped, &turned, &a, &b, &c, &got, &want};
    for (int i = 0; i < 8; i++)
        free(all[i]->x);
}

static void test_ensemble(void **state)
{
    (void)state;
    tiny_model_write("a.safetensors", &(tiny_model){.stems = "\"vocals\",\"bass\""});
    tiny_model_write("b.safetensors",
                     &(tiny_model){.stems = "\"vocals\"", .salt = "b", .chunk_samples = 30000});
    tiny_model_write("c.safetensors",
                     &(tiny_model){.stems = "\"x\",\"vocals\"", .salt = "c", .rate_hz = 22050});
    tiny_model_write("d.safetensors", &(tiny_model){.stems = "\"x\""});
    audio in = make_audio(44100, 2, 44100 * 2 + 5, 20000);
    save_wav(&in, "song.wav");
    run("for m in a b c; do $B separate song.wav -m $m.safetensors --stems vocals -o $m || exit 1; "
        "done",
        0, NULL);
    audio m[] = {load("a/song/vocals.wav"), load("b/song/vocals.wav"), load("c/song/vocals.wav")};
    audio want = changed(&in, false, 1);
    static const char *const kinds[] = {"mean_wave --weights 1,2,5", "median_wave", "min_wave",
                                        "max_wave"};
    for (int k = 0; k < 4; k++) {
        char line[256];
        for (size_t i = 0; i < values(&in); i++) {
            float x = m[0].x[i], y = m[1].x[i], z = m[2].x[i], f[] = {x, y, z};
            if (k == 0)
                want.x[i] = (x + 2 * y + 5 * z) / 8;
            if (k == 1)
                want.x[i] = fmaxf(fminf(x, y), fminf(fmaxf(x, y), z));
            for (int j = k > 1 ? 0 : 3; j < 3; j++)
                if (j == 0 || (fabsf(f[j]) < fabsf(want.x[i])) == (k == 2))
                    want.x[i] = f[j];
        }
        snprintf(line, sizeof line,
                 "$B separate song.wav -m a.safetensors -m b.safetensors -m c.safetensors -o out "
                 "--overwrite "
                 "--residual rest --ensemble %s",
                 kinds[k]);
        run(line, 0, NULL);
        audio got = load("out/song/vocals.wav"), rest = load("out/song/rest.wav");
        assert_same_shape(&got, &in);
        assert_true(test_snr_db(got.x, want.x, values(&in)) > 110);
        for (size_t i = 0; i < values(&in); i++)
            assert_true(fabsf(got.x[i] + rest.x[i] - in.x[i]) < 1e-6f);
        assert_int_equal(count_files("out/song"), 2);
        free(got.x);
        free(rest.x);
    }
    /* The same model twice is that model, also through spectrograms. */
    static const char *const mags[] = {"mean_mag", "median_mag", "min_mag", "max_mag"};
    for (int k = 0; k < 4; k++) {
        char line[256];
        snprintf(line, sizeof line,
                 "$B separate song.wav -m b.safetensors -m b.safetensors -o mag --overwrite "
                 "--ensemble %s",
                 mags[k]);
        run(line, 0, NULL);
        audio got = load("mag/song/vocals.wav");
        assert_same_shape(&got, &m[1]);
        assert_true(test_snr_db(got.x, m[1].x, values(&in)) > 100);
        free(got.x);
    }
    run_bad("$B separate song.wav -m b.safetensors -m d.safetensors --ensemble mean_wave -o none",
            1, "no stem in common");
    run_bad("$B separate song.wav -m a.safetensors -m b.safetensors --stems bass --ensemble "
            "mean_wave -o none",
            1, "b.safetensors: has no stem bass");
    for (int i = 0; i < 3; i++)
        free(m[i].x);
    free(want.x);
    free(in.x);
}

static long peak_kb(const char *line)
{
    result r = finish(start(line));
    if (r.code)
        fail_msg("%s: %s", line, r.err);
    drop(r);
    return r.peak_kb;
}

static void test_constant_memory(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its own memory grows with the number of allocations */
#endif
    tiny_model_write("m.safetensors", &(tiny_model){.rate_hz = 8000, .mono = true, .stems = STEMS});
    tiny_model_write("n.safetensors",
                     &(tiny_model){.rate_hz = 8000, .mono = true, .stems = STEMS, .salt = "n"});
    audio a = make_audio(8000, 1, 8000 * 600, 8000);
    save_wav(&a, "long.wav");
    a.frames /= 10;
    save_wav(&a, "short.wav");
    free(a.x);
    static const char *const flags[] = {
        "-m m.safetensors --residual rest",
        "-m m.safetensors -m n.safetensors --ensemble max_mag --format flac"};
    for (int i = 0; i < 2; i++) {
        char line[256];
        snprintf(line, sizeof line, "exec $B separate short.wav -o out%d %s", i, flags[i]);
        long one = peak_kb(line);
        snprintf(line, sizeof line, "exec $B separate long.wav -o out%d %s", i, flags[i]);
        long ten = peak_kb(line);
        if (ten > one * 1.05)
            fail_msg("60 s need %ld kB, 600 s %ld kB (%s)", one, ten, flags[i]);
    }
}

/* ---- json, inspect, convert ------------------------------------------------------------------ */

static json_t *json_line(const char **text)
{
    size_t n = strcspn(*text, "\n");
    json_error_t e;
    json_t *line = json_loadb(*text, n, JSON_REJECT_DUPLICATES, &e);
    if (!line)
        fail_msg("no JSON: %.*s: %s", (int)n, *text, e.text);
    *text += n + ((*text)[n] == '\n');
    return line;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static void test_json(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS, .without_config = true});
    write_text("c.json", tiny_model_config(&(tiny_model){.stems = STEMS}));
    free(make_song(1).x);
    run("cp song.wav 'a \"quoted\" name.wav'; cp song.wav $(printf 'latin\\351.wav'); head -c 5000 "
        "song.wav > cut.wav",
        0, NULL);
    result r = finish(start("$B separate *.wav -m m.safetensors --config c.json -o out --json"));
    assert_int_equal(r.code, 1);
    const char *p = r.out;
    json_t *line = json_line(&p);
    assert_string_equal(text_of(line, "type"), "model");
    assert_string_equal(text_of(line, "architecture"), "bs_roformer");
    json_decref(line);
    int done = 0, failed = 0;
    for (int i = 0; i < 4; i++) {
        line = json_line(&p);
        assert_string_equal(text_of(line, "type"), "file");
        if (!strcmp(text_of(line, "status"), "failed")) {
            assert_string_equal(text_of(line, "input"), "cut.wav");
            assert_non_null(strstr(text_of(line, "error"), "cut.wav"));
            failed++;
        } else {
            json_t *outputs = json_object_get(line, "outputs");
            assert_int_equal(json_array_size(outputs), 2);
            assert_int_equal(
                json_integer_value(json_object_get(json_array_get(outputs, 1), "frames")), 44100);
            assert_int_equal(json_integer_value(json_object_get(line, "frames")), 44100);
            assert_true(json_real_value(json_object_get(line, "times_real_time")) > 0);
            assert_true(json_integer_value(json_object_get(line, "memory_bytes")) > 0);
            done++;
        }
        json_decref(line);
    }
    line = json_line(&p);
    assert_string_equal(text_of(line, "type"), "summary");
    assert_int_equal(json_integer_value(json_object_get(line, "done")), done);
    assert_int_equal(json_integer_value(json_object_get(line, "failed")), failed);
    assert_int_equal(done, 3);
    json_decref(line);
    assert_int_equal(*p, 0);
    drop(r);
    run("$B separate song.wav -m m.safetensors --config c.json -o out --json", 0,
        "\"status\":\"skipped\"");
}

static void test_inspect(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS});
    run("$B inspect m.safetensors", 0, "BS-RoFormer");
    run("$B inspect m.safetensors", 0, "vocals, other");
    run("$B inspect m.safetensors", 0, "assumed: nothing");
    run("$B inspect m.safetensors --plan", 0, "attention");
    run("$B inspect m.safetensors --set audio.sample_rate=32000", 0, "32000 Hz");
    run_bad("$B separate m.safetensors -m m.safetensors --set depth", 1, "KEY=VALUE");
    result r = finish(start("$B inspect m.safetensors --json --tensors --plan"));
    const char *p = r.out;
    json_t *line = json_line(&p);
    assert_string_equal(text_of(line, "architecture"), "bs_roformer");
    assert_int_equal(json_integer_value(json_object_get(line, "rate_hz")), 44100);
    assert_int_equal(json_array_size(json_object_get(line, "tensors")),
                     json_integer_value(json_object_get(line, "tensor_count")));
    assert_true(json_integer_value(json_object_get(json_object_get(line, "memory_bytes"), "bf16")) >
                0);
    json_decref(line);
    drop(r);
    /* FNV-1a-64 of the four bytes of 1.0f, from its definition. */
    uint8_t one[] = {0, 0, 0x80, 0x3f};
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < 4; i++)
        h = (h ^ one[i]) * 0x100000001b3u;
    char header[] = "{\"thing\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", sum[32];
    uint64_t n = strlen(header);
    FILE *f = fopen("thing.safetensors", "wb");
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, n, f);
    fwrite(one, 1, 4, f);
    fclose(f);
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)h);
    run("$B inspect thing.safetensors", 0, sum);
    run("$B inspect thing.safetensors", 0, "not a separation model that bandsaw knows");
}

static off_t size_of(const char *path)
{
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return s.st_size;
}

static void test_convert(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        double db;
    } cases[] = {{"f32", 200}, {"f16", 60}, {"bf16", 40}, {"int8", 30}};
    tiny_model_write("m.safetensors", &(tiny_model){.stems = STEMS, .without_config = true});
    write_text("c.json", tiny_model_config(&(tiny_model){.stems = STEMS}));
    free(make_song(1).x);
    run("$B separate song.wav -m m.safetensors --config c.json -o ref", 0, NULL);
    audio want = load("ref/song/other.wav");
    for (int i = 0; i < 4; i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "$B convert m.safetensors %s.safetensors --config c.json --dtype %s && $B "
                 "separate song.wav -m "
                 "%s.safetensors -o %s",
                 cases[i].dtype, cases[i].dtype, cases[i].dtype, cases[i].dtype);
        run(line, 0, NULL);
        snprintf(line, sizeof line, "%s/song/other.wav", cases[i].dtype);
        audio got = load(line);
        double db = test_snr_db(got.x, want.x, values(&want));
        if (db < cases[i].db)
            fail_msg("%s: %.1f dB", cases[i].dtype, db);
        assert_int_equal(i == 0, db > 200);
        free(got.x);
    }
    assert_true(size_of("int8.safetensors") < size_of("bf16.safetensors"));
    assert_true(size_of("bf16.safetensors") < size_of("f32.safetensors"));
    /* Converting what was converted changes nothing more. */
    run("$B convert int8.safetensors again.safetensors --dtype int8 && $B convert int8.safetensors "
        "wide.safetensors",
        0, NULL);
    assert_same_file("int8.safetensors", "again.safetensors");
    run("$B separate song.wav -m wide.safetensors -o wide --precision f32; "
        "$B separate song.wav -m int8.safetensors -o narrow --precision f32",
        0, NULL);
    assert_same_file("wide/song/other.wav", "narrow/song/other.wav");
    free(want.x);
}

static void test_bench(void **state)
{
    (void)state;
    tiny_model_write("m.safetensors", &(tiny_model){0});
    result r = finish(start("$B bench --model m.safetensors --runs 1 --threads 1 --json"));
    const char *p = r.out;
    int lines = 0;
    for (; *p; lines++) {
        json_t *line = json_line(&p);
        assert_true(json_number_value(json_object_get(line, "gflops")) > 0);
        json_decref(line);
    }
    assert_int_equal(lines, 6);
    assert_int_equal(r.code, 0);
    drop(r);
}

static void test_evaluate(void **state)
{
    (void)state;
    audio a = make_audio(44100, 2, 50000, 8000);
    run("mkdir -p ref/song est/song", 0, NULL);
    save_wav(&a, "ref/song/a, b.wav");
    for (sf_count_t i = 0; i < a.frames * a.channels; i++)
        a.x[i] *= 0.5f; /* 20 log10(2) */
    save_wav(&a, "est/song/a, b.wav");
    free(a.x);
    run("$B evaluate -r ref -e est --metrics chunk_sdr,sdr --csv s.csv", 0,
        "\n  a, b                     6.021     6.021\n");
    char *csv = read_text("s.csv");
    assert_string_equal(csv, "song,stem,sdr,chunk_sdr\nsong,\"a, b\",6.020600,6.020600\n");
    free(csv);
    result r = finish(start("$B evaluate -r ref -e est --json"));
    const char *p = r.out;
    json_t *row = json_line(&p), *summary = json_line(&p);
    assert_string_equal(json_string_value(json_object_get(row, "stem")), "a, b");
    assert_true(fabs(json_number_value(json_object_get(row, "isr")) - 6.0206) < 1e-3);
    assert_string_equal(json_string_value(json_object_get(row, "sir")), "inf");
    assert_string_equal(json_string_value(json_object_get(summary, "type")), "summary");
    assert_true(*p == 0);
    json_decref(row);
    json_decref(summary);
    drop(r);
    run("cp 'ref/song/a, b.wav' ref/song/c.wav; $B evaluate -r ref -e est --metrics snr", 1,
        "ref/song/c.wav: left out, its estimate est/song/c.* is missing");
    run_bad("$B evaluate -r ref", 2, "two folders are wanted");
    run_bad("$B evaluate -r ref -e est --metrics sdr,bleadless", 2, "did you mean bleedless?");
    run_bad("$B evaluate -r ref -e est --sum x", 1, "the sum x makes no sense");
    run_bad("$B evaluate -r ref/song -e est", 1, "would be est/a, b.wav");
    run_bad("$B evaluate -r ref -e nowhere", 1, "nowhere: cannot be opened");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, enter, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(test_help),
                                       CASE(test_bash_completion),
                                       CASE(test_usage_errors),
                                       CASE(test_bad_audio),
                                       CASE(test_bad_models),
                                       CASE(test_bad_places),
                                       CASE(test_identity),
                                       CASE(test_formats),
                                       CASE(test_residual),
                                       CASE(test_section),
                                       CASE(test_pipes),
                                       CASE(test_folders),
                                       CASE(test_hostile_names),
                                       CASE(test_models_folder),
                                       CASE(test_interrupted),
                                       CASE(test_bits),
                                       CASE(test_tta),
                                       CASE(test_ensemble),
                                       CASE(test_constant_memory),
                                       CASE(test_json),
                                       CASE(test_inspect),
                                       CASE(test_convert),
                                       CASE(test_bench),
                                       CASE(test_evaluate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
