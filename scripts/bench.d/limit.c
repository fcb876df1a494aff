/* The floor of seccomp user notification, and the load for it.
 *
 *   limit supervise COUNT CALLERS   a supervisor in C answers getppid with 42 (synchronous wake-up), and
 *                                   CALLERS processes make COUNT calls each at the same time
 *   limit call COUNT CALLERS        only the callers, for a run under a sandbox that answers getppid
 *
 * Prints calls per second over all callers, from the moment all have started until the last has made its last call.
 * An answer that is not 42 ends it with an error: then nobody emulated the call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1UL
#endif

enum { ANSWER = 42 };

static void die(const char *what)
{
    perror(what);
    _exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* One caller: says it is there, waits until `go` closes, calls, says so, waits until `end` closes: its exit
 * is dearer than its calls and would be counted with those of the others. */
static void caller(int count, int ready, int go, int end)
{
    char c = 0;
    if (write(ready, &c, 1) != 1 || read(go, &c, 1) != 0)
        die("start");
    for (int i = 0; i < count; i++)
        if (syscall(SYS_getppid) != ANSWER) {
            fprintf(stderr, "limit: the call was not answered with %d\n", ANSWER);
            _exit(2);
        }
    if (write(ready, &c, 1) != 1 || read(end, &c, 1) != 0)
        die("end");
    _exit(0);
}

/* Wait for one byte of each caller; a caller that failed has closed its end instead. */
static int all(int ready, int callers)
{
    char bytes[256];
    while (callers > 0) {
        ssize_t n = read(ready, bytes, sizeof bytes);
        if (n <= 0)
            return 0;
        callers -= n;
    }
    return 1;
}

static int call(int count, int callers)
{
    int ready[2], go[2], end[2], status, good;
    double took;
    if (pipe(ready) || pipe(go) || pipe(end))
        die("pipe");
    for (int i = 0; i < callers; i++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(go[1]);
            close(end[1]);
            caller(count, ready[1], go[0], end[0]);
        }
    }
    close(ready[1]);
    good = all(ready[0], callers);
    took = now();
    close(go[1]);
    good = all(ready[0], callers) && good;
    took = now() - took;
    close(end[1]);
    while (wait(&status) > 0)
        good = good && status == 0;
    if (good)
        printf("%.1f\n", (double)count * callers / took);
    return !good;
}

static int install(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    int fd;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0)
        die("seccomp");
    return fd;
}

static void send_fd(int link, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(link, &message, 0) != 1)
        die("sendmsg");
}

static int receive_fd(int link)
{
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    int fd;
    if (recvmsg(link, &message, 0) != 1 || !CMSG_FIRSTHDR(&message))
        die("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void answer_all(int listener)
{
    struct seccomp_notif request;
    struct seccomp_notif_resp response;
    struct pollfd pending = {listener, POLLIN, 0};
    for (;;) {
        memset(&request, 0, sizeof request);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) == 0) {
            memset(&response, 0, sizeof response);
            response.id = request.id;
            response.val = ANSWER;
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
            continue;
        }
        poll(&pending, 1, 0);
        if (pending.revents & POLLHUP || (errno != EINTR && errno != ENOENT))
            return;
    }
}

static int supervise(int count, int callers)
{
    int link[2], listener, status = 0;
    char c;
    pid_t pid;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, link))
        die("socketpair");
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        listener = install();
        send_fd(link[1], listener);
        close(listener);
        if (read(link[1], &c, 1) != 1)
            die("read");
        status = call(count, callers);
        fflush(stdout);
        _exit(status);
    }
    listener = receive_fd(link[0]);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP))
        die("synchronous wake-up");
    if (write(link[0], "x", 1) != 1)
        die("write");
    answer_all(listener);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 0, callers = argc > 3 ? atoi(argv[3]) : 1;
    if (count < 1 || callers < 1) {
        fprintf(stderr, "usage: limit supervise|call COUNT [CALLERS]\n");
        return EINVAL;
    }
    return strcmp(argv[1], "supervise") == 0 ? supervise(count, callers) : call(count, callers);
}
