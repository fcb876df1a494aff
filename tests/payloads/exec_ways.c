/* Executes PROGRAM, which exits with 42, in every way that is not its path.  exec_ways PROGRAM DIRECTORY
 *
 * DIRECTORY: where copies, links and scripts may be made.  `WAY N`: exit status the shell's way, 100 + errno if the
 * execution failed, 0 if the way cannot be gone here.
 */
#include "payload.h"
#include <dirent.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

static const char *program, *directory;
static char path[4096], other[4096];

static const char *in(char *buffer, const char *name) {
    snprintf(buffer, 4096, "%s/%s", directory, name);
    return buffer;
}

static void go(const char *file) {
    char *arguments[] = {"it", NULL}, *environment[] = {NULL};
    execve(file, arguments, environment);
    _exit(100 + errno);
}

static void go_at(int fd, const char *name, int flags) {
    char *arguments[] = {"it", NULL}, *environment[] = {NULL};
    syscall(SYS_execveat, fd, name, arguments, environment, flags);
    _exit(100 + errno);
}

static void go_number(const char *format, int fd) {
    snprintf(path, sizeof path, format, fd);
    go(path);
}

/* The program's bytes in another file. */
static void copy_to(int fd) {
    static char buffer[65536];
    int from = open(program, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    if (from < 0)
        _exit(0);
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        if (write(fd, buffer, (size_t)n) != n)
            _exit(0);
    close(from);
}

static int in_memory(unsigned flags) {
    int fd = (int)syscall(SYS_memfd_create, "it", flags);
    if (fd < 0)
        _exit(0);
    copy_to(fd);
    return fd;
}

static int copied(const char *name) {
    int fd = open(in(path, name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0700);
    if (fd < 0)
        _exit(0);
    copy_to(fd);
    close(fd);
    fd = open(in(path, name), O_RDONLY | O_CLOEXEC);
    return fd;
}

static int nameless(void) {
    int fd = open(directory, O_TMPFILE | O_RDWR, 0700), again;
    if (fd < 0)
        _exit(0);
    copy_to(fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return again;
}

static const char *script(char *buffer, const char *name, const char *interpreter) {
    char line[4096];
    int fd = open(in(buffer, name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0700);
    int n = snprintf(line, sizeof line, "#!%s\n", interpreter);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        _exit(0);
    close(fd);
    return buffer;
}

static void way_plain(void) { go(program); }
static void way_descriptor(void) { go_at(open(program, O_RDONLY | O_CLOEXEC), "", AT_EMPTY_PATH); }
static void way_descriptor_path(void) { go_at(open(program, O_PATH | O_CLOEXEC), "", AT_EMPTY_PATH); }
static void way_proc_fd(void) { go_number("/proc/self/fd/%d", open(program, O_RDONLY)); }
static void way_proc_task_fd(void) { go_number("/proc/thread-self/fd/%d", open(program, O_RDONLY)); }
static void way_dev_fd(void) { go_number("/dev/fd/%d", open(program, O_RDONLY)); }
static void way_memfd(void) { go_at(in_memory(MFD_CLOEXEC), "", AT_EMPTY_PATH); }
static void way_memfd_exec(void) { go_at(in_memory(MFD_CLOEXEC | 0x10 /* MFD_EXEC */), "", AT_EMPTY_PATH); }
static void way_memfd_proc(void) { go_number("/proc/self/fd/%d", in_memory(0)); }
static void way_memfd_link(void) {
    int fd = in_memory(0);
    char target[64];
    snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    unlink(in(path, "memory"));
    if (symlink(target, path))
        _exit(0);
    go(path);
}
static void way_nameless(void) { go_at(nameless(), "", AT_EMPTY_PATH); }
static void way_nameless_proc(void) { go_number("/proc/self/fd/%d", fcntl(nameless(), F_DUPFD, 50)); }
static void way_deleted(void) {
    int fd = copied("deleted");
    unlink(path);
    go_at(fd, "", AT_EMPTY_PATH);
}
static void way_link(void) {
    unlink(in(path, "link"));
    if (symlink(program, path))
        _exit(0);
    go(path);
}
static void way_at_link(void) {
    unlink(in(path, "link-at"));
    if (symlink(program, path))
        _exit(0);
    go_at(open(directory, O_RDONLY | O_DIRECTORY), "link-at", 0);
}
static void way_hard_link(void) {
    unlink(in(path, "hard"));
    if (link(program, path))
        _exit(0);
    go(path);
}
static void way_script(void) { go(script(path, "script", program)); }
static void way_scripts(void) {
    script(path, "script0", program);
    for (int i = 1; i < 4; i++) {
        char name[16], interpreter[4096];
        snprintf(interpreter, sizeof interpreter, "%s", path);
        snprintf(name, sizeof name, "script%d", i);
        script(path, name, interpreter);
    }
    go(path);
}
static void way_script_fd(void) { go_at(open(script(path, "script-fd", program), O_RDONLY), "", AT_EMPTY_PATH); }
static void way_script_proc(void) { go_number("/proc/self/fd/%d", open(script(path, "script-proc", program), O_RDONLY)); }
static void way_script_of_link(void) {
    unlink(in(other, "interpreter"));
    if (symlink(program, other))
        _exit(0);
    go(script(path, "script-link", other));
}
static void way_script_of_fd(void) {
    int fd = open(program, O_RDONLY);
    snprintf(other, sizeof other, "/proc/self/fd/%d", fd);
    go(script(path, "script-of-fd", other));
}
static void way_loader(void) {
    char *arguments[] = {"ld.so", (char *)(uintptr_t)program, NULL}, *environment[] = {NULL};
    execve("/lib64/ld-linux-x86-64.so.2", arguments, environment);
    _exit(100 + errno);
}
static void way_cwd(void) {
    char *slash = strrchr(strcpy(path, program), '/');
    *slash = 0;
    if (chdir(path))
        _exit(0);
    snprintf(other, sizeof other, "./%s", slash + 1);
    go(other);
}
static void way_vfork(void) {
    pid_t pid = vfork();
    if (pid == 0)
        go(program);
    _exit(reap(pid));
}

#define WAY(name) {#name, way_##name}
static struct {
    const char *name;
    void (*way)(void);
} ways[] = {
    WAY(plain), WAY(descriptor), WAY(descriptor_path), WAY(proc_fd), WAY(proc_task_fd), WAY(dev_fd), WAY(memfd),
    WAY(memfd_exec), WAY(memfd_proc), WAY(memfd_link), WAY(nameless), WAY(nameless_proc), WAY(deleted), WAY(link),
    WAY(at_link), WAY(hard_link), WAY(script), WAY(scripts), WAY(script_fd), WAY(script_proc), WAY(script_of_link),
    WAY(script_of_fd), WAY(loader), WAY(cwd), WAY(vfork),
};

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    program = argv[1];
    directory = argv[2];
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            ways[i].way();
            _exit(0);
        }
        sayf("%s %d", ways[i].name, reap(pid));
    }
    return 0;
}
