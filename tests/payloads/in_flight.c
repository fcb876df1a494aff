/* Sends descriptors that nobody receives until the user may send no more, then needs more workers: DIRECTORY
 *
 * `sent N`, `limit E`; then FIFOS opens wait in FIFOs while another open goes on; `met N` FIFO opens, `other E`.
 */
#include "payload.h"

enum { FIFOS = 4, MANY = 250 };

static char path[4096];
static atomic_int met;

static const char *fifo(int i, const char *directory) {
    static __thread char name[4096];
    snprintf(name, sizeof name, "%s/fifo%d", directory, i);
    return name;
}

static const char *directory;

static void *reader(void *number) {
    int fd = open(fifo((int)(intptr_t)number, directory), O_RDONLY);
    if (fd >= 0)
        met++;
    return NULL;
}

int main(int argc, char **argv) {
    int file = open("/etc/passwd", O_RDONLY), pair[2];
    long sent = 0;
    union {
        char space[CMSG_SPACE(MANY * sizeof(int))];
        struct cmsghdr align;
    } control;
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    pthread_t threads[FIFOS];
    if (argc < 2)
        return 2;
    directory = argv[1];
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(MANY * sizeof(int));
    for (int i = 0; i < MANY; i++)
        memcpy(CMSG_DATA(header) + (size_t)i * sizeof(int), &file, sizeof file);
    errno = 0;
    for (int i = 0; i < 100; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || sendmsg(pair[0], &message, 0) < 0)
            break;
        sent += MANY;
    }
    say("sent", sent);
    say("limit", errno);
    for (int i = 0; i < FIFOS; i++) {
        mkfifo(fifo(i, directory), 0600);
        pthread_create(&threads[i], NULL, reader, (void *)(intptr_t)i);
    }
    usleep(500000);
    snprintf(path, sizeof path, "%s/other", directory);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    say("other", fd < 0 ? errno : 0);
    for (int i = 0; i < FIFOS; i++) {
        fd = open(fifo(i, directory), O_WRONLY);
        close(fd);
    }
    for (int i = 0; i < FIFOS; i++)
        pthread_join(threads[i], NULL);
    say("met", met);
    return 0;
}
