/* A thread that is not the leader execs while 16 others have calls in flight: thread_exec ROUNDS SECONDS FILE [ROUND START]
 *
 * Each round is the next program; the last prints how many there were.
 */
#include "payload.h"

static const char *file;
static char **arguments;

static void *busy(void *unused UNUSED) {
    for (;;) {
        int fd = (int)syscall(SYS_open, file, O_RDONLY);
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

static void *replace(void *unused UNUSED) {
    extern char **environ;
    execve("/proc/self/exe", arguments, environ);
    sayf("exec-errno %d", errno);
    _exit(96);
}

int main(int argc, char **argv) {
    static char round[32], start[32];
    pthread_t thread;
    if (argc < 4)
        return 97;
    int number = argc > 4 ? atoi(argv[4]) : 0;
    double began = argc > 5 ? atof(argv[5]) : now();
    file = argv[3];
    if (syscall(SYS_gettid) != getpid())
        return 95;
    close_range(3, ~0U, 0); /* opens of the round before were not close-on-exec */
    int fd = open(file, O_RDONLY);
    if (fd != 3)
        return 94;
    close(fd);
    if (number >= atoi(argv[1]) || now() - began > atof(argv[2])) {
        say("rounds", number);
        return 0;
    }
    snprintf(round, sizeof round, "%d", number + 1);
    snprintf(start, sizeof start, "%.6f", began);
    arguments = (char *[]){argv[0], argv[1], argv[2], argv[3], round, start, NULL};
    for (int i = 0; i < 16; i++)
        pthread_create(&thread, NULL, busy, NULL);
    pthread_create(&thread, NULL, replace, NULL);
    for (;;)
        pause();
}
