/* COUNT tasks create, open, read and remove files of their own: openers tree|threads COUNT SECONDS DIRECTORY
 *
 * tree: each process forks two more until there are COUNT. Prints tasks, opens, wrong.
 */
#include "payload.h"

struct shared {
    atomic_long tasks, opens, wrong;
};
static struct shared *s;
static const char *directory;
static double end;
static int count;

static void work(int number) {
    char path[512], text[64], expected[64];
    snprintf(path, sizeof path, "%s/task%d", directory, number);
    atomic_fetch_add(&s->tasks, 1);
    for (long i = 0; now() < end; i++) {
        int size = snprintf(expected, sizeof expected, "%d %ld\n", number, i);
        int fd = (int)syscall(SYS_open, path, O_CREAT | O_EXCL | O_WRONLY, 0600);
        int right = fd >= 0 && write(fd, expected, (size_t)size) == size;
        if (fd >= 0)
            close(fd);
        fd = (int)syscall(SYS_open, path, O_RDONLY | O_CLOEXEC);
        right &= fd >= 0 && read(fd, text, sizeof text) == size && !memcmp(text, expected, (size_t)size);
        if (fd >= 0)
            close(fd);
        right &= syscall(SYS_unlink, path) == 0;
        if (!right)
            atomic_fetch_add(&s->wrong, 1);
        atomic_fetch_add(&s->opens, 2);
    }
}

static void grow(int number) {
    for (int child = 2 * number; child <= 2 * number + 1 && child <= count; child++)
        if (fork() == 0) {
            grow(child);
            _exit(0);
        }
    work(number);
    while (wait(NULL) > 0)
        ;
}

static void *thread(void *data) { return work((int)(intptr_t)data), NULL; }

int main(int argc, char **argv) {
    pthread_t threads[1024];
    if (argc < 5 || (count = atoi(argv[2])) > 1024)
        return 97;
    directory = argv[4];
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    end = now() + atof(argv[3]) + 0.3;
    if (!strcmp(argv[1], "tree"))
        grow(1);
    else {
        for (int i = 0; i < count; i++)
            pthread_create(&threads[i], NULL, thread, (void *)(intptr_t)i);
        for (int i = 0; i < count; i++)
            pthread_join(threads[i], NULL);
    }
    say("tasks", s->tasks), say("opens", s->opens), say("wrong", s->wrong);
    return 0;
}
