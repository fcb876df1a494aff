/* Opening at the descriptor limit: fd_limit FILE. Prints errnos: at 3, at 0, and what works again after. */
#include "payload.h"
static void at_limit(const char *name, rlim_t limit, const char *path) {
    struct rlimit old, new;
    if (getrlimit(RLIMIT_NOFILE, &old))
        die("getrlimit");
    new = old;
    new.rlim_cur = limit;
    if (setrlimit(RLIMIT_NOFILE, &new))
        die("setrlimit");
    double start = now();
    int fd = (int)syscall(SYS_open, path, O_RDONLY), error = fd < 0 ? errno : 0;
    int created = (int)syscall(SYS_open, "created", O_CREAT | O_EXCL | O_WRONLY, 0600), created_error = created < 0 ? errno : 0;
    struct stat st;
    int seen = stat(path, &st) ? errno : 0;
    setrlimit(RLIMIT_NOFILE, &old);
    sayf("%s.open %d\n%s.create %d\n%s.stat %d\n%s.left %d", name, error, name, created_error, name, seen, name,
         access("created", F_OK) == 0);
    unlink("created");
    if (now() - start > 5)
        say("slow", 1);
}
int main(int argc, char **argv) {
    if (argc < 2)
        return 97;
    close_range(3, ~0U, 0);
    for (int i = 0; i < 20; i++) {
        at_limit("three", 3, argv[1]);
        at_limit("zero", 0, argv[1]);
    }
    int fd = open(argv[1], O_RDONLY);
    sayf("after.open %d", fd < 0 ? errno : 0);
    say("after.fd", fd);
    return 0;
}
