/*
 * csv.c - a table (RFC 4180) whose first line names the columns path and stem (or instrum), and
 * song or not; others are passed over. Paths are relative to the table. Without a song each file is
 * one by itself.
 */
#include "datasets/layout.h"

#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_COLUMNS = 32, MAX_BYTES = 64 << 20 };

static bool recognise(const saw_findings *hints, const char *path)
{
    struct stat st;
    (void)hints;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* Take a line apart in place; returns the number of its fields, 0 at the end of the text, -1 when a
 * quote is not closed. */
static int read_line(char **text, char *fields[MAX_COLUMNS])
{
    int count = 0;
    char *p = *text;
    if (!*p)
        return 0;
    for (bool more = true; more; p++) {
        char *to = p;
        if (count < MAX_COLUMNS)
            fields[count++] = p;
        if (*p == '"') {
            for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
                p += *p == '"';
                *to++ = *p;
            }
            if (!*p++)
                return -1;
        }
        while (*p && *p != ',' && *p != '\n') {
            if (*p != '\r')
                *to++ = *p;
            p++;
        }
        more = *p == ',';
        bool last = !*p;
        *to = 0;
        if (last)
            break;
    }
    *text = p;
    return count;
}

static int find_column(char *const *fields, int count, const char *a, const char *b)
{
    for (int i = 0; i < count; i++)
        if (!strcasecmp(fields[i], a) || (b && !strcasecmp(fields[i], b)))
            return i;
    return -1;
}

static saw_status add_row(saw_findings *f, const char *folder, int folder_length, char *path,
                          const char *stem, const char *song)
{
    size_t length = song && *song ? strlen(song) : saw_name_length(path);
    char *file = *path == '/' ? saw_strdup(f->ctx, path)
                              : saw_format(f->ctx, "%.*s%s", folder_length, folder, path);
    saw_status status =
        file ? saw_findings_add(f, song && *song ? song : path, length, stem, strlen(stem), file)
             : SAW_ERR_MEMORY;
    saw_free(f->ctx, file);
    return status;
}

static saw_status find(saw_findings *f, const char *path)
{
    char *text, *fields[MAX_COLUMNS];
    size_t size;
    saw_status status = saw_read_all(f->ctx, path, MAX_BYTES, &text, &size);
    if (status)
        return status;
    const char *slash = strrchr(path, '/');
    int folder_length = slash ? (int)(slash + 1 - path) : 0;
    char *p = text + (!strncmp(text, "\xef\xbb\xbf", 3) ? 3 : 0);
    int count = read_line(&p, fields), line = 1;
    int path_at = find_column(fields, count, "path", NULL);
    int stem_at = find_column(fields, count, "stem", "instrum");
    int song_at = find_column(fields, count, "song", NULL);
    if (path_at < 0 || stem_at < 0)
        status = saw_fail(f->ctx, SAW_ERR_FORMAT,
                          "%s: is no table of audio files: its first line must name the columns "
                          "path and stem (and song, where stems belong together)",
                          path);
    while (!status && (count = read_line(&p, fields))) {
        line++;
        if (count == 1 && !*fields[0])
            continue;
        if (count <= path_at || count <= stem_at || !*fields[path_at] || !*fields[stem_at])
            status =
                saw_fail(f->ctx, SAW_ERR_FORMAT, "%s: row %d has no path or no stem", path, line);
        else
            status = add_row(f, path, folder_length, fields[path_at], fields[stem_at],
                             song_at >= 0 && song_at < count ? fields[song_at] : NULL);
    }
    saw_free(f->ctx, text);
    return status;
}

const saw_layout saw_layout_csv = {
    "csv", "a table with the columns path, stem and, where stems belong together, song", recognise,
    find};
