/* Many blocking opens at once: fifos COUNT DIRECTORY FILE
 *
 * COUNT readers open FIFOs (fifo0..) and wait; meanwhile the latency of other opens is measured; then writers come.
 * Prints blocked (readers still waiting before the writers came), met, p99-us, opens, seconds.
 */
#include "payload.h"

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void other_opens(const char *file) {
    static double took[2000];
    int count = 0;
    for (double end = now() + 0.5; count < 2000 && now() < end; count++) {
        double start = now();
        int fd = (int)syscall(SYS_open, file, O_RDONLY);
        took[count] = now() - start;
        if (fd < 0)
            die("other open");
        close(fd);
    }
    qsort(took, (size_t)count, sizeof *took, compare);
    sayf("opens %d\np50-us %ld\np99-us %ld", count, (long)(took[count / 2] * 1e6), (long)(took[count * 99 / 100] * 1e6));
}

static void meet(const char *path, int flags, int done) {
    char byte = 1;
    int fd = (int)syscall(SYS_open, path, flags);
    _exit(fd < 0 || write(done, &byte, 1) != 1);
}

int main(int argc, char **argv) {
    char path[4096], byte;
    int channel[2], met = 0;
    if (argc < 4 || pipe(channel))
        return 97;
    int count = atoi(argv[1]);
    double start = now();
    for (int i = 0; i < count; i++)
        if (fork() == 0) {
            snprintf(path, sizeof path, "%s/fifo%d", argv[2], i);
            meet(path, O_RDONLY, channel[1]);
        }
    usleep(200000);
    other_opens(argv[3]);
    struct pollfd waiting = {.fd = channel[0], .events = POLLIN};
    say("blocked", poll(&waiting, 1, 0) == 0);
    for (int i = 0; i < count; i++)
        if (fork() == 0) {
            snprintf(path, sizeof path, "%s/fifo%d", argv[2], i);
            meet(path, O_WRONLY, channel[1]);
        }
    close(channel[1]);
    while (met < 2 * count && poll(&waiting, 1, 10000) == 1 && read(channel[0], &byte, 1) == 1)
        met++;
    say("met", met);
    sayf("milliseconds %ld", (long)((now() - start) * 1e3));
    if (met < 2 * count)
        kill(0, SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
