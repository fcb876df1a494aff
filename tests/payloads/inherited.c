/* What can be done with a directory descriptor of the protected tree: inherited NUMBER | inherited receive
 *
 * `receive` takes it from the socket on descriptor 0 (SCM_RIGHTS). Prints `name errno` (0: done) for each use.
 */
#include "payload.h"

static int receive(void) {
    char byte, space[CMSG_SPACE(sizeof(int))] = "";
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(0, &message, 0) < 0) {
        sayf("recvmsg %d", errno);
        exit(0);
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head)
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

static void use(const char *name, long rc) { sayf("%s %d", name, rc < 0 ? errno : 0); }

static void show(const char *name, int fd) {
    char text[128] = "";
    if (fd < 0) {
        sayf("%s %d", name, errno);
        return;
    }
    if (read(fd, text, sizeof text - 1) < 0)
        strcpy(text, "?");
    text[strcspn(text, "\n")] = 0;
    sayf("%s 0\n%s-text %s", name, name, text);
}

int main(int argc, char **argv) {
    struct stat st;
    char path[128], text[256];
    if (argc < 2)
        return 97;
    int fd = strcmp(argv[1], "receive") ? atoi(argv[1]) : receive();
    use("descriptor", fcntl(fd, F_GETFD));
    show("openat", (int)syscall(SYS_openat, fd, "FLAG", O_RDONLY));
    show("openat-dots", (int)syscall(SYS_openat, fd, "../ctf/FLAG", O_RDONLY));
    use("newfstatat", syscall(SYS_newfstatat, fd, "FLAG", &st, 0));
    use("unlinkat", syscall(SYS_unlinkat, fd, "victim", 0));
    use("mkdirat", syscall(SYS_mkdirat, fd, "made", 0700));
    use("renameat", syscall(SYS_renameat, fd, "victim2", fd, "renamed"));
    snprintf(path, sizeof path, "/proc/self/fd/%d/FLAG", fd);
    show("proc", (int)syscall(SYS_open, path, O_RDONLY));
    snprintf(path, sizeof path, "/dev/fd/%d/FLAG", fd);
    show("dev", (int)syscall(SYS_open, path, O_RDONLY));
    use("fchdir", syscall(SYS_fchdir, fd));
    show("relative", (int)syscall(SYS_open, "FLAG", O_RDONLY));
    use("reopen", syscall(SYS_openat, fd, ".", O_RDONLY | O_DIRECTORY));
    use("list", syscall(SYS_getdents64, fd, text, sizeof text));
    return 0;
}
