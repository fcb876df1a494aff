/* vfork and exec in a loop: spawn_loop SECONDS PROGRAM WORKERS. Prints done, failed. */
#include "payload.h"
static atomic_long done, failed;
static const char *program;
static double end;
static void *loop(void *unused UNUSED) {
    static char *arguments[] = {"x", NULL}, *environment[] = {NULL};
    while (now() < end) {
        pid_t pid = vfork();
        if (pid == 0) {
            execve(program, arguments, environment);
            _exit(99);
        }
        if (pid > 0 && reap(pid) == 7)
            atomic_fetch_add(&done, 1);
        else
            atomic_fetch_add(&failed, 1);
    }
    return NULL;
}
int main(int argc, char **argv) {
    pthread_t threads[64];
    if (argc < 4)
        return 97;
    program = argv[2];
    end = now() + atof(argv[1]);
    for (int i = 0; i < atoi(argv[3]); i++)
        pthread_create(&threads[i], NULL, loop, NULL);
    for (int i = 0; i < atoi(argv[3]); i++)
        pthread_join(threads[i], NULL);
    say("done", done), say("failed", failed);
    return 0;
}
