/* Path strings at the edges of memory, by every path call: strings DIRECTORY FILE
 *
 * A string that ends on the last byte of the last mapped page, with and without its NUL; one that crosses a page; one that
 * begins in an unmapped page; lengths 4094..4097. Prints `call.case ERRNO`.
 */
#include "payload.h"
#include <linux/openat2.h>

static char room[8192], dots[8192];

static long by(int which, const char *p) {
    static struct stat st;
    static struct statx stx;
    static char *none[] = {NULL};
    struct open_how how = {0};
    switch (which) {
    case 0: return syscall(SYS_open, p, O_RDONLY);
    case 1: return syscall(SYS_openat, AT_FDCWD, p, O_RDONLY);
    case 2: return syscall(SYS_openat2, AT_FDCWD, p, &how, sizeof how);
    case 3: return syscall(SYS_stat, p, &st);
    case 4: return syscall(SYS_lstat, p, &st);
    case 5: return syscall(SYS_newfstatat, AT_FDCWD, p, &st, 0);
    case 6: return syscall(SYS_statx, AT_FDCWD, p, 0, STATX_BASIC_STATS, &stx);
    case 7: return syscall(SYS_access, p, R_OK);
    case 8: return syscall(SYS_faccessat, AT_FDCWD, p, R_OK);
    case 9: return syscall(SYS_faccessat2, AT_FDCWD, p, R_OK, 0);
    case 10: return syscall(SYS_readlink, p, room, sizeof room);
    case 11: return syscall(SYS_readlinkat, AT_FDCWD, p, room, sizeof room);
    case 12: return syscall(SYS_chdir, p);
    case 13: return syscall(SYS_mkdir, p, 0700);
    case 14: return syscall(SYS_mkdirat, AT_FDCWD, p, 0700);
    case 15: return syscall(SYS_rmdir, p);
    case 16: return syscall(SYS_unlink, p);
    case 17: return syscall(SYS_unlinkat, AT_FDCWD, p, AT_REMOVEDIR);
    case 18: return syscall(SYS_rename, p, "a/b/c/none");
    case 19: return syscall(SYS_rename, "none", p);
    case 20: return syscall(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, p, 1);
    case 21: return syscall(SYS_link, p, "a/b/c/none");
    case 22: return syscall(SYS_linkat, AT_FDCWD, "none", AT_FDCWD, p, 0);
    case 23: return syscall(SYS_symlink, "x", p);
    case 24: return syscall(SYS_symlinkat, p, AT_FDCWD, "a/b/c/none");
    case 25: return syscall(SYS_truncate, p, -1L);
    case 26: return syscall(SYS_execve, p, none, none);
    case 27: return syscall(SYS_execveat, AT_FDCWD, p, none, none, 0);
    default: return syscall(SYS_creat, p, 0600);
    }
}
static const char *names[] = {
    "open", "openat", "openat2", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat", "chdir", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "rename-to", "renameat2", "link",
    "linkat", "symlink", "symlinkat", "truncate", "execve", "execveat", "creat",
};

static void each(const char *what, const char *p, int whole) {
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (whole && i == 16)
            continue; /* would remove the file */
        long rc = by((int)i, p);
        sayf("%s.%s %d", names[i], what, rc < 0 ? errno : 0);
        if (rc > 2)
            close((int)rc);
        if (rc == 0 && (i == 13 || i == 14))
            rmdir(p);
        if (rc == 0 && i == 23)
            unlink(p);
    }
}

/* "././…/name" of exactly `size` characters. */
static const char *long_path(size_t size, const char *name) {
    memset(dots, 0, sizeof dots);
    size_t tail = strlen(name), at = 0;
    while (at + 2 + tail <= size)
        memcpy(dots + at, "./", 2), at += 2;
    while (at + tail < size)
        dots[at++] = '/';
    strcpy(dots + at, name);
    return dots;
}

int main(int argc, char **argv) {
    char what[64];
    if (argc < 3 || chdir(argv[1]))
        return 97;
    const char *file = argv[2];
    size_t size = strlen(file);
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || munmap(pages + 2 * 4096, 4096))
        die("pages");
    char *edge = pages + 2 * 4096;
    memcpy(edge - size - 1, file, size + 1);
    each("ends-with-nul", edge - size - 1, 1);
    memcpy(edge - size, file, size);
    each("ends-without-nul", edge - size, 0);
    memcpy(pages + 4096 - size / 2, file, size + 1);
    each("crosses-page", pages + 4096 - size / 2, 1);
    each("unmapped", edge, 0);
    each("last-byte", edge - 1, 0);
    memset(pages, '/', 2 * 4096);
    each("endless-slashes", pages, 0);
    memset(pages, 'x', 2 * 4096);
    each("endless-name", pages, 0);
    for (size_t length = 4094; length <= 4097; length++) {
        snprintf(what, sizeof what, "length-%zu", length);
        each(what, long_path(length, "aaaa"), 1);
        memcpy(edge - length, dots, length);
        snprintf(what, sizeof what, "length-%zu-at-the-edge", length);
        each(what, edge - length, 0);
    }
    return 0;
}
