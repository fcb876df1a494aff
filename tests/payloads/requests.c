/* requests NUMBER...: ioctl(2) of each request on a pipe, once plain and once with all upper bits set.
 *
 * Prints `NUMBER errno errno`.  `api:COMMAND` instead of a number is stat of /dev/syd/COMMAND, `count:N` times N calls.
 */
#include "payload.h"

static int fds[2];

static int ask(unsigned long request) {
    int value = 0;
    return syscall(SYS_ioctl, fds[0], request, &value) < 0 ? errno : 0;
}

int main(int argc, char **argv) {
    char path[4096];
    struct stat status;
    if (pipe(fds))
        return 1;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "api:", 4)) {
            snprintf(path, sizeof path, "/dev/syd/%s", argv[i] + 4);
            printf("%s %d\n", argv[i], syscall(SYS_stat, path, &status) ? errno : 0);
        } else if (!strncmp(argv[i], "count:", 6)) {
            double start = now();
            for (int left = atoi(argv[i] + 6); left; left--)
                ask(0x541b);
            printf("%s %.3f\n", argv[i], (now() - start) / atoi(argv[i] + 6) * 1e6);
        } else {
            unsigned long request = strtoul(argv[i], NULL, 16);
            int plain = ask(request);
            printf("%s %d %d\n", argv[i], plain, ask(request | 0xffffffff00000000ul));
        }
        fflush(stdout);
    }
    return 0;
}
