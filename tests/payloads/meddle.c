/* Tries to slow down, limit, move, watch and read other processes.  Lines on stdin: "PID TID".
 *
 * `NAME N` counts the calls that succeeded, `NAME.errno.E N` those that failed.
 */
#include "payload.h"
#include <linux/perf_event.h>
#include <sys/uio.h>

static char buffer[64];

static long affinity(pid_t pid, pid_t tid UNUSED) {
    unsigned long mask[16] = {1};
    return syscall(SYS_sched_setaffinity, pid, sizeof mask, mask);
}
static long affinity_thread(pid_t pid UNUSED, pid_t tid) { return affinity(tid, tid); }
static long scheduler(pid_t pid, pid_t tid UNUSED) {
    struct sched_param parameter = {0};
    return syscall(SYS_sched_setscheduler, pid, 5 /* SCHED_IDLE */, &parameter);
}
static long parameter(pid_t pid, pid_t tid UNUSED) {
    struct sched_param parameter = {0};
    return syscall(SYS_sched_setparam, pid, &parameter);
}
static long attr(pid_t pid, pid_t tid UNUSED) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t times[3];
    } it = {.size = 48, .policy = 0, .nice = 19};
    return syscall(SYS_sched_setattr, pid, &it, 0);
}
static long nice_process(pid_t pid, pid_t tid UNUSED) { return syscall(SYS_setpriority, 0, pid, 19); }
static long nice_thread(pid_t pid UNUSED, pid_t tid) { return syscall(SYS_setpriority, 0, tid, 19); }
static long nice_group(pid_t pid, pid_t tid UNUSED) { return syscall(SYS_setpriority, 1, getpgid(pid), 19); }
/* Of a whole user: natively never of root, whose processes are the machine. */
static int spared(void) { return getenv("SPARE_ROOT") && getuid() == 0; }
static long nice_user(pid_t pid UNUSED, pid_t tid UNUSED) { return spared() ? -1 : syscall(SYS_setpriority, 2, 0, 19); }
static long io_process(pid_t pid, pid_t tid UNUSED) { return syscall(SYS_ioprio_set, 1, pid, 3 << 13); }
static long io_group(pid_t pid, pid_t tid UNUSED) { return syscall(SYS_ioprio_set, 2, getpgid(pid), 3 << 13); }
static long io_user(pid_t pid UNUSED, pid_t tid UNUSED) { return spared() ? -1 : syscall(SYS_ioprio_set, 3, getuid(), 3 << 13); }
static long limit(pid_t pid, pid_t tid UNUSED) {
    struct rlimit64 limit = {100000, 100000};
    return syscall(SYS_prlimit64, pid, RLIMIT_CPU, &limit, NULL);
}
static long migrate(pid_t pid, pid_t tid UNUSED) {
    unsigned long nodes = 1;
    return syscall(SYS_migrate_pages, pid, 2, &nodes, &nodes);
}
static long move(pid_t pid, pid_t tid UNUSED) {
    void *page = (void *)((uintptr_t)buffer & ~4095ul);
    int node = 0, status;
    return syscall(SYS_move_pages, pid, 1, &page, &node, &status, 0);
}
static long perf(pid_t pid, pid_t tid UNUSED) {
    struct perf_event_attr it = {.type = PERF_TYPE_SOFTWARE, .size = sizeof it, .config = PERF_COUNT_SW_TASK_CLOCK};
    it.exclude_kernel = 1;
    long fd = syscall(SYS_perf_event_open, &it, pid, -1, -1, 0);
    if (fd >= 0)
        close((int)fd);
    return fd < 0 ? -1 : 0;
}
static long vm_read(pid_t pid, pid_t tid UNUSED) {
    struct iovec here = {buffer, 8}, there = {(void *)0x400000, 8};
    long n = syscall(SYS_process_vm_readv, pid, &here, 1, &there, 1, 0);
    return n < 0 && errno == EFAULT ? 0 : n < 0 ? -1 : 0; /* EFAULT: it might read us, but not there */
}
static long vm_write(pid_t pid, pid_t tid UNUSED) {
    struct iovec here = {buffer, 8}, there = {(void *)0x1000, 8};
    long n = syscall(SYS_process_vm_writev, pid, &here, 1, &there, 1, 0);
    return n < 0 && errno == EFAULT ? 0 : n < 0 ? -1 : 0;
}
static long kcmp_(pid_t pid, pid_t tid UNUSED) { return syscall(SYS_kcmp, pid, getpid(), 0, 0, 0) < 0 ? -1 : 0; }
static long pidfd(pid_t pid, pid_t tid UNUSED) {
    long fd = syscall(434, pid, 0);
    if (fd < 0)
        return -1;
    close((int)fd);
    return 0;
}
static long getfd(pid_t pid, pid_t tid UNUSED) {
    long fd = syscall(434, pid, 0), got;
    got = syscall(438, fd < 0 ? 0 : fd, 2, 0);
    return got < 0 ? -1 : 0;
}
static long madvise_(pid_t pid, pid_t tid UNUSED) {
    struct iovec there = {(void *)0x400000, 4096};
    long fd = syscall(434, pid, 0), n = syscall(440, fd, &there, 1, 20 /* COLD */, 0);
    return n < 0 && errno == ENOMEM ? 0 : n < 0 ? -1 : 0; /* ENOMEM: not mapped there */
}
static long memory(pid_t pid, pid_t tid UNUSED) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? -1 : 0;
}
static long score(pid_t pid, pid_t tid UNUSED) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    int fd = open(path, O_WRONLY);
    long n = fd < 0 ? -1 : write(fd, "1000", 4);
    if (fd >= 0)
        close(fd);
    return n < 0 ? -1 : 0;
}

#define WAY(name) {#name, name}
static struct way {
    const char *name;
    long (*try)(pid_t, pid_t);
    long done, failed[200];
} ways[] = {
    WAY(affinity), WAY(affinity_thread), WAY(scheduler), WAY(parameter), WAY(attr), WAY(nice_process), WAY(nice_thread),
    WAY(nice_group), WAY(nice_user), WAY(io_process), WAY(io_group), WAY(io_user), WAY(limit), WAY(migrate), WAY(move),
    WAY(perf), WAY(vm_read), WAY(vm_write), WAY(kcmp_), WAY(pidfd), WAY(getfd), WAY(madvise_), WAY(memory), WAY(score),
};
#define WAYS (sizeof ways / sizeof *ways)

int main(int argc, char **argv UNUSED) {
    int pid, tid;
    setsid();
    sayf("ready");
    if (argc > 1) { /* a child of its own is fair game */
        pid_t child = fork();
        if (child == 0)
            for (;;)
                pause();
        usleep(20000);
        setpgid(child, child);
        for (unsigned i = 0; i < WAYS; i++)
            sayf("%s %d", ways[i].name, ways[i].try(child, child) < 0 ? errno : 0);
        kill(child, SIGKILL);
        return 0;
    }
    while (scanf("%d %d", &pid, &tid) == 2)
        for (unsigned i = 0; i < WAYS; i++)
            if (ways[i].try(pid, tid) >= 0)
                ways[i].done++;
            else
                ways[i].failed[errno % 200]++;
    for (unsigned i = 0; i < WAYS; i++) {
        sayf("%s %ld", ways[i].name, ways[i].done);
        for (int error = 0; error < 200; error++)
            if (ways[i].failed[error])
                sayf("%s.errno.%d %ld", ways[i].name, error, ways[i].failed[error]);
    }
    usleep(400000); /* to be looked at */
    return 0;
}
