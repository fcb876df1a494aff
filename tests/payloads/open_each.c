/* Open every path of a list for reading: `opened PATH` or `errno N PATH`; {PP} is the pid of the parent. */
#include "payload.h"
int main(int argc, char **argv) {
    FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;
    char path[4096];
    if (!file)
        die("list");
    while (fgets(path, sizeof path, file)) {
        path[strcspn(path, "\n")] = 0;
        char *at = strstr(path, "{PP}"), whole[5000];
        if (at) {
            snprintf(whole, sizeof whole, "%.*s%d%s", (int)(at - path), path, getppid(), at + 4);
            strcpy(path, whole);
        }
        int fd = open(path, O_RDONLY | O_NONBLOCK);
        if (fd >= 0)
            sayf("opened %s", path), close(fd);
        else
            sayf("errno %d %s", errno, path);
    }
    return 0;
}
