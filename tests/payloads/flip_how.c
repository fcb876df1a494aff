/* openat2(PATH, &how): a thread flips how.flags between O_RDONLY and O_WRONLY|O_TRUNC. flip_how SECONDS PATH */
#include "payload.h"
#include <linux/openat2.h>

static volatile struct open_how how;
static atomic_int stop;

static void *flip(void *unused UNUSED) {
    while (!atomic_load(&stop)) {
        how.flags = O_WRONLY | O_TRUNC;
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
        how.flags = O_RDONLY;
        for (int i = 0; i < 40; i++)
            __asm__ volatile("pause");
    }
    return NULL;
}

int main(int argc, char **argv) {
    long readable = 0, writable = 0, refused = 0;
    pthread_t flipper;
    if (argc < 3)
        return 97;
    pthread_create(&flipper, NULL, flip, NULL);
    for (double end = now() + atof(argv[1]); now() < end;) {
        int fd = (int)syscall(SYS_openat2, AT_FDCWD, argv[2], &how, sizeof how);
        if (fd < 0) {
            refused++;
            continue;
        }
        if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
            readable++;
        else
            writable++;
        close(fd);
    }
    atomic_store(&stop, 1);
    pthread_join(flipper, NULL);
    say("read", readable), say("written", writable), say("refused", refused);
    return 0;
}
