/* speak WORD...: what each way of asking the sandbox gives.
 *
 *   CALL:PATH   stat, lstat, newfstatat, statx, null and bad (stat into NULL, into 8), access, open, openrw, opath,
 *               ocreat, symlink
 *   fork:PATH   stat in a child          thread:PATH   stat in a thread
 *   exec:FILE   execve of FILE in a child and its exit status
 *   load:A;B    a file of commands A and B, and stat of /dev/syd/load/FD
 *   wait:MS     sleep
 *
 * Prints `WORD result`, an errno or 0; for open the first bytes of what was opened.
 */
#include "payload.h"

static int show(const char *path, int flags) {
    char text[4096];
    int fd = open(path, flags, 0600);
    if (fd < 0)
        return errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    printf("cloexec %d writable %d seals %#x bytes %zd\n", fcntl(fd, F_GETFD), write(fd, "x", 1) == 1,
           fcntl(fd, 1034 /* F_GET_SEALS */), n);
    while (n > 0 && flags == (O_RDONLY | O_CLOEXEC)) {
        fwrite(text, 1, n, stdout);
        n = read(fd, text, sizeof text);
    }
    close(fd);
    return 0;
}

static int plain(const char *path) {
    struct stat status;
    memset(&status, 7, sizeof status);
    if (syscall(SYS_stat, path, &status))
        return errno;
    return S_ISCHR(status.st_mode) && !status.st_ino && !status.st_size ? 0 : 1000;
}

static void *in_thread(void *path) { return (void *)(long)plain(path); }

static int one(const char *how, const char *path) {
    struct stat status;
    struct statx x;
    if (!strcmp(how, "stat"))
        return plain(path);
    if (!strcmp(how, "lstat"))
        return syscall(SYS_lstat, path, &status) ? errno : !S_ISCHR(status.st_mode) * 1000;
    if (!strcmp(how, "newfstatat"))
        return syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0x800) ? errno : !S_ISCHR(status.st_mode) * 1000;
    if (!strcmp(how, "statx"))
        return syscall(SYS_statx, AT_FDCWD, path, 0, 0x7ff, &x) ? errno : !S_ISCHR(x.stx_mode) * 1000;
    if (!strcmp(how, "null"))
        return syscall(SYS_stat, path, NULL) ? errno : 0;
    if (!strcmp(how, "bad"))
        return syscall(SYS_stat, path, 8) ? errno : 0;
    if (!strcmp(how, "access"))
        return access(path, F_OK) ? errno : 0;
    if (!strcmp(how, "open"))
        return show(path, O_RDONLY | O_CLOEXEC);
    if (!strcmp(how, "openrw"))
        return show(path, O_RDWR);
    if (!strcmp(how, "opath"))
        return show(path, O_PATH);
    if (!strcmp(how, "ocreat"))
        return show(path, O_RDWR | O_CREAT);
    if (!strcmp(how, "symlink"))
        return syscall(SYS_symlink, "nowhere", path) ? errno : 0;
    if (!strcmp(how, "wait"))
        return usleep(atoi(path) * 1000);
    if (!strcmp(how, "load")) { 
        int fd = open("/tmp", O_RDWR | O_TMPFILE, 0600);
        char command[64];
        for (const char *c = path; *c; c++)
            if (write(fd, *c == ';' ? "\n" : c, 1) != 1)
                return 1001;
        lseek(fd, 0, SEEK_SET);
        snprintf(command, sizeof command, "/dev/syd/load/%d", fd);
        int result = plain(command);
        close(fd);
        return result;
    }
    if (!strcmp(how, "fork") || !strcmp(how, "exec")) {
        int wstatus, forked = !strcmp(how, "fork");
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) {
            if (forked)
                _exit(plain(path) & 255);
            execl(path, path, (char *)NULL);
            _exit(errno);
        }
        waitpid(pid, &wstatus, 0);
        return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : 1000 + WTERMSIG(wstatus);
    }
    if (!strcmp(how, "thread")) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, in_thread, (void *)path);
        pthread_join(thread, &result);
        return (int)(long)result;
    }
    return 1002;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *word = strdup(argv[i]), *path = strchr(word, ':');
        *path++ = 0;
        int result = one(word, path);
        printf("%s %d\n", argv[i], result);
        fflush(stdout);
    }
    return 0;
}
