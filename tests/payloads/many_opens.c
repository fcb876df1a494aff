/* Opens in bursts, some callers killed in the middle: many_opens FILE KILL-PERCENT
 *
 * For each line on stdin (a number of seconds) runs a burst and prints `burst OPENS KILLED WRONG`. WRONG counts opens that
 * returned descriptor 0 (occupied all the time, so natively impossible), failures, or a file that is not FILE.
 */
#include "payload.h"

struct shared {
    atomic_long opens, wrong;
};
static struct shared *s;
static const char *file;
static struct stat expected;

static void opener(double end) {
    struct stat st;
    while (now() < end) {
        int fd = (int)syscall(SYS_open, file, O_RDONLY);
        if (fd <= 0 || fstat(fd, &st) || st.st_ino != expected.st_ino)
            atomic_fetch_add(&s->wrong, 1);
        if (fd > 0)
            close(fd);
        atomic_fetch_add(&s->opens, 1);
    }
    _exit(0);
}

static long burst(double seconds, int percent) {
    pid_t pids[4];
    long killed = 0;
    double end = now() + seconds;
    unsigned seed = 1;
    for (int i = 0; i < 4; i++)
        if ((pids[i] = fork()) == 0)
            opener(end);
    while (now() < end) {
        int i = rand_r(&seed) % 4;
        usleep((useconds_t)(rand_r(&seed) % 2000));
        if (rand_r(&seed) % 100 >= percent)
            continue;
        kill(pids[i], SIGKILL);
        reap(pids[i]);
        killed++;
        if ((pids[i] = fork()) == 0)
            opener(end);
    }
    for (int i = 0; i < 4; i++)
        reap(pids[i]);
    return killed;
}

int main(int argc, char **argv) {
    char line[64];
    if (argc < 3)
        return 97;
    file = argv[1];
    if (stat(file, &expected))
        die("stat");
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    say("ready", getpid());
    while (fgets(line, sizeof line, stdin)) {
        atomic_store(&s->opens, 0);
        long killed = burst(atof(line), atoi(argv[2]));
        sayf("burst %ld %ld %ld", atomic_load(&s->opens), killed, atomic_load(&s->wrong));
    }
    return 0;
}
