/* crash SIGNAL [threads]: die by SIGNAL, alone or as one of several threads; 0: do not. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void *wait_for_it(void *nothing) {
    pause();
    return nothing;
}

int main(int argc, char **argv) {
    pthread_t thread;
    for (int i = 0; argc > 2 && i < atoi(argv[2]); i++)
        pthread_create(&thread, NULL, wait_for_it, NULL);
    if (argc > 1 && atoi(argv[1])) {
        kill(getpid(), atoi(argv[1]));
        sleep(10); /* another thread may be the one that takes it */
    }
    return 0;
}
