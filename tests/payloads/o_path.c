/* O_PATH on things that must not be opened: o_path FIFO FILE. Nothing may block, no reader may appear. */
#include "payload.h"
static void probe(const char *name, const char *path, int flags) {
    double start = now();
    int fd = (int)syscall(SYS_open, path, O_PATH | O_CLOEXEC | flags), error = fd < 0 ? errno : 0;
    char byte;
    struct stat st = {0};
    sayf("%s.errno %d\n%s.slow %d", name, error, name, now() - start > 2);
    if (fd < 0)
        return;
    long size = read(fd, &byte, 1);
    sayf("%s.read %d", name, size < 0 ? errno : 0);
    int known = fstat(fd, &st) ? errno : 0;
    sayf("%s.fstat %d %o", name, known, st.st_mode & S_IFMT);
    int writer = open(path, O_WRONLY | O_NONBLOCK);
    sayf("%s.writer %d", name, writer < 0 ? errno : 0);
    close(fd);
}
int main(int argc, char **argv) {
    if (argc < 3)
        return 97;
    probe("fifo", argv[1], 0);
    probe("file", argv[2], O_NOFOLLOW);
    return 0;
}
