/* Every way to make a task; each one reads the secret at once: spawners FILE
 *
 * Prints `way STATUS`: 42 it read the secret, 13/2/1 the errno of its open, 1000 + errno the task could not be made,
 * 128 + N killed.
 */
#include "payload.h"
#include <linux/sched.h>

static const char *file;

static int attempt(void) {
    int rc = reads_secret(file);
    return rc == 1 ? 42 : rc < 0 ? -rc : 7;
}
static int attempt_task(void *unused UNUSED) { return attempt(); }
static void *attempt_thread(void *unused UNUSED) { return (void *)(intptr_t)attempt(); }

static void report(const char *way, pid_t pid) {
    if (pid < 0)
        sayf("%s %d", way, 1000 + errno);
    else
        sayf("%s %d", way, reap(pid));
}

static void by_clone(const char *way, int flags) {
    static char stack[65536] __attribute__((aligned(16)));
    report(way, clone(attempt_task, stack + sizeof stack, flags, NULL));
}

static void by_clone3(const char *way, uint64_t flags, int signal) {
    struct clone_args arguments = {.flags = flags, .exit_signal = (uint64_t)signal};
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        _exit(attempt());
    report(way, pid);
}

static void by_vfork(void) {
    pid_t pid = vfork();
    if (pid == 0)
        _exit(attempt());
    report("vfork", pid);
}

/* Orphan of an orphan in its own session: the answer comes by pipe. */
static void by_double_fork(void) {
    int channel[2], answer = -1;
    if (pipe(channel))
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        if (fork() == 0) {
            usleep(20000);
            answer = attempt();
            _exit(write(channel[1], &answer, sizeof answer) != sizeof answer);
        }
        _exit(0);
    }
    reap(pid);
    close(channel[1]);
    if (read(channel[0], &answer, sizeof answer) != sizeof answer)
        answer = 128;
    close(channel[0]);
    sayf("double-fork %d", answer);
}

int main(int argc, char **argv) {
    pthread_t thread;
    void *result;
    if (argc < 2)
        return 97;
    file = argv[1];
    pid_t pid = fork();
    if (pid == 0)
        _exit(attempt());
    report("fork", pid);
    by_vfork();
    by_clone("clone", SIGCHLD);
    by_clone("clone-vm", CLONE_VM | SIGCHLD);
    by_clone("clone-vm-files-fs", CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD);
    by_clone("clone-untraced", CLONE_UNTRACED | SIGCHLD);
    by_clone("clone-untraced-vm", CLONE_UNTRACED | CLONE_VM | SIGCHLD);
    by_clone("clone-ptrace", CLONE_PTRACE | SIGCHLD);
    by_clone("clone-no-signal", 0);
    by_clone("clone-parent-io", CLONE_IO | CLONE_SYSVSEM | SIGCHLD);
    by_clone3("clone3", 0, SIGCHLD);
    by_clone3("clone3-untraced", CLONE_UNTRACED, SIGCHLD);
    by_clone3("clone3-vfork", CLONE_VFORK, SIGCHLD);
    by_clone3("clone3-clear", CLONE_CLEAR_SIGHAND, SIGCHLD);
    by_clone3("clone3-newuser", CLONE_NEWUSER, SIGCHLD);
    by_clone("clone-newuser", CLONE_NEWUSER | SIGCHLD);
    by_clone("clone-newpid", CLONE_NEWPID | SIGCHLD);
    if (pthread_create(&thread, NULL, attempt_thread, NULL) == 0 && pthread_join(thread, &result) == 0)
        sayf("thread %d", (int)(intptr_t)result);
    by_double_fork();
    return 0;
}
