/* Tries the secret for ever, and tells through shared memory that outlives the sandbox: leaker FILE LOG TASKS
 *
 * LOG (opened before): word 0 tries, word 1 reads of the secret, word 2 last errno. A tree of TASKS processes: children,
 * daemons in their own sessions, threads.
 */
#include "payload.h"
static atomic_long *logged;
static const char *file;

static void *attack(void *unused UNUSED) {
    for (;;) {
        int rc = reads_secret(file);
        atomic_fetch_add(&logged[0], 1);
        if (rc == 1)
            atomic_fetch_add(&logged[1], 1);
        else
            atomic_store(&logged[2], -rc);
        usleep(5000);
    }
    return NULL;
}

static void daemonise(void) {
    setsid();
    if (fork())
        _exit(0);
    setsid();
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc < 4)
        return 97;
    file = argv[1];
    int fd = open(argv[2], O_RDWR);
    logged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (logged == MAP_FAILED)
        die("log");
    for (int i = 0; i < atoi(argv[3]); i++)
        if (fork() == 0) {
            if (i % 3 == 0)
                daemonise();
            if (i % 4 == 0)
                pthread_create(&thread, NULL, attack, NULL);
            signal(SIGTERM, SIG_IGN), signal(SIGHUP, SIG_IGN);
            if (i % 2)
                attack(NULL);
            for (;;)
                pause();
        }
    pthread_create(&thread, NULL, attack, NULL);
    usleep(300000);
    say("ready", getpid());
    close(0), close(1), close(2);
    for (;;)
        pause();
}
