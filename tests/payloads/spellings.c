/* Each spelling of a path, by each of open, stat, lstat, readlink, chdir, exec: spellings BOX SECRET LIST
 *
 * {P} {T} {B} {S} {D} {R} in LIST stand for pid, thread id, BOX, SECRET, a descriptor of BOX, one of /. Numbers of this
 * process are written as PID in the output, so that two runs compare equal line by line. Runs in a second thread: then
 * thread-self and self differ.
 */
#include "payload.h"

static const char *box, *secret, *list;
static int box_fd, root_fd;

static void replace(char *text, const char *what, const char *with) {
    char out[8192], *at;
    while ((at = strstr(text, what))) {
        size_t head = (size_t)(at - text);
        snprintf(out, sizeof out, "%.*s%s%s", (int)head, text, with, at + strlen(what));
        strcpy(text, out);
    }
}

static void number(char *text, const char *what, long value) {
    char digits[24];
    snprintf(digits, sizeof digits, "%ld", value);
    replace(text, what, digits);
}

static void expand(char *text) {
    number(text, "{P}", getpid()), number(text, "{T}", syscall(SYS_gettid));
    number(text, "{D}", box_fd), number(text, "{R}", root_fd);
    replace(text, "{B}", box), replace(text, "{S}", secret);
}

/* The reverse for output: numbers of ours by name. */
static void mask(char *text) {
    char pid[24], tid[24], whole[PATH_MAX + 64];
    snprintf(pid, sizeof pid, "/%d", getpid());
    snprintf(tid, sizeof tid, "/%ld", syscall(SYS_gettid));
    snprintf(whole, sizeof whole, "/%s", text);
    replace(whole, pid, "/PID"), replace(whole, tid, "/TID");
    strcpy(text, whole + 1);
}

static void show_open(const char *pattern, const char *path) {
    char text[2048] = "", *at;
    int fd = (int)syscall(SYS_open, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        sayf("open %s errno %d", pattern, errno);
        return;
    }
    long size = read(fd, text, sizeof text - 1);
    const char *kind = size < 0 ? "dir" : is_secret(fd) ? "secret" : "file";
    long pid = (at = strstr(text, "\nPid:")) ? atol(at + 5) : 0;
    long tgid = (at = strstr(text, "\nTgid:")) ? atol(at + 6) : 0;
    sayf("open %s %s pid %s tgid %s", pattern, kind,
         !pid ? "-" : pid == getpid() ? "PID" : pid == syscall(SYS_gettid) ? "TID" : "WRONG",
         !tgid ? "-" : tgid == getpid() ? "PID" : "WRONG");
    close(fd);
}

static void show_stat(const char *pattern, const char *path, int nr, const char *name) {
    struct stat st;
    if (syscall(nr, path, &st) < 0)
        sayf("%s %s errno %d", name, pattern, errno);
    else
        sayf("%s %s mode %o %s", name, pattern, st.st_mode & S_IFMT, S_ISREG(st.st_mode) && st.st_size ? "sized" : "-");
}

static void show_link(const char *pattern, const char *path) {
    char text[PATH_MAX + 1];
    long size = syscall(SYS_readlink, path, text, PATH_MAX);
    if (size < 0) {
        sayf("readlink %s errno %d", pattern, errno);
        return;
    }
    text[size] = 0;
    mask(text);
    sayf("readlink %s %s", pattern, text);
}

/* In a child, for whom the spelling is expanded anew: chdir and say where. */
static void show_chdir(const char *pattern) {
    int channel[2], error;
    char path[8192], where[PATH_MAX] = "", line[PATH_MAX + 32] = "killed";
    if (pipe(channel) < 0)
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        strcpy(path, pattern);
        expand(path);
        error = syscall(SYS_chdir, path) < 0 ? errno : 0;
        if (!error && syscall(SYS_getcwd, where, sizeof where) < 0)
            strcpy(where, "?");
        mask(where);
        int size = snprintf(line, sizeof line, "%d %s", error, where);
        _exit(write(channel[1], line, (size_t)size) != size);
    }
    close(channel[1]);
    long size = read(channel[0], line, sizeof line - 1);
    line[size > 0 ? size : 6] = 0;
    close(channel[0]);
    reap(pid);
    sayf("chdir %s %s", pattern, line);
}

/* In a child: exec; this program, executed through one of the spellings, exits with 7. */
static void show_exec(const char *pattern) {
    static char *arguments[] = {"x", "quit", NULL}, *environment[] = {NULL};
    char path[8192];
    pid_t pid = fork();
    if (pid == 0) {
        strcpy(path, pattern);
        expand(path);
        syscall(SYS_execve, path, arguments, environment);
        _exit(errno);
    }
    sayf("exec %s %d", pattern, reap(pid));
}

static void *run(void *unused UNUSED) {
    FILE *file = fopen(list, "r");
    char pattern[4096], path[8192];
    if (!file)
        die("list");
    while (fgets(pattern, sizeof pattern, file)) {
        pattern[strcspn(pattern, "\n")] = 0;
        strcpy(path, pattern);
        expand(path);
        show_open(pattern, path);
        show_stat(pattern, path, SYS_stat, "stat");
        show_stat(pattern, path, SYS_lstat, "lstat");
        show_link(pattern, path);
        show_chdir(pattern);
        show_exec(pattern);
    }
    fclose(file);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc == 2)
        return 7; /* executed through one of the spellings */
    if (argc < 4)
        return 97;
    box = argv[1], secret = argv[2], list = argv[3];
    box_fd = open(box, O_RDONLY | O_DIRECTORY);
    root_fd = open("/", O_RDONLY | O_DIRECTORY);
    if (box_fd < 0 || root_fd < 0)
        die("descriptors");
    pthread_create(&thread, NULL, run, NULL);
    pthread_join(thread, NULL);
    return 0;
}
