/* Int arguments with rubbish in their upper halves: upper_bits BOX SECRET
 *
 * For each case the call is made with x, x | 1<<32 and x | 0xffffffff00000000; printed: `name errno errno errno` (0: done).
 * Cases named ! must be refused by the policy of the test in all three forms.
 */
#include "payload.h"
#include <linux/openat2.h>

static char box[4096], secret[4096], flag[4096], kept[4096], directory[4096], fresh[4096];

static long variant(long x, int i) {
    uint64_t low = (uint32_t)x;
    return (long)(i == 0 ? (uint64_t)x : i == 1 ? low | 1ULL << 32 : low | 0xffffffff00000000ULL);
}

static int code(long rc) {
    int result = rc < 0 ? errno : 0;
    if (rc > 2)
        close((int)rc);
    return result;
}

#define CASE(name, setup, x, call)                                                                                     \
    do {                                                                                                               \
        int seen[3];                                                                                                   \
        for (int i = 0; i < 3; i++) {                                                                                  \
            setup;                                                                                                     \
            long v = variant((long)(x), i);                                                                            \
            seen[i] = code(call);                                                                                      \
        }                                                                                                              \
        sayf("%s %d %d %d", name, seen[0], seen[1], seen[2]);                                                          \
    } while (0)

static void opens(void) {
    CASE("!open-flags-write", , O_WRONLY, syscall(SYS_open, kept, v, 0));
    CASE("!open-flags-trunc", , O_RDONLY | O_TRUNC, syscall(SYS_open, kept, v, 0));
    CASE("!open-secret", , O_RDONLY, syscall(SYS_open, flag, v, 0));
    CASE("!openat-secret-dirfd", , AT_FDCWD, syscall(SYS_openat, v, flag, O_RDONLY));
    CASE("!creat-secret-mode", , 0600, syscall(SYS_creat, flag, v));
    CASE("open-flags-read", , O_RDONLY, syscall(SYS_open, kept, v, 0));
    CASE("openat-dirfd-cwd", , AT_FDCWD, syscall(SYS_openat, v, "aaaa", O_RDONLY));
    CASE("openat-bad-dirfd", , 999, syscall(SYS_openat, v, "aaaa", O_RDONLY));
    CASE("open-mode", unlink(fresh), 0640, syscall(SYS_open, fresh, O_CREAT | O_EXCL | O_WRONLY, v));
    CASE("open-excl", , O_CREAT | O_EXCL, syscall(SYS_open, kept, v, 0600));
    CASE("open-directory", , O_DIRECTORY, syscall(SYS_open, kept, v, 0));
    CASE("open-nofollow", , O_NOFOLLOW, syscall(SYS_open, "link", v, 0));
}

static void looks(void) {
    struct stat st;
    struct statx stx;
    char text[256];
    int here = open(box, O_RDONLY | O_DIRECTORY);
    CASE("!stat-secret-flags", , AT_SYMLINK_NOFOLLOW, syscall(SYS_newfstatat, AT_FDCWD, flag, &st, v));
    CASE("newfstatat-flags", , AT_SYMLINK_NOFOLLOW, syscall(SYS_newfstatat, AT_FDCWD, "dangling", &st, v));
    CASE("newfstatat-bad-flags", , 0x40000000, syscall(SYS_newfstatat, AT_FDCWD, "aaaa", &st, v));
    CASE("newfstatat-dirfd", , here, syscall(SYS_newfstatat, v, "aaaa", &st, 0));
    CASE("statx-flags", , AT_SYMLINK_NOFOLLOW, syscall(SYS_statx, AT_FDCWD, "dangling", v, STATX_BASIC_STATS, &stx));
    CASE("statx-mask", , STATX_BASIC_STATS, syscall(SYS_statx, AT_FDCWD, "aaaa", 0, v, &stx));
    CASE("statx-bad-mask", , 0x80000000, syscall(SYS_statx, AT_FDCWD, "aaaa", 0, v, &stx));
    CASE("access-mode", , X_OK, syscall(SYS_access, "aaaa", v));
    CASE("access-bad-mode", , 8, syscall(SYS_access, "aaaa", v));
    CASE("faccessat-mode", , R_OK, syscall(SYS_faccessat, AT_FDCWD, "aaaa", v));
    CASE("faccessat2-flags", , AT_SYMLINK_NOFOLLOW, syscall(SYS_faccessat2, AT_FDCWD, "dangling", F_OK, v));
    CASE("readlink-size", , 64, syscall(SYS_readlink, "dangling", text, v));
    CASE("readlink-zero", , 0, syscall(SYS_readlink, "dangling", text, v));
    CASE("fstat", , here, syscall(SYS_fstat, v, &st));
    CASE("getdents64-fd", lseek(here, 0, SEEK_SET), here, syscall(SYS_getdents64, v, text, sizeof text) < 0 ? -1 : 0);
    CASE("fchdir", , here, syscall(SYS_fchdir, v));
    close(here);
}

static void changes(void) {
    CASE("!unlinkat-removedir", , AT_REMOVEDIR, syscall(SYS_unlinkat, AT_FDCWD, directory, v));
    CASE("!mkdir-secret-mode", , 0777, syscall(SYS_mkdirat, AT_FDCWD, secret, v));
    CASE("unlinkat-bad-flags", , 0x10, syscall(SYS_unlinkat, AT_FDCWD, fresh, v));
    CASE("unlinkat-file", close(open(fresh, O_CREAT | O_WRONLY, 0600)), 0, syscall(SYS_unlinkat, AT_FDCWD, fresh, v));
    CASE("renameat2-noreplace", close(open(fresh, O_CREAT | O_WRONLY, 0600)), 1,
         syscall(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, "aaaa", v));
    CASE("renameat2-bad-flags", , 0x20, syscall(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, "aaaa", v));
    CASE("linkat-flags", unlink("hard"), AT_SYMLINK_FOLLOW, syscall(SYS_linkat, AT_FDCWD, "link", AT_FDCWD, "hard", v));
    CASE("linkat-bad-flags", , 0x20, syscall(SYS_linkat, AT_FDCWD, "link", AT_FDCWD, "hard", v));
    CASE("mkdir-mode", rmdir("made"), 0700, syscall(SYS_mkdir, "made", v));
    unlink(fresh), unlink("hard"), rmdir("made");
}

/* What a sandbox forbids by number: made in children, because a kill is an answer too. */
static void guards(void) {
    static const char *names[] = {"prctl-seccomp", "seccomp-mode", "ioctl-notif-recv"};
    for (unsigned n = 0; n < 3; n++) {
        int seen[3];
        for (int i = 0; i < 3; i++) {
            pid_t pid = fork();
            if (pid == 0) {
                long rc = n == 0   ? syscall(SYS_prctl, variant(PR_SET_SECCOMP, i), 2L, 1L, 0L, 0L)
                          : n == 1 ? syscall(SYS_seccomp, variant(1, i), 0L, 1L)
                                   : syscall(SYS_ioctl, 0L, variant(0xc0502100, i), 1L);
                _exit(rc < 0 ? errno : 0);
            }
            seen[i] = reap(pid);
        }
        sayf("%s %d %d %d", names[n], seen[0], seen[1], seen[2]);
    }
}

int main(int argc, char **argv) {
    if (argc < 3 || chdir(argv[1]) < 0)
        die("box");
    snprintf(box, sizeof box, "%s", argv[1]);
    snprintf(flag, sizeof flag, "%s/FLAG", argv[2]);
    snprintf(secret, sizeof secret, "%s/new", argv[2]);
    snprintf(kept, sizeof kept, "%s/kept", argv[1]);
    snprintf(directory, sizeof directory, "%s/directory", argv[1]);
    snprintf(fresh, sizeof fresh, "%s/fresh", argv[1]);
    opens(), looks(), changes(), guards();
    return 0;
}
