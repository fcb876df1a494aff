/* kill(2) for many: HOW is `self` (pid 0), `all` (pid -1), `group` (a process group of its own), `bomb`.
 *
 * Four children count the signals they get; the counts, the caller's own and the result are printed.
 * `bomb`: children fork without end, then kill(-1, SIGKILL): `left` is how many of them are there afterwards.
 */
#include "payload.h"

struct shared {
    atomic_int got[5], code[5], sender[5], ready, births;
};
static struct shared *shared;
static int self;

static void count(int number, siginfo_t *info, void *unused UNUSED) {
    (void)number;
    shared->got[self]++;
    shared->code[self] = info->si_code;
    shared->sender[self] = info->si_pid == getppid() || (self == 4 && info->si_pid == getpid());
}

static void child(int i) {
    self = i;
    shared->ready++;
    for (;;)
        pause();
}

static void bomb(void) {
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) {
            shared->births++;
            continue;
        }
        usleep(30000);
        if (pid > 0 && shared->births > 60)
            _exit(0);
    }
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGCHLD, SIG_IGN);
    if (strcmp(how, "bomb") == 0) {
        if (fork() == 0)
            bomb();
        while (shared->births < 5)
            usleep(500);
        say("result", kill(-1, SIGKILL) ? errno : 0);
        usleep(100000);
        int births = shared->births;
        usleep(100000);
        say("births", births);
        say("later", shared->births - births);
        say("left", kill(-1, 0) ? 0 : wait(NULL) >= 0 || errno != ECHILD);
        return 0;
    }
    struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    int group = strcmp(how, "group") == 0;
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            child(i);
        if (group)
            setpgid(pids[i], pids[0]);
    }
    self = 4;
    while (shared->ready < 4)
        usleep(1000);
    sayf("ready");
    getchar();
    pid_t whom = group ? -pids[0] : strcmp(how, "self") == 0 ? 0 : -1;
    say("result", kill(whom, SIGUSR1) ? errno : 0);
    usleep(100000);
    for (int i = 0; i < 5; i++)
        sayf("got.%d %d %d %d", i, shared->got[i], shared->code[i], shared->sender[i]);
    for (int i = 0; i < 4; i++)
        kill(pids[i], SIGKILL);
    return 0;
}
