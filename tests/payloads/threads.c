/* Calls from threads that are not the leader, with the leader alive or gone: threads COUNT LEADER(stay|leave) DIRECTORY
 *
 * Each thread opens a relative path, creates a file (umask 027 set by another thread), reads its own status, runs a child.
 * Prints only what must be the same natively: done, opened, modes, own, spawned.
 */
#include "payload.h"
#include <spawn.h>

static atomic_int opened, modes, own, spawned, finished;
static int count;

static int status_is_ours(void) {
    char text[4096] = "", *tgid;
    int fd = (int)syscall(SYS_open, "/proc/self/status", O_RDONLY);
    long size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    return size > 0 && (tgid = strstr(text, "\nTgid:")) && atol(tgid + 6) == getpid();
}

static int created_with_umask(int number) {
    char name[64];
    struct stat st;
    snprintf(name, sizeof name, "made-by-%d", number);
    int fd = (int)syscall(SYS_open, name, O_CREAT | O_EXCL | O_WRONLY, 0666);
    int right = fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0640;
    if (fd >= 0)
        close(fd);
    unlink(name);
    return right;
}

static int child_ran(void) {
    char *arguments[] = {"true", NULL}, *environment[] = {NULL};
    pid_t pid;
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environment))
        return 0;
    return reap(pid) == 0;
}

static void *one(void *data) {
    int number = (int)(intptr_t)data;
    for (int i = 0; i < 5; i++) {
        int fd = (int)syscall(SYS_open, "aaaa", O_RDONLY);
        if (fd >= 0)
            atomic_fetch_add(&opened, 1), close(fd);
        atomic_fetch_add(&modes, created_with_umask(number));
        atomic_fetch_add(&own, status_is_ours());
    }
    atomic_fetch_add(&spawned, child_ran());
    if (atomic_fetch_add(&finished, 1) + 1 == count) {
        sayf("opened %d\nmodes %d\nown %d\nspawned %d", opened, modes, own, spawned);
        exit(0);
    }
    return NULL;
}

static void *prepare(void *directory) {
    umask(027);
    return (void *)(intptr_t)syscall(SYS_chdir, (char *)directory);
}

int main(int argc, char **argv) {
    pthread_t thread;
    void *result;
    if (argc < 4)
        return 97;
    count = atoi(argv[1]);
    pthread_create(&thread, NULL, prepare, argv[3]);
    pthread_join(thread, &result);
    if (result)
        return 96;
    for (int i = 0; i < count; i++)
        pthread_create(&thread, NULL, one, (void *)(intptr_t)i);
    if (!strcmp(argv[2], "leave"))
        syscall(SYS_exit, 0); /* the leader becomes a zombie, the others go on */
    for (;;)
        pause();
}
