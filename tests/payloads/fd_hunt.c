/* Looks for a seccomp listener among its descriptors: fd_hunt [own|child]
 *
 * own: makes a listener of its own first (control: the hunt finds it). Every descriptor 0..1023 is named and tried with
 * every seccomp ioctl, here, after fork and after exec. Prints listener N (how many), open N, strange NAME.
 */
#include "payload.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

static int hunt(void) {
    char path[64], name[256];
    long listeners = 0;
    for (int fd = 0; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        long size = readlink(path, name, sizeof name - 1);
        name[size > 0 ? size : 0] = 0;
        int listener = strstr(name, "seccomp") != NULL;
        uint64_t id = 0;
        for (unsigned nr = 0; nr < 5 && !listener; nr++) {
            /* ID_VALID answers ENOENT for an unknown id only on a listener */
            long rc = ioctl(fd, _IOC(_IOC_WRITE, '!', nr, 8), &id);
            listener = rc >= 0 || errno == ENOENT || errno == EINPROGRESS;
        }
        listeners += listener;
        if (fd > 2)
            sayf("strange %d %s", fd, name);
    }
    return (int)listeners;
}

static int listen_oneself(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "own"))
        say("own", listen_oneself());
    int child = argc > 1 && !strcmp(argv[1], "child");
    sayf("%s %d", child ? "after-exec" : "listener", hunt());
    if (child)
        return 0;
    pid_t pid = fork();
    if (pid == 0) {
        sayf("after-fork %d", hunt());
        execl("/proc/self/exe", "fd_hunt", "child", NULL);
        _exit(96);
    }
    return reap(pid);
}
