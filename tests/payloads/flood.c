/* Many threads in one call at once: flood THREADS SECONDS FILE. Prints calls, failed, started. */
#include "payload.h"
static atomic_long calls, failed;
static atomic_int go, ready;
static const char *file;
static double end;
static void *loop(void *unused UNUSED) {
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&go))
        usleep(1000);
    while (now() < end) {
        struct stat st;
        if (syscall(SYS_stat, file, &st) < 0 || !S_ISREG(st.st_mode))
            atomic_fetch_add(&failed, 1);
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}
int main(int argc, char **argv) {
    if (argc < 4)
        return 97;
    int count = atoi(argv[1]), started = 0;
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    file = argv[3];
    while (started < count && pthread_create(&threads[started], &attributes, loop, NULL) == 0)
        started++;
    while (atomic_load(&ready) < started)
        usleep(1000);
    double start = now();
    end = start + atof(argv[2]);
    atomic_store(&go, 1);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    sayf("started %d\ncalls %ld\nfailed %ld\nrate %ld", started, calls, failed, (long)((double)calls / (now() - start)));
    return 0;
}
