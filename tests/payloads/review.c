/* review WHAT DIRECTORY [FILE]: attacks that once worked, one for each WHAT; prints `key errno`, 0 for success. */
#include "payload.h"
#include <grp.h>
#include <sys/inotify.h>
#include <sys/un.h>

static const char *directory, *file;

static void tell(const char *key, long result) { say(key, result < 0 ? errno : 0); }

static char *below(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* A process name that looks like a line of /proc/PID/status. */
static void forged_name(void) {
    const char *names[] = {"Umask:\tzz", "FDSize:\tzz", "Umask:\t0000"};
    for (int i = 0; i < 9; i++) {
        char name[32];
        prctl(PR_SET_NAME, names[i % 3], 0, 0, 0);
        snprintf(name, sizeof name, "new%d", i);
        umask(027);
        tell(name, open(below(name), O_CREAT | O_WRONLY, 0666));
    }
}

/* What takes a descriptor, in a thread whose leader has ended (WHAT leader) or that has its own table (WHAT table). */
static void *with_descriptors(void *own_table) {
    char buffer[4096];
    struct stat status;
    if (own_table)
        tell("unshare", unshare(CLONE_FILES));
    else
        usleep(100000);
    int fd = dup2(open(directory, O_RDONLY | O_DIRECTORY), 77);
    tell("getdents", syscall(SYS_getdents64, fd, buffer, sizeof buffer));
    tell("fstat", fstatat(fd, "", &status, AT_EMPTY_PATH));
    tell("openat", openat(fd, "aaaa", O_RDONLY));
    tell("fchdir", fchdir(fd));
    tell("futimens", futimens(dup2(open(below("aaaa"), O_RDWR), 78), NULL));
    exit(0);
}

/* Identity: none of these may read FILE, which belongs to another user. */
static void *read_it(void *count) {
    int fd = open(file, O_RDONLY);
    *(long *)count += fd >= 0;
    close(fd);
    return NULL;
}

static void drop_to(int id) {
    syscall(SYS_setgroups, 0, NULL);
    syscall(SYS_setresgid, id, id, id);
    syscall(SYS_setresuid, id, id, id);
}

static void *thread_that_drops(void *count) {
    drop_to(1000);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, read_it, count);
        pthread_join(thread, NULL);
    }
    return NULL;
}

static void heirs(void) {
    long read = 0;
    pthread_t thread;
    read_it(&read);
    say("before", read);
    read = 0;
    pthread_create(&thread, NULL, thread_that_drops, &read);
    pthread_join(thread, NULL);
    say("threads", read);
    drop_to(1000);
    read = 0;
    for (int i = 0; i < 20; i++) {
        int status;
        pid_t child = fork();
        if (!child) {
            long got = 0;
            read_it(&got);
            _exit((int)got);
        }
        waitpid(child, &status, 0);
        read += WEXITSTATUS(status);
    }
    say("children", read);
}

/* Root without capabilities to inherit: the next program has none. */
static void bounding_set(char **argv) {
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    execl(argv[0], argv[0], "read", directory, file, NULL);
}

/* Who a server on DIRECTORY/server sees. */
static void peer(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/server", directory);
    drop_to(1000);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    tell("connect", connect(fd, (void *)&address, sizeof address));
}

/* Write a program, close it, execute it. */
static void busy(void) {
    static char image[1 << 20];
    long count = 0, failed = 0;
    int fd = open("/bin/true", O_RDONLY);
    ssize_t size = read(fd, image, sizeof image);
    double end = now() + atof(file);
    for (int i = 0; i < 2; i++)
        if (!fork()) {
            while (now() < end)
                close(open("/etc/passwd", O_RDONLY));
            _exit(0);
        }
    for (; now() < end; count++) {
        int status;
        char *path = below("program");
        fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);
        if (write(fd, image, (size_t)size) != size)
            _exit(97);
        close(fd);
        pid_t child = vfork();
        if (!child) {
            execl(path, path, NULL);
            _exit(errno);
        }
        waitpid(child, &status, 0);
        failed += WEXITSTATUS(status) == ETXTBSY;
        unlink(path);
    }
    while (wait(NULL) > 0)
        ;
    say("rounds", count);
    say("busy", failed);
}

/* Changes through a descriptor that was opened as the rules allow. */
static void descriptor(void) {
    int fd = open(file, O_RDWR);
    tell("open", fd);
    tell("fchmod", fchmod(fd, 0600));
    tell("fchown", fchown(fd, -1, getgid()));
    tell("ftruncate", ftruncate(fd, 1));
    tell("fallocate", fallocate(fd, 0, 0, 100));
    tell("fsetxattr", fsetxattr(fd, "user.a", "1", 1, 0));
    tell("fremovexattr", fremovexattr(fd, "user.a"));
}

/* An open that waits for a lease, as long as its holder likes. */
static void lease(void) {
    signal(SIGIO, SIG_IGN);
    int held = open(file, O_RDONLY);
    tell("lease", fcntl(held, F_SETLEASE, F_RDLCK));
    pid_t child = fork();
    if (!child) {
        double start = now();
        int fd = open(file, O_WRONLY);
        tell("opened", fd);
        say("flags", fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
        say("waited", now() - start > 1);
        _exit(0);
    }
    sleep(3);
    for (int i = 0; i < 3; i++)
        tell("meanwhile", open("/etc/passwd", O_RDONLY));
    fcntl(held, F_SETLEASE, F_UNLCK);
    waitpid(child, NULL, 0);
}

/* A truncation and an execution that meet a lease: `truncate E`, `exec S`, and others' calls meanwhile. */
static void lease_on(int kind, int execute) {
    signal(SIGIO, SIG_IGN);
    int held = open(file, O_RDWR);
    if (kind == F_RDLCK) {
        close(held);
        held = open(file, O_RDONLY);
    }
    tell("lease", fcntl(held, F_SETLEASE, kind));
    pid_t child = fork();
    if (!child) {
        close(held);
        if (execute) {
            execl(file, file, NULL);
            _exit(errno);
        }
        double start = now();
        tell("truncate", truncate(file, 1));
        say("waited", now() - start > 0.5);
        _exit(0);
    }
    usleep(900000);
    double start = now();
    for (int i = 0; i < 20; i++)
        tell("meanwhile", open("/etc/passwd", O_RDONLY));
    say("slow", now() - start > 1);
    fcntl(held, F_SETLEASE, F_UNLCK);
    close(held);
    say("status", reap(child));
}

/* Threads that change directory while a sibling executes: whoever is left is where it may be. */
static void *goes(void *unused) {
    for (;;)
        if (chdir("/usr/../tmp") < 0)
            return unused;
}

static void *executes(void *unused) {
    usleep(1000);
    execl("/bin/true", "true", NULL);
    return unused;
}

static void chdir_and_exec(void) {
    long killed = 0, rounds = 0;
    for (double end = now() + atof(file); now() < end; rounds++) {
        int status;
        pid_t child = fork();
        if (!child) {
            pthread_t thread;
            for (int i = 0; i < 4; i++)
                pthread_create(&thread, NULL, goes, NULL);
            pthread_create(&thread, NULL, executes, NULL);
            goes(NULL);
        }
        waitpid(child, &status, 0);
        killed += status != 0;
    }
    say("rounds", rounds > 0);
    say("killed", killed);
}

static int opens(void *unused) {
    (void)unused;
    tell("opened", open(file, O_RDONLY));
    return 0;
}

/* A thread by clone(2) with other flags beside CLONE_THREAD: SIGCHLD, CLONE_VFORK or none. */
static void odd_thread(int more) {
    static char stack[65536] __attribute__((aligned(16)));
    static int running = 1; /* the kernel clears it when the thread has ended */
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
    if (clone(opens, stack + sizeof stack, flags | more, NULL, NULL, NULL, &running) < 0)
        die("clone");
    for (int i = 0; i < 500 && *(volatile int *)&running; i++)
        usleep(10000);
    usleep(100000);
    say("alive", 1);
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc < 3)
        return 2;
    const char *what = argv[1];
    directory = argv[2];
    file = argc > 3 ? argv[3] : "";
    if (!strcmp(what, "forged-name"))
        forged_name();
    else if (!strcmp(what, "leader") || !strcmp(what, "table")) {
        int own_table = *what == 't';
        pthread_create(&thread, NULL, with_descriptors, own_table ? &thread : NULL);
        if (!own_table)
            pthread_exit(NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(what, "heirs"))
        heirs();
    else if (!strcmp(what, "bounding-set"))
        bounding_set(argv);
    else if (!strcmp(what, "thread"))
        odd_thread(0);
    else if (!strcmp(what, "thread-sigchld"))
        odd_thread(SIGCHLD);
    else if (!strcmp(what, "thread-vfork"))
        odd_thread(CLONE_VFORK);
    else if (!strcmp(what, "read"))
        tell("read", open(file, O_RDONLY));
    else if (!strcmp(what, "peer"))
        peer();
    else if (!strcmp(what, "busy"))
        busy();
    else if (!strcmp(what, "fanotify"))
        tell("fanotify", syscall(SYS_fanotify_init, 0, O_RDONLY));
    else if (!strcmp(what, "descriptor"))
        descriptor();
    else if (!strcmp(what, "chdir-and-exec"))
        chdir_and_exec();
    else if (!strcmp(what, "lease-truncate"))
        lease_on(F_RDLCK, 0);
    else if (!strcmp(what, "lease-exec"))
        lease_on(F_WRLCK, 1);
    else if (!strcmp(what, "lease"))
        lease();
    else if (!strcmp(what, "wait")) { /* as another identity once, then for the end */
        struct stat status;
        if (!fork()) {
            drop_to(1000);
            for (int i = 0; i < 20; i++)
                stat("/etc/passwd", &status);
            _exit(0);
        }
        wait(NULL);
        say("ready", 0);
        sleep(20);
    }
    return 0;
}
