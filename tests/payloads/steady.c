/* Counts calls that must all succeed, for ever until stdin is closed: steady DIRECTORY. Prints ready PID, then totals. */
#include "payload.h"
int main(int argc, char **argv) {
    char path[512];
    long calls = 0, failed = 0;
    int last = 0;
    struct pollfd in = {.fd = 0, .events = POLLIN};
    if (argc < 2)
        return 97;
    snprintf(path, sizeof path, "%s/steady", argv[1]);
    say("ready", getpid());
    while (poll(&in, 1, 0) == 0) {
        int fd = (int)syscall(SYS_open, path, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd < 0)
            failed++, last = errno;
        else
            close(fd);
        if (syscall(SYS_unlink, path) < 0)
            failed++, last = errno;
        calls += 2;
    }
    sayf("calls %ld\nfailed %ld\nlast %d", calls, failed, last);
    return failed != 0;
}
