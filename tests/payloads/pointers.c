/* Each pointer argument of each path call with eight bad values: pointers DIRECTORY
 *
 * DIRECTORY has aaaa (a file), dir, link -> aaaa. Each call is made with its other arguments good, once naming something
 * that exists and once something that does not: which error comes first shows too. Prints `call.arg.bad.good|missing ERRNO`.
 */
#include "payload.h"
#include <linux/openat2.h>

#define AT ((long)AT_FDCWD)
struct call {
    const char *name;
    long nr, argument[6];
    const char *good; /* what exists for this call */
};
struct shape {
    struct call call;
    const char *pointer; /* per argument: n name, m second name, o output, i input, v vector, . number */
};

static struct open_how how;
static char out[4096];
static char *vector[] = {"x", NULL};

static const struct shape shapes[] = {
    {{"open", SYS_open, {0, O_RDONLY, 0}, "aaaa"}, "n..."},
    {{"openat", SYS_openat, {AT, 0, O_RDONLY}, "aaaa"}, ".n.."},
    {{"openat2", SYS_openat2, {AT, 0, 0, sizeof(struct open_how)}, "aaaa"}, ".ni."},
    {{"creat", SYS_creat, {0, 0600}, "aaaa"}, "n."},
    {{"stat", SYS_stat, {0, 0}, "aaaa"}, "no"},
    {{"lstat", SYS_lstat, {0, 0}, "link"}, "no"},
    {{"fstat", SYS_fstat, {1, 0}, "aaaa"}, ".o"},
    {{"newfstatat", SYS_newfstatat, {AT, 0, 0, 0}, "aaaa"}, ".no."},
    {{"newfstatat-empty", SYS_newfstatat, {1, 0, 0, AT_EMPTY_PATH}, ""}, ".no."},
    {{"statx", SYS_statx, {AT, 0, 0, STATX_BASIC_STATS, 0}, "aaaa"}, ".n..o"},
    {{"access", SYS_access, {0, R_OK}, "aaaa"}, "n."},
    {{"access-mode", SYS_access, {0, 0x100}, "aaaa"}, "n."},
    {{"faccessat", SYS_faccessat, {AT, 0, R_OK}, "aaaa"}, ".n."},
    {{"faccessat2", SYS_faccessat2, {AT, 0, R_OK, 0}, "aaaa"}, ".n.."},
    {{"readlink", SYS_readlink, {0, 0, 64}, "link"}, "no."},
    {{"readlink-zero", SYS_readlink, {0, 0, 0}, "link"}, "no."},
    {{"readlinkat", SYS_readlinkat, {AT, 0, 0, 64}, "link"}, ".no."},
    {{"chdir", SYS_chdir, {0}, "."}, "n"},
    {{"mkdir", SYS_mkdir, {0, 0700}, "dir"}, "n."},
    {{"mkdirat", SYS_mkdirat, {AT, 0, 0700}, "dir"}, ".n."},
    {{"rmdir", SYS_rmdir, {0}, "aaaa"}, "n"},
    {{"unlink", SYS_unlink, {0}, "dir"}, "n"},
    {{"unlinkat", SYS_unlinkat, {AT, 0, AT_REMOVEDIR}, "aaaa"}, ".n."},
    {{"rename", SYS_rename, {0, 0}, "aaaa"}, "nm"},
    {{"renameat", SYS_renameat, {AT, 0, AT, 0}, "aaaa"}, ".n.m"},
    {{"renameat2", SYS_renameat2, {AT, 0, AT, 0, 1}, "aaaa"}, ".n.m."},
    {{"link", SYS_link, {0, 0}, "aaaa"}, "nm"},
    {{"linkat", SYS_linkat, {AT, 0, AT, 0, 0}, "aaaa"}, ".n.m."},
    {{"symlink", SYS_symlink, {0, 0}, "aaaa"}, "nm"},
    {{"symlinkat", SYS_symlinkat, {0, AT, 0}, "aaaa"}, "n.m"},
    {{"truncate", SYS_truncate, {0, -1}, "aaaa"}, "n."},
    {{"execve", SYS_execve, {0, 0, 0}, "dir"}, "nvv"},
    {{"execveat", SYS_execveat, {AT, 0, 0, 0, 0}, "dir"}, ".nvv."},
    {{"getdents64", SYS_getdents64, {3, 0, 4096}, "dir"}, ".o."},
};

static char *bad[8];
static const char *bad_names[] = {"null", "minus-one", "kernel", "non-canonical", "none", "write-only", "read-only", "edge"};

static char *page(int protection) {
    char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || munmap(at + 4096, 4096) || mprotect(at, 4096, protection))
        die("page");
    return at;
}

static void prepare(void) {
    bad[0] = NULL, bad[1] = (char *)-1;
    bad[2] = (char *)0xffff888000000000, bad[3] = (char *)0x8000000000000000;
    bad[4] = page(PROT_NONE), bad[5] = page(PROT_WRITE), bad[6] = page(PROT_READ);
    bad[7] = page(PROT_READ | PROT_WRITE) + 4096 - 3; /* three bytes, then nothing: too short for any structure */
    memset(bad[7], 'z', 3);
}

/* Good values for everything but argument `spoilt`. */
static long make(const struct shape *s, int spoilt, char *value, const char *name) {
    long a[6];
    for (int i = 0; i < 6; i++) {
        char kind = i < (int)strlen(s->pointer) ? s->pointer[i] : '.';
        a[i] = kind == 'n'   ? (long)name
               : kind == 'm' ? (long)"dir/none/none"
               : kind == 'o' ? (long)out
               : kind == 'i' ? (long)&how
               : kind == 'v' ? (long)vector
                             : s->call.argument[i];
    }
    a[spoilt] = (long)value;
    return syscall(s->call.nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void try_all(const struct shape *s) {
    for (int i = 0; s->pointer[i]; i++)
        for (int b = 0; s->pointer[i] != '.' && b < 8; b++)
            for (int missing = 0; missing < 2; missing++) {
                if (s->call.nr == SYS_getdents64)
                    lseek(3, 0, SEEK_SET);
                memset(bad[5], 0, 4096), memset(bad[7], 'z', 3); /* a call before may have written there */
                long rc = make(s, i, bad[b], missing ? "nothing/here" : s->call.good);
                sayf("%s.%d.%s.%s %d", s->call.name, i, bad_names[b], missing ? "missing" : "good", rc < 0 ? errno : 0);
                if (rc > 3)
                    close((int)rc);
            }
}

int main(int argc, char **argv) {
    if (argc < 2 || chdir(argv[1]))
        return 97;
    close_range(3, ~0U, 0);
    if (open("dir", O_RDONLY | O_DIRECTORY) != 3)
        return 96;
    prepare();
    for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++)
        try_all(&shapes[i]);
    return 0;
}
