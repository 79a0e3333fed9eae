#include "support/shell.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

char *shell_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    size_t room = 0;
    ssize_t n = f ? getdelim(&text, &room, -1, f) : -1;
    if (f)
        fclose(f);
    if (n < 0) {
        free(text);
        text = strdup("");
        n = 0;
    }
    if (size)
        *size = (size_t)n;
    return text;
}

pid_t shell_start(const char *line)
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

int shell_finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void shell_run(const char *line, int code, const char *says)
{
    int got = shell_finish(shell_start(line));
    char *out = shell_read("stdout.txt", NULL), *err = shell_read("stderr.txt", NULL);
    if (got != code || (!strstr(out, says) && !strstr(err, says)))
        fail_msg("%s\nexit code %d, wanted %d and \"%s\"\nstdout: %s\nstderr: %s", line, got, code,
                 says, out, err);
    free(out);
    free(err);
}

void shell_refuse(const char *line, int code, const char *says)
{
    shell_run(line, code, says);
    char *err = shell_read("stderr.txt", NULL);
    size_t n = strcspn(err, "\n");
    if (!err[n] || err[n + 1])
        fail_msg("%s\nmore or less than one line: %s", line, err);
    free(err);
}
