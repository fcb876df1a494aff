/* edits COUNT CALLERS FILE: the rules change COUNT times, and every caller looks after each change.
 *
 * Edit n (odd: deny, even: the denial is taken back) is made by caller n % CALLERS through stat("/dev/syd/...").
 * Once it is answered its number is published; every caller then makes one call that must be judged by it, in
 * turns stat(2) and open(2) of FILE, and one stat that began before or after, whichever, of /. A wrong result is counted.
 * Prints: edits, failed (edits that were refused), wrong, seconds.
 */
#include "payload.h"
#include <linux/futex.h>

struct shared {
    _Atomic int answered, done, wrong, failed, seen;
};

static void wake(_Atomic int *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

static void until(_Atomic int *word, int least) {
    for (int have; (have = *word) < least;)
        syscall(SYS_futex, word, FUTEX_WAIT, have, NULL, NULL, 0);
}

static int denied(int n, const char *file) {
    struct stat status;
    if (n & 2)
        return syscall(SYS_stat, file, &status) < 0 && errno == ENOENT;
    int fd = (int)syscall(SYS_open, file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 1 : 2; /* EACCES would be half of the edit: read is denied, stat is not */
    close(fd);
    return 0;
}

static void caller(struct shared *s, int me, int count, int callers, const char *file) {
    char command[2][PATH_MAX + 64];
    struct stat status;
    snprintf(command[0], sizeof *command, "/dev/syd/deny/read,stat-%s", file);
    snprintf(command[1], sizeof *command, "/dev/syd/deny/read,stat+%s", file);
    for (int n = 1; n <= count; n++) {
        if (n % callers == me) {
            until(&s->done, (n - 1) * callers);
            if (syscall(SYS_stat, command[n & 1], &status) || !S_ISCHR(status.st_mode))
                s->failed++;
            s->answered = n;
            wake(&s->answered);
        } else {
            until(&s->answered, n);
        }
        if (denied(n, file) != (n & 1))
            s->wrong++;
        if (++s->done == n * callers)
            wake(&s->done);
    }
}

int main(int argc, char **argv) {
    int count = atoi(argv[1]), callers = atoi(argv[2]);
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double start = now();
    for (int me = 0; me < callers; me++)
        if (!fork()) {
            caller(s, me, count, callers, argv[3]);
            _exit(0);
        }
    int status, died = 0;
    while (wait(&status) > 0)
        died += status != 0;
    printf("edits %d\nfailed %d\nwrong %d\ndied %d\nseconds %.2f\n", s->answered, s->failed, s->wrong, died,
           now() - start);
    return argc != 4 || s->wrong || s->failed || died;
}
