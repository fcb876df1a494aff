/* closed_by_chroot DIRECTORY FILE: what is left of FILE after chroot(DIRECTORY), here, in a child and in a thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *file;

static void say(const char *who, const char *what, int result) {
    printf("%s.%s %d\n", who, what, result < 0 ? errno : 0);
    fflush(stdout);
}

static void *look(void *who) {
    struct stat status;
    char path[64];
    say(who, "stat", stat(file, &status));
    say(who, "open", open(file, O_RDONLY));
    say(who, "write", open(file, O_WRONLY | O_TRUNC));
    snprintf(path, sizeof path, "/proc/self/fd/%d", 0);
    say(who, "magic", open(path, O_RDONLY));
    say(who, "list", open(".", O_RDONLY));
    say(who, "chdir", chdir("/usr"));
    say(who, "chdir-root", chdir("/"));
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc < 3)
        return 2;
    file = argv[2];
    say("main", "chroot", chroot(argv[1]));
    look("main");
    say("main", "again", chroot("/"));
    if (!fork()) {
        look("child");
        execl("/bin/true", "true", NULL);
        say("child", "exec", -1);
        _exit(0);
    }
    wait(NULL);
    pthread_create(&thread, NULL, look, "thread");
    pthread_join(thread, NULL);
    return 0;
}
