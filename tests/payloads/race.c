/* One path, two meanings: calls are made while the path (or the tree) is changed under them.
 *
 *   race WRITER SECONDS UNTIL THREADS BENIGN SECRET SCRATCH OP...
 *
 * WRITER  thread, clonevm, shm, file: who flips the path in memory between BENIGN/OP and SECRET/OP (paths that differ in
 *         one aligned 4-byte word, stored atomically: no mixture is ever seen);
 *         none: the path BENIGN/OP is left alone, somebody outside swaps a component of it.
 * SECONDS for each OP; UNTIL=1 stops an OP at its first success (positive controls need no more).
 * Prints per OP: OP.calls, OP.ok, OP.leak, OP.errno.E count. A leak is a secret seen or an effect on it.
 */
#include "payload.h"
#include <linux/openat2.h>

enum { PATH_ROOM = 512 };
static char *path;
static const char *scratch;
static const char *benign, *secret;
static atomic_long serial;

/* ---- what is called: >= 0 done, -errno, LEAK ---- */
enum { LEAK = 1 << 20 };

static int seen(int fd) {
    if (fd < 0)
        return -errno;
    int leak = is_secret(fd);
    close(fd);
    return leak ? LEAK : 0;
}

static int seen_stat(long rc, const struct stat *st) {
    if (rc < 0)
        return -errno;
    return S_ISREG(st->st_mode) && (st->st_mode & 0777) == SECRET_MODE ? LEAK : 0;
}

static int only(long rc) { return rc < 0 ? -errno : LEAK; } /* the name exists on the secret side only */
static int done(long rc) { return rc < 0 ? -errno : 0; }    /* where it went is judged from outside */

static int run_at(int at) {
    static char *arguments[] = {"victim", NULL}, *environment[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        if (at)
            syscall(SYS_execveat, AT_FDCWD, path, arguments, environment, 0);
        else
            syscall(SYS_execve, path, arguments, environment);
        _exit(errno == EACCES || errno == EPERM ? 100 : 101);
    }
    if (pid < 0)
        return -errno;
    int status = reap(pid);
    return status == 42 ? LEAK : status == 7 ? 0 : status == 100 ? -EACCES : status >= 128 ? -EPERM : -ENOENT;
}

static int change_directory(void) {
    char where[PATH_MAX];
    pid_t pid = fork();
    if (pid == 0) {
        if (syscall(SYS_chdir, path) < 0)
            _exit(100);
        if (syscall(SYS_getcwd, where, sizeof where) < 0)
            _exit(101);
        _exit(strstr(where, "/ctf") ? 42 : 7);
    }
    if (pid < 0)
        return -errno;
    int status = reap(pid);
    return status == 42 ? LEAK : status == 7 ? 0 : -EACCES;
}

static int list_directory(void) {
    char entries[512];
    int fd = (int)syscall(SYS_open, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return -errno;
    long rc = syscall(SYS_getdents64, fd, entries, sizeof entries);
    close(fd);
    return rc < 0 ? -errno : LEAK;
}

static int into(const char *op) {
    char source[PATH_ROOM];
    snprintf(source, sizeof source, "%s/source%07ld", scratch, atomic_fetch_add(&serial, 1));
    int fd = open(source, O_CREAT | O_WRONLY, 0644);
    if (fd < 0)
        return -errno;
    close(fd);
    long rc = strcmp(op, "linkto") ? syscall(SYS_rename, source, path) : syscall(SYS_link, source, path);
    int result = done(rc);
    unlink(source);
    return result;
}

static int away(const char *op) {
    char out[PATH_ROOM];
    snprintf(out, sizeof out, "%s/out%07ld", scratch, atomic_fetch_add(&serial, 1));
    if (!strcmp(op, "rename"))
        return only(syscall(SYS_rename, path, out));
    if (!strcmp(op, "renameat"))
        return only(syscall(SYS_renameat, AT_FDCWD, path, AT_FDCWD, out));
    if (!strcmp(op, "renameat2"))
        return only(syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, out, 1 /* NOREPLACE */));
    if (!strcmp(op, "link"))
        return only(syscall(SYS_link, path, out));
    return only(syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, out, 0));
}

static int call(const char *op) {
    struct stat st;
    struct statx stx;
    char room[PATH_ROOM];
    struct open_how how = {.flags = O_RDONLY};
    if (!strcmp(op, "open"))
        return seen((int)syscall(SYS_open, path, O_RDONLY));
    if (!strcmp(op, "openat"))
        return seen((int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR));
    if (!strcmp(op, "openat2"))
        return seen((int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how));
    if (!strcmp(op, "creat"))
        return seen((int)syscall(SYS_creat, path, 0600));
    if (!strcmp(op, "opentrunc"))
        return seen((int)syscall(SYS_open, path, O_WRONLY | O_TRUNC));
    if (!strcmp(op, "stat"))
        return seen_stat(syscall(SYS_stat, path, &st), &st);
    if (!strcmp(op, "lstat"))
        return seen_stat(syscall(SYS_lstat, path, &st), &st);
    if (!strcmp(op, "newfstatat"))
        return seen_stat(syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0), &st);
    if (!strcmp(op, "statx")) {
        long rc = syscall(SYS_statx, AT_FDCWD, path, 0, STATX_BASIC_STATS, &stx);
        return rc < 0 ? -errno : (stx.stx_mode & 0777) == SECRET_MODE ? LEAK : 0;
    }
    if (!strcmp(op, "access"))
        return only(syscall(SYS_access, path, F_OK));
    if (!strcmp(op, "faccessat"))
        return only(syscall(SYS_faccessat, AT_FDCWD, path, R_OK));
    if (!strcmp(op, "faccessat2"))
        return only(syscall(SYS_faccessat2, AT_FDCWD, path, F_OK, AT_EACCESS));
    if (!strcmp(op, "readlink"))
        return only(syscall(SYS_readlink, path, room, sizeof room));
    if (!strcmp(op, "readlinkat"))
        return only(syscall(SYS_readlinkat, AT_FDCWD, path, room, sizeof room));
    if (!strcmp(op, "truncate"))
        return only(syscall(SYS_truncate, path, 3L));
    if (!strcmp(op, "unlink"))
        return only(syscall(SYS_unlink, path));
    if (!strcmp(op, "unlinkat"))
        return only(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
    if (!strcmp(op, "rmdir"))
        return only(syscall(SYS_rmdir, path));
    if (!strncmp(op, "rename", 6) && strcmp(op, "renameto"))
        return away(op);
    if (!strcmp(op, "link") || !strcmp(op, "linkat"))
        return away(op);
    if (!strcmp(op, "renameto") || !strcmp(op, "linkto"))
        return into(op);
    if (!strcmp(op, "getdents64"))
        return list_directory();
    if (!strcmp(op, "chdir"))
        return change_directory();
    if (!strcmp(op, "execve"))
        return run_at(0);
    if (!strcmp(op, "execveat"))
        return run_at(1);
    if (!strcmp(op, "mkdir"))
        return done(syscall(SYS_mkdir, path, 0755));
    if (!strcmp(op, "mkdirat"))
        return done(syscall(SYS_mkdirat, AT_FDCWD, path, 0755));
    if (!strcmp(op, "symlink"))
        return done(syscall(SYS_symlink, "nowhere", path));
    if (!strcmp(op, "symlinkat"))
        return done(syscall(SYS_symlinkat, "nowhere", AT_FDCWD, path));
    if (!strcmp(op, "openexcl"))
        return seen((int)syscall(SYS_open, path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    errno = EINVAL;
    die(op);
    return -EINVAL;
}

/* ---- who flips ---- */
struct word {
    _Atomic uint32_t *place;
    uint32_t one, two;
    _Atomic int *stop;
};

static int flip(void *data) {
    struct word *word = data;
    while (!atomic_load_explicit(word->stop, memory_order_relaxed)) {
        atomic_store_explicit(word->place, word->one, memory_order_relaxed);
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
        atomic_store_explicit(word->place, word->two, memory_order_relaxed);
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
    }
    return 0;
}
static void *flip_thread(void *data) { return flip(data), NULL; }

static size_t first_difference(const char *one, const char *two) {
    size_t at = 0;
    while (one[at] && one[at] == two[at])
        at++;
    return at;
}

/* Lay BENIGN/OP so that the word with the difference is aligned. */
static struct word lay(char *room, const char *op, _Atomic int *stop) {
    char one[PATH_ROOM], two[PATH_ROOM];
    snprintf(one, sizeof one, "%s/%s", benign, op);
    snprintf(two, sizeof two, "%s/%s", secret, op);
    size_t at = first_difference(one, two);
    path = room + (4 - at % 4) % 4;
    memset(path, 0, PATH_ROOM);
    strcpy(path, one);
    struct word word = {(_Atomic uint32_t *)(path + at), 0, 0, stop};
    memcpy(&word.one, one + at, 4);
    memcpy(&word.two, two + at, 4);
    return word;
}

static char *map_room(const char *writer) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;
    if (!strcmp(writer, "shm"))
        flags = MAP_SHARED | MAP_ANONYMOUS;
    if (!strcmp(writer, "file")) {
        char name[PATH_ROOM];
        snprintf(name, sizeof name, "%s/alias", scratch);
        fd = open(name, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || ftruncate(fd, 4096) < 0)
            die("alias");
        flags = MAP_SHARED;
    }
    char *room = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (room == MAP_FAILED)
        die("mmap");
    return room;
}

/* ---- the callers ---- */
struct tally {
    const char *op;
    double until;
    int first_only;
    long calls, ok, leak, error[256];
};
static atomic_int enough;

static void *caller(void *data) {
    struct tally *t = data;
    while (now() < t->until && !(t->first_only && atomic_load(&enough))) {
        int result = call(t->op);
        t->calls++;
        if (result == LEAK) {
            t->leak++;
            atomic_store(&enough, 1);
        } else if (result < 0)
            t->error[(unsigned char)-result]++;
        else
            t->ok++;
    }
    return NULL;
}

static void report(struct tally *all, int threads) {
    struct tally sum = {.op = all[0].op};
    char line[4096];
    int size = 0;
    for (int i = 0; i < threads; i++) {
        sum.calls += all[i].calls, sum.ok += all[i].ok, sum.leak += all[i].leak;
        for (int e = 0; e < 256; e++)
            sum.error[e] += all[i].error[e];
    }
    for (int e = 0; e < 256; e++)
        if (sum.error[e])
            size += snprintf(line + size, sizeof line - (size_t)size, "\n%s.errno.%d %ld", sum.op, e, sum.error[e]);
    line[size] = 0;
    sayf("%s.calls %ld\n%s.ok %ld\n%s.leak %ld%s", sum.op, sum.calls, sum.op, sum.ok, sum.op, sum.leak, line);
}

static void race(const char *writer, const char *op, double seconds, int first_only, int threads) {
    static char stack[65536] __attribute__((aligned(16)));
    char *room = map_room(writer);
    _Atomic int *stop = (_Atomic int *)(room + 2048);
    *stop = 0;
    struct word word = lay(room, op, stop);
    pthread_t flipper, caller_id[64];
    pid_t pid = 0;
    struct tally *tally = calloc((size_t)threads, sizeof *tally);
    if (!strcmp(writer, "thread"))
        pthread_create(&flipper, NULL, flip_thread, &word);
    else if (!strcmp(writer, "clonevm"))
        pid = clone(flip, stack + sizeof stack, CLONE_VM | SIGCHLD, &word);
    else if (strcmp(writer, "none") && (pid = fork()) == 0)
        _exit(flip(&word));
    if (pid < 0)
        die("writer");
    atomic_store(&enough, 0);
    for (int i = 0; i < threads; i++) {
        tally[i] = (struct tally){.op = op, .until = now() + seconds, .first_only = first_only};
        pthread_create(&caller_id[i], NULL, caller, &tally[i]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(caller_id[i], NULL);
    *stop = 1;
    if (!strcmp(writer, "thread"))
        pthread_join(flipper, NULL);
    else if (pid)
        reap(pid);
    report(tally, threads);
    free(tally);
    munmap(room, 4096);
}

int main(int argc, char **argv) {
    if (argc < 9)
        return 97;
    benign = argv[5], secret = argv[6], scratch = argv[7];
    for (int i = 8; i < argc; i++)
        race(argv[1], argv[i], atof(argv[2]), atoi(argv[3]), atoi(argv[4]));
    return 0;
}
