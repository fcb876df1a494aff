/* open(DIR, O_DIRECTORY) and fchdir to it: exits with the errno of fchdir, 0 if it is there now. */
#include "payload.h"
int main(int argc, char **argv) {
    char where[PATH_MAX];
    int fd = argc > 1 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
    if (fd < 0)
        die("open");
    if (syscall(SYS_fchdir, fd) < 0)
        return errno;
    return getcwd(where, sizeof where) && !strcmp(where, argv[1]) ? 0 : 96;
}
