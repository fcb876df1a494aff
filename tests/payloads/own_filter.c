/* The command stacks a filter of its own, then reads the secret: own_filter FILE
 *
 * For each way to install and each answer for openat: `way.answer STATUS`: 1000 + errno it could not be installed, 0 it was
 * installed, 128 + N killed. Then `read N`: errno of the open, 42 the secret was read.
 */
#include "payload.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

static int install(int way, unsigned action) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    long rc = way == 0   ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)
              : way == 1 ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)
              : way == 2 ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program)
                         : syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0L, 0L);
    return rc < 0 ? 1000 + errno : 0;
}

int main(int argc, char **argv) {
    static const char *ways[] = {"seccomp", "tsync", "listener", "prctl"};
    static const unsigned actions[] = {SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO | EPERM,
                                       SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE};
    static const char *names[] = {"allow", "trap", "errno", "notify", "trace"};
    if (argc < 2)
        return 97;
    for (int way = 0; way < 4; way++)
        for (int action = 0; action < 5; action++) {
            int channel[2], told = -1;
            if (pipe(channel))
                die("pipe");
            pid_t pid = fork();
            if (pid == 0) {
                told = install(way, actions[action]);
                _exit(write(channel[1], &told, sizeof told) != sizeof told);
            }
            close(channel[1]);
            int status = reap(pid);
            if (read(channel[0], &told, sizeof told) != sizeof told)
                told = status;
            close(channel[0]);
            sayf("%s.%s %d", ways[way], names[action], told);
        }
    int rc = reads_secret(argv[1]);
    say("read", rc == 1 ? 42 : -rc);
    return 0;
}
