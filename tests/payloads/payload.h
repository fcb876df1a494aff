/* What every payload shares: a clock, `key value` output, and the sign by which a secret is known.
 *
 * A secret regular file has mode 0646 and starts with "FLAG{"; nothing else in an arena has that mode. Payloads use raw
 * system calls where the call itself is under test, so that libc cannot turn one call into another.
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECRET_MODE 0646
#define UNUSED __attribute__((unused))

static UNUSED double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Lines are written whole by one write(2): several processes may share the pipe. */
static UNUSED void sayf(const char *format, ...) {
    char line[8192];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (size > (int)sizeof line - 2)
        size = (int)sizeof line - 2;
    line[size++] = '\n';
    if (write(1, line, (size_t)size) != size)
        _exit(98);
}

static UNUSED void say(const char *key, long value) { sayf("%s %ld", key, value); }

static UNUSED void die(const char *what) {
    fprintf(stderr, "payload: %s: %s\n", what, strerror(errno));
    _exit(97);
}

/* 1 if the descriptor is a secret, by mode or by content. */
static UNUSED int is_secret(int fd) {
    struct stat st;
    char text[8] = "";
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == SECRET_MODE)
        return 1;
    return pread(fd, text, 5, 0) == 5 && memcmp(text, "FLAG{", 5) == 0;
}

/* 1 if the file can be opened for reading and is the secret; -errno if it cannot be opened. */
static UNUSED int reads_secret(const char *path) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int secret = is_secret(fd);
    close(fd);
    return secret;
}

/* Exit status the shell's way: code, or 128 + signal. */
static UNUSED int reap(pid_t pid) {
    int status;
    while (waitpid(pid, &status, __WALL) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif
