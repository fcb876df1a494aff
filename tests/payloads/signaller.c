/* Signals processes in every way there is.  Lines on stdin: "PID TID", a process and one of its threads.
 *
 *   signaller each            every signal by every way to every one of them; `sent.WAY N`, `WAY.errno.E N`
 *   signaller files           SIGIO, SIGKILL and a real-time signal by way of a file's owner; `setsig.N E`
 *   signaller peer            SIGKILL by the pidfd of the peer of a connection to oneself; `peer E`, `send E`
 *   signaller swap SECONDS    pidfd_send_signal while another thread changes what the number means; `sent.swap N`
 */
#include "payload.h"
#include <sys/un.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#define SYS_pidfd_send_signal 424
#endif

enum { KILL, TKILL, TGKILL, QUEUE, TGQUEUE, PIDFD, WRONG_GROUP, PROC, GROUP, WAYS };
static const char *names[WAYS] = {"kill", "tkill", "tgkill", "queue", "tgqueue", "pidfd", "wronggroup", "proc", "group"};
static long sent[WAYS], failed[WAYS][200];

static int by(int way, pid_t pid, pid_t tid, int number) {
    siginfo_t info = {.si_code = SI_QUEUE, .si_signo = number};
    char path[40];
    int fd, result = -1, error;
    info.si_pid = getpid();
    switch (way) {
    case KILL: return (int)syscall(SYS_kill, number % 2 ? pid : tid, number);
    case TKILL: return (int)syscall(SYS_tkill, tid, number);
    case TGKILL: return (int)syscall(SYS_tgkill, pid, tid, number);
    case QUEUE: return (int)syscall(SYS_rt_sigqueueinfo, pid, number, &info);
    case TGQUEUE: return (int)syscall(SYS_rt_tgsigqueueinfo, pid, tid, number, &info);
    case WRONG_GROUP: return (int)syscall(SYS_tgkill, getpid(), tid, number);
    case GROUP: return (int)syscall(SYS_kill, -pid, number);
    }
    if (way == PIDFD)
        fd = (int)syscall(SYS_pidfd_open, pid, 0);
    else {
        snprintf(path, sizeof path, "/proc/%d", pid);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        return -1;
    result = (int)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
    error = errno;
    close(fd);
    errno = error;
    return result;
}

static void each(pid_t pid, pid_t tid) {
    for (int way = 0; way < WAYS; way++)
        for (int number = 64; number >= 1; number--) {
            if (number == 32 || number == 33)
                continue;
            if (by(way, pid, tid, number) == 0)
                sent[way]++;
            else
                failed[way][errno % 200]++;
        }
}

static void files(pid_t pid) {
    static const int numbers[] = {0, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, 40};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int pair[2], result;
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
            die("socketpair");
        fcntl(pair[0], F_SETOWN, pid);
        result = fcntl(pair[0], F_SETSIG, numbers[i]);
        sayf("setsig.%d %d", numbers[i], result ? errno : 0);
        fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
        if (write(pair[1], "x", 1) != 1)
            die("write");
        usleep(20000);
        close(pair[0]);
        close(pair[1]);
    }
}

static void peer(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(sa_family_t) + 1 + (socklen_t)sprintf(name.sun_path + 1, "peer-of-%d", getpid());
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), fd = -1;
    socklen_t length = sizeof fd;
    if (bind(listener, (struct sockaddr *)&name, size) || listen(listener, 1))
        die("listen");
    if (connect(client, (struct sockaddr *)&name, size))
        die("connect");
    int server = accept(listener, NULL, NULL);
    int result = getsockopt(server, SOL_SOCKET, SO_PEERPIDFD, &fd, &length);
    say("peer", result ? errno : 0);
    if (result)
        return;
    /* natively this is ourselves */
    result = (int)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    say("send", result ? errno : 0);
}

static atomic_int over;
static int slot = 100, other;

static void *swapper(void *unused) {
    int own = (int)syscall(SYS_pidfd_open, getpid(), 0);
    while (!over) {
        dup2(own, slot);
        dup2(other, slot);
    }
    return unused;
}

static void swap(pid_t pid, double seconds) {
    pthread_t thread;
    char path[40];
    snprintf(path, sizeof path, "/proc/%d", pid);
    other = (int)syscall(SYS_pidfd_open, pid, 0);
    if (other < 0)
        other = open(path, O_RDONLY | O_DIRECTORY);
    say("held", other >= 0);
    if (other < 0)
        return;
    signal(SIGUSR2, SIG_IGN);
    pthread_create(&thread, NULL, swapper, NULL);
    for (double end = now() + seconds; now() < end;)
        sent[PIDFD] += syscall(SYS_pidfd_send_signal, slot, SIGUSR2, NULL, 0) == 0;
    over = 1;
    pthread_join(thread, NULL);
    say("sent.swap", sent[PIDFD]);
}

int main(int argc, char **argv) {
    int pid, tid;
    if (argc < 2)
        return 2;
    /* what we send to ourselves by mistake of the number must not end us */
    for (int number = 1; number < 65; number++)
        if (strcmp(argv[1], "each") == 0)
            signal(number, SIG_IGN);
    if (strcmp(argv[1], "each") == 0)
        setsid(); /* out of the group that is signalled too */
    sayf("ready");
    if (strcmp(argv[1], "peer") == 0) {
        peer();
        return 0;
    }
    while (scanf("%d %d", &pid, &tid) == 2) {
        if (strcmp(argv[1], "each") == 0)
            each(pid, tid);
        else if (strcmp(argv[1], "files") == 0)
            files(pid);
        else
            swap(pid, atof(argv[2]));
    }
    for (int way = 0; way < WAYS; way++) {
        sayf("sent.%s %ld", names[way], sent[way]);
        for (int error = 0; error < 200; error++)
            if (failed[way][error])
                sayf("%s.errno.%d %ld", names[way], error, failed[way][error]);
    }
    sayf("fini");
    return 0;
}
