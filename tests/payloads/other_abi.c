/* File calls by another door: other_abi int80|x32 DIRECTORY. One child per call; prints `name STATUS`: 0 done, 1000 + errno
 * refused, 128 + N killed. DIRECTORY has a file FLAG and room for new names.
 */
#include "payload.h"

static long int80(long nr, long a, long b, long c, long d) {
    long rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
    return (int)rc;
}

static long x32(long nr, long a, long b, long c, long d) {
    long rc = syscall(nr | 0x40000000, a, b, c, d);
    return rc < 0 ? -errno : rc;
}

#define AT ((long)AT_FDCWD)
struct trial {
    const char *name;
    long old, new, a, b, c, d;
};
static char *low; /* below 4 GiB: FLAG path, new path, stat room */
#define FLAG ((long)(uintptr_t)low)
#define NEW ((long)(uintptr_t)(low + 1024))
#define ROOM ((long)(uintptr_t)(low + 2048))

static long once(int compat, const struct trial *t) {
    long rc = compat ? int80(t->old, t->a, t->b, t->c, t->d) : x32(t->new, t->a, t->b, t->c, t->d);
    if (rc >= 0 && (!strcmp(t->name, "open") || !strcmp(t->name, "openat")))
        sayf("secret %d", is_secret((int)rc));
    return rc;
}

static void attempt(int compat, const struct trial *t) {
    int channel[2];
    long rc = 0;
    if (pipe(channel))
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        rc = once(compat, t);
        _exit(write(channel[1], &rc, sizeof rc) != sizeof rc);
    }
    close(channel[1]);
    int status = reap(pid), told = read(channel[0], &rc, sizeof rc) == sizeof rc;
    close(channel[0]);
    sayf("%s %ld", t->name, told ? (rc < 0 ? 1000 - rc : 0) : (long)status);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 97;
    low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        die("mmap");
    snprintf(low, 1000, "%s/FLAG", argv[2]);
    snprintf(low + 1024, 1000, "%s/new", argv[2]);
    const struct trial trials[] = {
        {"open", 5, SYS_open, FLAG, O_RDONLY, 0, 0},
        {"openat", 295, SYS_openat, AT, FLAG, O_RDONLY, 0},
        {"access", 33, SYS_access, FLAG, 0, 0, 0},
        {"faccessat", 307, SYS_faccessat, AT, FLAG, 0, 0},
        {"stat64", 195, SYS_stat, FLAG, ROOM, 0, 0},
        {"lstat64", 196, SYS_lstat, FLAG, ROOM, 0, 0},
        {"statx", 383, SYS_statx, AT, FLAG, 0, STATX_BASIC_STATS},
        {"mkdir", 39, SYS_mkdir, NEW, 0700, 0, 0},
        {"rmdir", 40, SYS_rmdir, NEW, 0, 0, 0},
        {"mkdirat", 296, SYS_mkdirat, AT, NEW, 0700, 0},
        {"unlinkat", 301, SYS_unlinkat, AT, NEW, AT_REMOVEDIR, 0},
        {"symlink", 83, SYS_symlink, FLAG, NEW, 0, 0},
        {"readlink", 85, SYS_readlink, NEW, ROOM, 100, 0},
        {"unlink", 10, SYS_unlink, NEW, 0, 0, 0},
        {"link", 9, SYS_link, FLAG, NEW, 0, 0},
        {"rename", 38, SYS_rename, NEW, ROOM + 512, 0, 0},
        {"creat", 8, SYS_creat, NEW, 0600, 0, 0},
        {"truncate", 92, SYS_truncate, NEW, 0, 0, 0},
        {"chdir", 12, SYS_chdir, ROOM + 1024, 0, 0, 0},
        {"execve", 11, SYS_execve, ROOM + 1536, 0, 0, 0},
    };
    snprintf(low + 2048 + 512, 400, "%s/renamed", argv[2]);
    snprintf(low + 2048 + 1024, 400, "%s", argv[2]);
    snprintf(low + 2048 + 1536, 400, "%s/program", argv[2]);
    for (unsigned i = 0; i < sizeof trials / sizeof *trials; i++)
        attempt(!strcmp(argv[1], "int80"), &trials[i]);
    return 0;
}
