/* Root becomes uid 1000 inside, then meets files: drop_to_user PRIVATE DIRECTORY
 *
 * PRIVATE is root's, mode 0600. Prints `setid N` (errno of the change) and, once changed, what it could do.
 */
#include "payload.h"
#include <grp.h>

int main(int argc, char **argv) {
    struct stat st;
    char path[4096];
    if (argc < 3)
        return 97;
    if (setgroups(0, NULL) || setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)) {
        say("setid", errno);
        return 0;
    }
    say("setid", 0);
    int fd = open(argv[1], O_RDONLY);
    say("private", fd < 0 ? errno : 0);
    fd = open(argv[1], O_WRONLY | O_TRUNC);
    say("private-write", fd < 0 ? errno : 0);
    say("private-access", access(argv[1], R_OK) ? errno : 0);
    say("private-unlink", unlink(argv[1]) ? errno : 0);
    umask(027);
    snprintf(path, sizeof path, "%s/made", argv[2]);
    fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0666);
    if (fd < 0 || fstat(fd, &st))
        die("made");
    sayf("made %d %d %o", st.st_uid, st.st_gid, st.st_mode & 0777);
    snprintf(path, sizeof path, "%s/directory", argv[2]);
    if (mkdir(path, 0777) || stat(path, &st))
        die("directory");
    sayf("directory %d %d %o", st.st_uid, st.st_gid, st.st_mode & 0777);
    return 0;
}
