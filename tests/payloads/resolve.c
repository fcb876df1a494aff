/* Performs requests and prints one line for each: resolve BOX LIST
 *
 * A request is `op directory hex-path [hex-path2]`; directory: cwd, box, d (descriptors of directories), file (of a file).
 * Printed: the errno, and on success what was found (inode, type) where the operation finds something.
 */
#include "payload.h"
#include <linux/openat2.h>

static int directory_fd[4];
static char path[16384], other[16384];

static void unhex(const char *text, char *out) {
    unsigned byte;
    for (; sscanf(text, "%2x", &byte) == 1; text += 2)
        *out++ = (char)byte;
    *out = 0;
}

static void found(long rc, const struct stat *st) {
    if (rc < 0)
        sayf("%d", errno);
    else
        sayf("0 ino %ld mode %o size %ld", (long)st->st_ino, st->st_mode, S_ISREG(st->st_mode) ? (long)st->st_size : 0);
}

/* What a descriptor is, and how it was opened. */
static void opened(long fd) {
    struct stat st;
    if (fd < 0) {
        sayf("%d", errno);
        return;
    }
    if (fstat((int)fd, &st) < 0)
        sayf("0 fstat %d", errno);
    else
        sayf("0 ino %ld mode %o cloexec %d", (long)st.st_ino, st.st_mode & S_IFMT, fcntl((int)fd, F_GETFD));
    close((int)fd);
}

static void linked(long size, const char *text) {
    if (size < 0)
        sayf("%d", errno);
    else
        sayf("0 %.*s", (int)size, text);
}

static void plain(long rc) { sayf("%d", rc < 0 ? errno : 0); }

static long open2(int at, const char *p, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags, .resolve = resolve};
    return syscall(SYS_openat2, at, p, &how, sizeof how);
}

static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static int look(const char *op, int at) {
    struct stat st;
    struct statx stx;
    char text[PATH_MAX];
    if (is(op, "stat"))
        found(syscall(SYS_newfstatat, at, path, &st, 0), &st);
    else if (is(op, "lstat"))
        found(syscall(SYS_newfstatat, at, path, &st, AT_SYMLINK_NOFOLLOW), &st);
    else if (is(op, "empty"))
        found(syscall(SYS_newfstatat, at, path, &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW), &st);
    else if (is(op, "statx") || is(op, "statx-nofollow")) {
        long rc = syscall(SYS_statx, at, path, is(op, "statx") ? 0 : AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &stx);
        if (rc < 0)
            sayf("%d", errno);
        else
            sayf("0 ino %ld mode %o", (long)stx.stx_ino, stx.stx_mode);
    } else if (is(op, "access"))
        plain(syscall(SYS_faccessat, at, path, R_OK));
    else if (is(op, "faccessat2-nofollow"))
        plain(syscall(SYS_faccessat2, at, path, F_OK, AT_SYMLINK_NOFOLLOW));
    else if (is(op, "readlink"))
        linked(syscall(SYS_readlinkat, at, path, text, sizeof text), text);
    else
        return 0;
    return 1;
}

static int get(const char *op, int at) {
    char entries[4096];
    if (is(op, "open"))
        opened(syscall(SYS_openat, at, path, O_RDONLY | O_NONBLOCK));
    else if (is(op, "opath"))
        opened(syscall(SYS_openat, at, path, O_PATH | O_CLOEXEC));
    else if (is(op, "opath-link"))
        opened(syscall(SYS_openat, at, path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    else if (is(op, "opath-nofollow"))
        opened(syscall(SYS_openat, at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    else if (is(op, "odir"))
        opened(syscall(SYS_openat, at, path, O_RDONLY | O_DIRECTORY));
    else if (is(op, "onofollow"))
        opened(syscall(SYS_openat, at, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    else if (is(op, "openat2"))
        opened(open2(at, path, O_RDONLY | O_NONBLOCK, 0));
    else if (is(op, "openat2-nosym"))
        opened(open2(at, path, O_RDONLY | O_NONBLOCK, RESOLVE_NO_SYMLINKS));
    else if (is(op, "openat2-beneath"))
        opened(open2(at, path, O_RDONLY | O_NONBLOCK, RESOLVE_BENEATH));
    else if (is(op, "getdents")) {
        long fd = syscall(SYS_openat, at, path, O_RDONLY | O_NONBLOCK);
        long rc = fd < 0 ? -1 : syscall(SYS_getdents64, fd, entries, sizeof entries);
        sayf("%d size %ld", rc < 0 ? errno : 0, rc);
        if (fd >= 0)
            close((int)fd);
    } else
        return 0;
    return 1;
}

/* Operations that must fail on what exists and that may not change it: only their errnos are compared. */
static int refuse(const char *op, int at) {
    if (is(op, "creat-excl"))
        opened(syscall(SYS_openat, at, path, O_CREAT | O_EXCL | O_DIRECTORY | O_RDWR, 0600)); /* EINVAL, or earlier */
    else if (is(op, "mkdir-excl")) {
        long rc = syscall(SYS_mkdirat, at, path, 0700);
        plain(rc);
        if (rc == 0)
            syscall(SYS_unlinkat, at, path, AT_REMOVEDIR);
    } else if (is(op, "rmdir-none"))
        plain(syscall(SYS_unlinkat, at, path, AT_REMOVEDIR | 0x10000)); /* unknown flag */
    else if (is(op, "unlink-none"))
        plain(syscall(SYS_renameat2, at, path, at, path, 0)); /* onto itself: nothing, or the errno */
    else
        return 0;
    return 1;
}

static int change(const char *op, int at) {
    if (is(op, "mkdir"))
        plain(syscall(SYS_mkdir, path, 0755));
    else if (is(op, "mkdirat"))
        plain(syscall(SYS_mkdirat, at, path, 0777));
    else if (is(op, "rmdir"))
        plain(syscall(SYS_rmdir, path));
    else if (is(op, "unlink"))
        plain(syscall(SYS_unlink, path));
    else if (is(op, "unlinkat"))
        plain(syscall(SYS_unlinkat, at, path, 0));
    else if (is(op, "unlinkat-dir"))
        plain(syscall(SYS_unlinkat, at, path, AT_REMOVEDIR));
    else if (is(op, "truncate"))
        plain(syscall(SYS_truncate, path, 10L));
    else if (is(op, "rename"))
        plain(syscall(SYS_rename, path, other));
    else if (is(op, "renameat2-noreplace"))
        plain(syscall(SYS_renameat2, at, path, at, other, 1));
    else if (is(op, "renameat2-exchange"))
        plain(syscall(SYS_renameat2, at, path, at, other, 2));
    else if (is(op, "link"))
        plain(syscall(SYS_link, path, other));
    else if (is(op, "linkat-follow"))
        plain(syscall(SYS_linkat, at, path, at, other, AT_SYMLINK_FOLLOW));
    else if (is(op, "symlink"))
        plain(syscall(SYS_symlink, path, other));
    else if (is(op, "symlinkat"))
        plain(syscall(SYS_symlinkat, path, at, other));
    else
        return 0;
    return 1;
}

static void kind(long fd) {
    plain(fd);
    if (fd >= 0)
        close((int)fd);
}

static int create(const char *op, int at) {
    if (is(op, "creat"))
        kind(syscall(SYS_open, path, O_CREAT | O_WRONLY | O_TRUNC | O_NONBLOCK, 0666));
    else if (is(op, "openexcl"))
        kind(syscall(SYS_openat, at, path, O_CREAT | O_EXCL | O_WRONLY, 0640));
    else if (is(op, "opencreat"))
        kind(syscall(SYS_openat, at, path, O_CREAT | O_RDWR | O_NONBLOCK, 0600));
    else if (is(op, "opentrunc"))
        kind(syscall(SYS_openat, at, path, O_WRONLY | O_TRUNC | O_NONBLOCK));
    else if (is(op, "tmpfile"))
        kind(syscall(SYS_openat, at, path, O_TMPFILE | O_RDWR, 0600));
    else
        return 0;
    return 1;
}

int main(int argc, char **argv) {
    char line[40000], op[64], where[16], one[20000], two[20000], name[PATH_MAX];
    FILE *file = argc > 2 ? fopen(argv[2], "r") : NULL;
    if (!file)
        die("list");
    directory_fd[0] = AT_FDCWD;
    directory_fd[1] = open(argv[1], O_RDONLY | O_DIRECTORY);
    snprintf(name, sizeof name, "%s/d", argv[1]);
    directory_fd[2] = open(name, O_RDONLY | O_DIRECTORY);
    snprintf(name, sizeof name, "%s/file", argv[1]);
    directory_fd[3] = open(name, O_RDONLY);
    while (fgets(line, sizeof line, file)) {
        one[0] = two[0] = 0;
        sscanf(line, "%63s %15s %19999s %19999s", op, where, one, two);
        unhex(one, path), unhex(two, other);
        int at = directory_fd[is(where, "box") ? 1 : is(where, "d") ? 2 : is(where, "file") ? 3 : 0];
        if (!look(op, at) && !get(op, at) && !refuse(op, at) && !change(op, at) && !create(op, at))
            die(op);
    }
    return 0;
}
