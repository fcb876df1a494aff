/* Time system calls: calls COUNT [FILE] prints one line "name microseconds" for each row.
 *
 * A row is timed as a whole and divided by its number of rounds; dear rows do fewer rounds.  The row
 * of a call that fails where it should not is "name failed: why": a figure for an error would be a lie.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *file = "/etc/passwd";
static char scratch[64];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static const char *row;
static int failed;

static void must(int ok, const char *what)
{
    if (!ok && !failed++)
        printf("%s failed: %s: %s\n", row, what, strerror(errno));
}

static void do_getppid(void) { syscall(SYS_getppid); }

static void do_stat(void)
{
    struct stat st;
    must(stat(file, &st) == 0, "stat");
}

static void do_stat_missing(void)
{
    struct stat st;
    must(stat("/etc/no-such-file", &st) == -1 && errno == ENOENT, "stat of a missing file");
}

static void do_open(void)
{
    int fd = open(file, O_RDONLY);
    must(fd >= 0, "open");
    close(fd);
}

static void do_access(void) { must(access(file, R_OK) == 0, "access"); }

static void do_readlink(void)
{
    char target[256];
    must(readlink("/proc/self/exe", target, sizeof target) > 0, "readlink");
}

static void do_mkdir(void)
{
    must(mkdir(scratch, 0755) == 0, "mkdir");
    must(rmdir(scratch) == 0, "rmdir");
}

static void do_create(void)
{
    int fd = open(scratch, O_CREAT | O_EXCL | O_WRONLY, 0644);
    must(fd >= 0, "create");
    close(fd);
    must(unlink(scratch) == 0, "unlink");
}

static void do_connect(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(1)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(fd >= 0, "socket");
    must(connect(fd, (struct sockaddr *)&to, sizeof to) == -1 && errno == ECONNREFUSED, "connect");
    close(fd);
}

static void ended_well(pid_t pid, const char *what)
{
    int status;
    must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, what);
}

static void do_fork(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    ended_well(pid, "fork");
}

static void do_vfork(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    ended_well(pid, "vfork+exec");
}

static const struct {
    const char *name;
    void (*call)(void);
    int share; /* it is done COUNT / share times */
} rows[] = {
    {"getppid", do_getppid, 1},
    {"stat", do_stat, 1},
    {"stat-missing", do_stat_missing, 1},
    {"open+close", do_open, 1},
    {"access", do_access, 1},
    {"readlink", do_readlink, 1},
    {"mkdir+rmdir", do_mkdir, 5},
    {"create+unlink", do_create, 5},
    {"connect-refused", do_connect, 10},
    {"fork+wait", do_fork, 50},
    {"vfork+exec", do_vfork, 100},
};

/* ROWS in the environment, "a,b,c", names the rows to do; unset: all. */
static int wanted(const char *name)
{
    const char *list = getenv("ROWS"), *at = list;
    size_t length = strlen(name);
    while (at && (at = strstr(at, name))) {
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == 0))
            return 1;
        at += length;
    }
    return list == NULL;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0;
    if (count < 100) {
        fprintf(stderr, "usage: calls COUNT [FILE]   (COUNT is 100 or more)\n");
        return EINVAL;
    }
    if (argc > 2)
        file = argv[2];
    snprintf(scratch, sizeof scratch, "/tmp/syd-pool-bench.%d", getpid());
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int times = count / rows[i].share;
        double start;
        if (!wanted(rows[i].name))
            continue;
        row = rows[i].name;
        failed = 0;
        for (int n = 0; n < times / 20 && !failed; n++) /* warm */
            rows[i].call();
        start = now();
        for (int n = 0; n < times && !failed; n++)
            rows[i].call();
        if (!failed)
            printf("%s %.4f\n", row, (now() - start) / times);
        fflush(stdout);
    }
    return 0;
}
