/* Opens and reads a file by io_uring, where no system call names it: io_uring FILE. Prints setup errno, secret 0|1. */
#include "payload.h"
#include <linux/io_uring.h>

struct ring {
    int fd;
    unsigned *tail, *mask, *array, *head, *ready, *done_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *done;
};

static int set_up(struct ring *r) {
    struct io_uring_params p = {0};
    r->fd = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (r->fd < 0)
        return errno;
    char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
    char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof *r->done, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
                    IORING_OFF_CQ_RING);
    r->entries = mmap(0, p.sq_entries * sizeof *r->entries, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || r->entries == MAP_FAILED)
        return errno;
    r->tail = (unsigned *)(sq + p.sq_off.tail), r->mask = (unsigned *)(sq + p.sq_off.ring_mask);
    r->array = (unsigned *)(sq + p.sq_off.array), r->head = (unsigned *)(cq + p.cq_off.head);
    r->ready = (unsigned *)(cq + p.cq_off.tail), r->done_mask = (unsigned *)(cq + p.cq_off.ring_mask);
    r->done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    return 0;
}

static int submit(struct ring *r, struct io_uring_sqe entry) {
    unsigned at = *r->tail & *r->mask;
    r->entries[at] = entry, r->array[at] = at;
    __atomic_store_n(r->tail, *r->tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -errno;
    int result = r->done[*r->head & *r->done_mask].res;
    __atomic_store_n(r->head, *r->head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int argc, char **argv) {
    struct ring r;
    char text[64] = "";
    if (argc < 2)
        return 97;
    int error = set_up(&r);
    say("setup", error);
    if (error)
        return 0;
    struct io_uring_sqe open_it = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)argv[1]};
    int fd = submit(&r, open_it);
    say("open", fd < 0 ? -fd : 0);
    if (fd < 0)
        return 0;
    struct io_uring_sqe read_it = {.opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)text, .len = sizeof text - 1};
    submit(&r, read_it);
    sayf("text %s", text);
    return 0;
}
