/* Spinners on every processor and one process that opens: starve SPINNERS SECONDS FILE. Prints opens, p50-us, p99-us. */
#include "payload.h"
#define MOST 200000
static double took[MOST]; /* the last ones */
static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
int main(int argc, char **argv) {
    pid_t spinner[64];
    long count = 0;
    if (argc < 4)
        return 97;
    int spinners = atoi(argv[1]);
    for (int i = 0; i < spinners; i++)
        if ((spinner[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                __asm__ volatile("pause");
        }
    for (double end = now() + atof(argv[2]); now() < end; count++) {
        double start = now();
        int fd = (int)syscall(SYS_open, argv[3], O_RDONLY);
        took[count % MOST] = now() - start;
        if (fd < 0)
            die("open");
        close(fd);
    }
    for (int i = 0; i < spinners; i++) {
        kill(spinner[i], SIGKILL);
        reap(spinner[i]);
    }
    long kept = count < MOST ? count : MOST;
    qsort(took, (size_t)kept, sizeof *took, compare);
    sayf("opens %ld\np50-us %ld\np99-us %ld", count, (long)(took[kept / 2] * 1e6), (long)(took[kept * 99 / 100] * 1e6));
    return 0;
}
