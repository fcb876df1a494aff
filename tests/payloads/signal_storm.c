/* Signals every pid below 64 with every signal: signal_storm FILE SECRET. Only in a pid namespace of its own.
 *
 * Prints sent (how many kill calls succeeded), victim (wait status of an unprotected child of ours, as control),
 * then whether the sandbox still serves: box N, secret N (errno of the open, 42 secret, 0 other).
 */
#include "payload.h"

static void storm(pid_t victim, long *sent) {
    for (int number = 1; number <= 64; number++) {
        for (pid_t pid = 2; pid < 64; pid++)
            if (pid != getpid() && pid != victim) {
                *sent += kill(pid, number) == 0;
                *sent += syscall(SYS_tkill, pid, number) == 0;
                *sent += syscall(SYS_tgkill, pid, pid, number) == 0;
            }
        kill(getppid(), number);
        union sigval value = {0};
        sigqueue(getppid(), number, value);
        int fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
        if (fd >= 0) {
            syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
            close(fd);
        }
    }
}

int main(int argc, char **argv) {
    long sent = 0;
    if (argc < 3)
        return 97;
    if (getpid() >= 200) { /* not in a fresh pid namespace: never signal strangers */
        fprintf(stderr, "signal_storm: refuses to run outside a pid namespace\n");
        return 99;
    }
    for (int number = 1; number < 64; number++)
        if (number != SIGKILL && number != SIGSTOP && number != SIGCHLD && number != SIGSEGV && number != SIGSYS)
            signal(number, SIG_IGN); /* only we are meant to survive kill(-1) */
    signal(SIGCHLD, SIG_DFL);
    pid_t victim = fork();
    if (victim == 0) {
        signal(SIGTERM, SIG_DFL);
        for (;;)
            pause();
    }
    storm(victim, &sent);
    usleep(50000);
    kill(-1, SIGTERM);
    say("victim", reap(victim));
    kill(-1, SIGKILL);
    usleep(100000);
    say("sent", sent);
    int rc = reads_secret(argv[1]);
    say("box", rc < 0 ? -rc : rc);
    rc = reads_secret(argv[2]);
    say("secret", rc < 0 ? -rc : rc == 1 ? 42 : 0);
    return 5;
}
