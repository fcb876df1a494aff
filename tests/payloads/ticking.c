/* Calls under a fast timer: ticking SECONDS MICROSECONDS restart|norestart DIRECTORY FILE
 *
 * Creates exclusively and unlinks, makes and removes a directory, renames back and forth, opens and stats, in 4 processes,
 * each with its own 1 kHz or faster timer. Prints ticks, calls, eexist (a call was done twice), eintr (calls that natively
 * never say so), wrong (any other failure).
 */
#include "payload.h"

struct shared {
    atomic_long ticks, calls, eexist, eintr, wrong, last;
};
static struct shared *s;
static void tick(int number UNUSED) { atomic_fetch_add(&s->ticks, 1); }

static void note(long rc) {
    atomic_fetch_add(&s->calls, 1);
    if (rc >= 0)
        return;
    if (errno == EEXIST || errno == ENOENT || errno == ENOTEMPTY)
        atomic_fetch_add(&s->eexist, 1);
    else if (errno == EINTR)
        atomic_fetch_add(&s->eintr, 1);
    else
        atomic_fetch_add(&s->wrong, 1), atomic_store(&s->last, errno);
}

/* After a spurious EINTR nobody knows what was done: start the round afresh. */
static void clean(const char *a, const char *b, const char *d) { unlink(a), unlink(b), rmdir(d); }

static void round_of_calls(const char *a, const char *b, const char *d, const char *file) {
    struct stat st;
    int fd = (int)syscall(SYS_open, a, O_CREAT | O_EXCL | O_WRONLY, 0600);
    note(fd);
    if (fd >= 0)
        close(fd);
    note(syscall(SYS_rename, a, b));
    note(syscall(SYS_unlink, b));
    note(syscall(SYS_mkdir, d, 0700));
    note(syscall(SYS_rmdir, d));
    fd = (int)syscall(SYS_open, file, O_RDONLY);
    note(fd);
    if (fd >= 0)
        close(fd);
    note(syscall(SYS_stat, file, &st));
}

static void worker(int number, double end, long micro, int flags, char **argv) {
    char a[512], b[512], d[512];
    snprintf(a, sizeof a, "%s/a%d", argv[4], number);
    snprintf(b, sizeof b, "%s/b%d", argv[4], number);
    snprintf(d, sizeof d, "%s/d%d", argv[4], number);
    struct sigaction action = {.sa_handler = tick, .sa_flags = flags};
    struct itimerval interval = {{0, micro}, {0, micro}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &interval, NULL);
    while (now() < end) {
        long before = atomic_load(&s->eintr);
        round_of_calls(a, b, d, argv[5]);
        if (atomic_load(&s->eintr) != before)
            clean(a, b, d);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc < 6)
        return 97;
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double end = now() + atof(argv[1]);
    for (int i = 0; i < 4; i++)
        if (fork() == 0)
            worker(i, end, atol(argv[2]), strcmp(argv[3], "restart") ? 0 : SA_RESTART, argv);
    while (wait(NULL) > 0)
        ;
    sayf("ticks %ld\ncalls %ld\neexist %ld\neintr %ld\nwrong %ld\nlast %ld", s->ticks, s->calls, s->eexist, s->eintr,
         s->wrong, s->last);
    return 0;
}
