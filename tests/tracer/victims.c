/* One system call after the other, each checked:   victims DIR LETTERS
 *
 * For letter number N a child makes the call on DIR/vN (prepared by the test) and prints "N RESULT":
 * ok, errno of a refusal, "wrong" for a result the kernel would not have given, "killed" if it was.
 *
 *     o open an existing file   t open it with O_TRUNC   c creat   m mkdir   s stat   r rename   h chdir
 *     x execve                  l symlink                u truncate           d rmdir    n link
 *     w open an existing file to write   k the same with O_CREAT   (opened once, and no more than one left over)
 *
 *     victims load DIR SECONDS CALLERS     callers that check everything for a time; figures at the end
 *     victims again DIR LETTER COUNT       one call COUNT times in this process: "result N" lines
 *     victims opens FILE COUNT KILLED      COUNT opens, every KILLED-th by a child that is killed amid it;
 *                                          waits for a line on stdin before and after
 *     victims tree FILE COUNT              a tree of COUNT processes that never ends
 *     victims mark                         says "ran" and exits 42, with no call that anybody judges
 *     victims uffd                         a path that lies in a page that never comes
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WRONG 200

static int refused(void) { return errno < WRONG ? errno : WRONG; }

static int check_file(int fd, const char *text)
{
    char buffer[64] = {0};
    ssize_t n = read(fd, buffer, sizeof buffer - 1);
    return n >= 0 && strcmp(buffer, text) == 0 ? 0 : WRONG;
}

static int descriptors_of(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int check_writable(int fd, int before)
{
    struct stat st;
    if (check_file(fd, "content") || fstat(fd, &st) < 0 || write(fd, "more", 4) != 4)
        return WRONG;
    return descriptors_of() - before <= 1 ? 0 : WRONG;
}

static int check_created(int fd, const char *path)
{
    struct stat mine, named;
    if (write(fd, "x", 1) != 1 || fstat(fd, &mine) < 0 || stat(path, &named) < 0)
        return WRONG;
    return mine.st_ino == named.st_ino && (mine.st_mode & 07777) == 0640 ? 0 : WRONG;
}

/* 0 right, WRONG, else the errno */
static int call(char letter, const char *path)
{
    struct stat st;
    char other[512], here[512];
    int fd, before = descriptors_of();
    snprintf(other, sizeof other, "%s.new", path);
    switch (letter) {
    case 'o':
        fd = syscall(SYS_open, path, O_RDONLY);
        return fd < 0 ? refused() : descriptors_of() - before > 1 ? WRONG : check_file(fd, "content");
    case 't':
        fd = syscall(SYS_open, path, O_RDWR | O_TRUNC);
        return fd < 0 ? refused() : check_file(fd, "");
    case 'w':
    case 'k':
        fd = syscall(SYS_open, path, O_RDWR | (letter == 'k' ? O_CREAT : 0), 0600);
        return fd < 0 ? refused() : check_writable(fd, before);
    case 'n':
        return syscall(SYS_link, "/etc/passwd", path) < 0 ? refused() : 0;
    case 'c':
        fd = syscall(SYS_creat, path, 0640);
        return fd < 0 ? refused() : check_created(fd, path);
    case 'm':
        return syscall(SYS_mkdir, path, 0750) < 0 ? refused() : stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : WRONG;
    case 'd':
        return syscall(SYS_rmdir, path) < 0 ? refused() : 0;
    case 's':
        return syscall(SYS_stat, path, &st) < 0 ? refused() : st.st_size == 7 ? 0 : WRONG;
    case 'r':
        return syscall(SYS_rename, path, other) < 0 ? refused() : access(other, F_OK) == 0 ? 0 : WRONG;
    case 'l':
        return syscall(SYS_symlink, "target", path) < 0 ? refused() : 0;
    case 'u':
        return syscall(SYS_truncate, path, 3L) < 0 ? refused() : 0;
    case 'h':
        if (syscall(SYS_chdir, path) < 0)
            return refused();
        return syscall(SYS_getcwd, here, sizeof here) > 0 && strcmp(here, path) == 0 ? 0 : WRONG;
    case 'x':
        syscall(SYS_execve, path, (char *[]){"true", NULL}, (char *[]){NULL});
        return refused();
    }
    return WRONG;
}

static void say(int number, int status)
{
    if (WIFSIGNALED(status))
        printf("%d %s\n", number, WTERMSIG(status) == SIGKILL ? "killed" : "signalled");
    else if (WEXITSTATUS(status) == WRONG)
        printf("%d wrong\n", number);
    else if (WEXITSTATUS(status))
        printf("%d %d\n", number, WEXITSTATUS(status));
    else
        printf("%d ok\n", number);
}

static int victims(const char *directory, const char *letters)
{
    char path[512];
    int status;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; letters[i]; i++) {
        snprintf(path, sizeof path, "%s/v%d", directory, i);
        pid_t child = fork();
        if (child < 0)
            return 3;
        if (child == 0)
            _exit(call(letters[i], path));
        while (waitpid(child, &status, 0) < 0)
            if (errno != EINTR)
                return 4;
        say(i, status);
    }
    return 0;
}

static int again(const char *directory, char letter, int count)
{
    char path[512];
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/v%d", directory, i);
        printf("result %d\n", call(letter, path));
    }
    return 0;
}

/* ---- load ------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

#define BUCKETS 40000 /* of 0.25 ms: ten seconds */

struct tally {
    long calls, eio, wrong, other;
    long worst; /* microseconds */
    long errnos[4];
    long which; /* bit N: check N failed */
    unsigned bucket[BUCKETS];
};

/* begin and end of calls that took long, for who knows when a worker was killed: CLOCK_MONOTONIC */
#define SLOW_US 300
#define SLOW_MOST 400000
#define HEADER 4096

static struct slow {
    double count, call[SLOW_MOST][2];
} *slow;

static void took(struct tally *t, double since)
{
    double end = now();
    long us = (end - since) * 1e6, at = us / 250;
    if (slow && us >= SLOW_US && slow->count < SLOW_MOST) {
        double *call = slow->call[(long)slow->count++];
        call[0] = since, call[1] = end;
    }
    t->calls++;
    t->bucket[at < BUCKETS ? at : BUCKETS - 1]++;
    if (us > t->worst)
        t->worst = us;
}

/* A result that is not the right one: EIO leaves an unknown outcome (returns 1), all else is wrong. */
static int judge(struct tally *t, int right, int error)
{
    if (right)
        return 0;
    if (error == EIO) {
        t->eio++;
        return 1;
    }
    if (t->other < 4)
        t->errnos[t->other] = error;
    t->other++;
    return 1;
}

/* Whoever is to be killed because nobody knows what its call did may see the wrong thing for a moment. */
static void wrong(struct tally *t, int check, int failed)
{
    if (failed)
        usleep(100000);
    t->wrong += failed;
    if (failed)
        t->which |= 1L << check;
}

/* Whether a path is there; an EIO of the question itself is no answer. */
static int exists(const char *path)
{
    int ok;
    while ((ok = access(path, F_OK)) < 0 && errno == EIO)
        ;
    return ok == 0;
}

static void one_round(struct tally *t, const char *directory, int who, long round)
{
    char file[600], fresh[600], other[600], text[64];
    struct stat st;
    double at;
    int fd, ok;
    snprintf(file, sizeof file, "%s/keep%d", directory, who);
    snprintf(fresh, sizeof fresh, "%s/new%d.%ld", directory, who, round);
    snprintf(other, sizeof other, "%s/moved%d.%ld", directory, who, round);
    snprintf(text, sizeof text, "file of caller %d", who);

    at = now(), fd = open(file, O_RDONLY), took(t, at);
    if (!judge(t, fd >= 0, errno)) {
        wrong(t, 0, check_file(fd, text) != 0);
        close(fd);
    }
    at = now(), ok = stat(file, &st), took(t, at);
    if (!judge(t, ok == 0, errno))
        wrong(t, 1, st.st_size != (off_t)strlen(text));
    at = now(), ok = stat(fresh, &st), took(t, at);
    if (ok == 0)
        wrong(t, 2, 1);
    else
        judge(t, errno == ENOENT, errno);
    at = now(), fd = open(fresh, O_CREAT | O_EXCL | O_RDWR, 0640), took(t, at);
    if (!judge(t, fd >= 0, errno)) {
        while ((ok = fstat(fd, &st)) < 0 && errno == EIO)
            ; /* newfstatat(2) in today's libc */
        if (ok < 0 || st.st_size != 0 || !S_ISREG(st.st_mode) || write(fd, text, 4) != 4)
            wrong(t, 3, 1);
        close(fd);
    }
    /* after an EIO it is there or not: the truth, not a guess, decides what is right from here on */
    if (!exists(fresh))
        return;
    at = now(), ok = rename(fresh, other), took(t, at);
    int unknown = judge(t, ok == 0, errno);
    if (unknown && !exists(other)) {
        if (!exists(fresh))
            wrong(t, 4, 1); /* it is nowhere: done twice or lost */
        strcpy(other, fresh);
    }
    at = now(), ok = unlink(other), took(t, at);
    unknown = judge(t, ok == 0, errno);
    if (exists(other)) {
        if (!unknown)
            wrong(t, 5, 1);
        while (unlink(other) < 0 && errno == EIO)
            ;
    }
}

static int load(const char *directory, double seconds, int callers)
{
    struct tally *all = mmap(NULL, sizeof(struct tally) * callers, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int killed = 0, status;
    long leaked = 0;
    int *leaks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double own_end = now() + seconds;
    volatile double *until = &own_end; /* in the file of slow calls: whoever reads it may end the load sooner */
    struct slow *slows = NULL;
    const char *file = getenv("SLOW_CALLS");
    if (file) {
        int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0666);
        size_t size = HEADER + sizeof(struct slow) * callers;
        if (fd < 0 || ftruncate(fd, size) < 0)
            return 3;
        char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            return 3;
        until = (double *)map, *until = own_end;
        slows = (struct slow *)(map + HEADER);
        close(fd);
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int who = 0; who < callers; who++) {
        /* a nursery for each caller: one that is killed is counted, and comes again */
        if (fork() == 0) {
            int dead = 0;
            slow = slows ? &slows[who] : NULL;
            while (now() < *until) {
                pid_t child = fork();
                if (child == 0) {
                    int before = descriptors_of();
                    for (long round = (long)dead << 32; now() < *until; round++)
                        one_round(&all[who], directory, who, round);
                    __atomic_add_fetch(leaks, descriptors_of() - before, __ATOMIC_SEQ_CST);
                    _exit(0);
                }
                while (waitpid(child, &status, 0) < 0)
                    ;
                if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                    break;
                dead++;
            }
            _exit(dead < 255 ? dead : 255);
        }
    }
    while (wait(&status) > 0)
        killed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    leaked = *leaks;
    struct tally sum = {0};
    for (int who = 0; who < callers; who++) {
        sum.calls += all[who].calls, sum.eio += all[who].eio;
        sum.wrong += all[who].wrong, sum.which |= all[who].which, sum.other += all[who].other;
        if (all[who].worst > sum.worst)
            sum.worst = all[who].worst;
        for (int i = 0; i < BUCKETS; i++)
            sum.bucket[i] += all[who].bucket[i];
        for (int i = 0; i < 4 && i < all[who].other; i++)
            printf("errno%d %ld\n", who * 4 + i, all[who].errnos[i]);
    }
    long p[3] = {0}, seen = 0;
    double parts[3] = {0.5, 0.99, 0.999};
    for (int i = 0, k = 0; i < BUCKETS && k < 3; i++) {
        seen += sum.bucket[i];
        while (k < 3 && seen >= sum.calls * parts[k])
            p[k++] = (i + 1) * 250;
    }
    printf("calls %ld\neio %ld\nwrong %ld\nwhich %#lx\nother %ld\nkilled %d\nleaked %ld\n", sum.calls, sum.eio, sum.wrong,
           sum.which, sum.other, killed, leaked);
    printf("p50-us %ld\np99-us %ld\np999-us %ld\nmax-us %ld\n", p[0], p[1], p[2], sum.worst);
    return 0;
}

/* ---- descriptors, page faults ----------------------------------------------------------------------- */

static void pause_for_test(const char *word)
{
    char c;
    printf("%s\n", word);
    fflush(stdout);
    while (read(0, &c, 1) == 1 && c != '\n')
        ;
}

static int opens(const char *path, int count, int killed)
{
    int mine = descriptors_of(), bad = 0;
    for (int i = 0; i < 200; i++)
        close(open(path, O_RDONLY));
    pause_for_test("warm");
    for (int i = 1; i <= count; i++) {
        if (i % killed == 0) {
            pid_t child = fork();
            if (child == 0)
                for (;;)
                    close(open(path, O_RDONLY));
            usleep(i % 7 * 100);
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        int fd = open(path, O_RDONLY);
        bad += fd < 0 || check_file(fd, "content");
        close(fd);
    }
    pause_for_test("done");
    printf("bad %d\nleaked %d\n", bad, descriptors_of() - mine);
    return 0;
}

static int uffd(void)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register area = {.range = {(uintptr_t)page, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &area) < 0) {
        printf("no-uffd %d\n", errno);
        return 0;
    }
    double at = now();
    long answer = syscall(SYS_mkdir, page, 0700);
    printf("answer %d\nmilliseconds %ld\n", answer < 0 ? errno : 0, (long)((now() - at) * 1000));
    return 0;
}

/* rmdir(2) for ever by children that somebody kills amid it: DIR COUNT, their pids to WORD of the state file */
static int vanish(const char *state, int count)
{
    int fd = open(state, O_RDWR), status, killed = 0;
    volatile uint64_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (int i = 0; i < count; i++) {
        int go[2];
        if (pipe(go) < 0)
            return 3;
        pid_t child = fork();
        if (child == 0) {
            char c;
            if (read(go[0], &c, 1) != 1)
                _exit(1);
            for (int n = 0; n < 100; n++)
                syscall(SYS_rmdir, "/nonexistent");
            _exit(0);
        }
        words[4] = child;
        if (write(go[1], "g", 1) != 1)
            return 4;
        waitpid(child, &status, 0);
        words[4] = 0;
        killed += WIFSIGNALED(status);
        close(go[0]), close(go[1]);
    }
    printf("killed %d\n", killed);
    return 0;
}

/* COUNT processes: children, sessions of their own, daemons; every one makes calls for ever */
static int tree(const char *path, int count)
{
    struct stat st;
    for (int i = 1; i < count; i++) {
        if (fork())
            continue;
        if (i % 3 == 1)
            setsid();
        if (i % 3 == 2 && (setsid(), fork()))
            _exit(0);
        for (;;) {
            stat(path, &st);
            usleep(20000);
        }
    }
    usleep(100000);
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "mark"))
        return write(1, "ran\n", 4) == 4 ? 42 : 1;
    if (argc == 4 && !strcmp(argv[1], "tree"))
        return tree(argv[2], atoi(argv[3]));
    if (argc == 5 && !strcmp(argv[1], "load"))
        return load(argv[2], atof(argv[3]), atoi(argv[4]));
    if (argc == 5 && !strcmp(argv[1], "again"))
        return again(argv[2], argv[3][0], atoi(argv[4]));
    if (argc == 5 && !strcmp(argv[1], "opens"))
        return opens(argv[2], atoi(argv[3]), atoi(argv[4]));
    if (argc == 4 && !strcmp(argv[1], "vanish"))
        return vanish(argv[2], atoi(argv[3]));
    if (argc == 2 && !strcmp(argv[1], "uffd"))
        return uffd();
    return argc == 3 ? victims(argv[1], argv[2]) : 2;
}
