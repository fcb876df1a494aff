/* Pids are recycled while calls are in flight: nonces SECONDS DIRECTORY PROCESSES
 *
 * PROCESSES workers each fork short-lived children as fast as they can. A child opens only the file that carries its own
 * number, checks the content, and often dies with a second thread's call still in flight. Prints forks, recycled (a pid
 * seen twice by one worker), wrong (a child saw another's file), refused (an open failed).
 */
#include "payload.h"

struct shared {
    atomic_long forks, recycled, wrong, refused;
};
static struct shared *s;
static const char *directory;

static void check(int nonce) {
    char path[512], text[32] = "", expected[32];
    snprintf(path, sizeof path, "%s/nonce%04d", directory, nonce);
    snprintf(expected, sizeof expected, "%d\n", nonce);
    int fd = (int)syscall(SYS_open, path, O_RDONLY);
    if (fd < 0) {
        atomic_fetch_add(&s->refused, 1);
        return;
    }
    if (read(fd, text, sizeof text - 1) < 0 || strcmp(text, expected))
        atomic_fetch_add(&s->wrong, 1);
    close(fd);
}

static void *in_flight(void *data) {
    for (;;)
        check(*(int *)data);
    return NULL;
}

static void child(int nonce) {
    pthread_t thread;
    if (nonce % 2 == 0 && pthread_create(&thread, NULL, in_flight, &nonce) == 0)
        sched_yield();
    check(nonce);
    _exit(0);
}

static void worker(int number, int workers, double end) {
    static unsigned char seen[65536];
    for (long i = 0; now() < end; i++) {
        int nonce = (int)((i * workers + number) % 1000);
        pid_t pid = fork();
        if (pid == 0)
            child(nonce);
        if (pid < 0)
            continue;
        atomic_fetch_add(&s->forks, 1);
        if (seen[pid % 65536]++ == 1)
            atomic_fetch_add(&s->recycled, 1);
        if (i % 5 == 0)
            kill(pid, SIGKILL);
        reap(pid);
    }
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 97;
    directory = argv[2];
    int workers = atoi(argv[3]);
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double end = now() + atof(argv[1]);
    for (int i = 0; i < workers; i++)
        if (fork() == 0)
            worker(i, workers, end);
    for (int i = 0; i < workers; i++)
        wait(NULL);
    say("forks", s->forks), say("recycled", s->recycled), say("wrong", s->wrong), say("refused", s->refused);
    return 0;
}
