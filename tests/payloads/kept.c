/* kept DIRECTORY OP...: each way of changing DIRECTORY/OP.log, which is masked or append-only in the sandbox.
 *
 * Prints `OP errno`, 0 where it was done.  DIRECTORY/OP.spare is any other file.  `race` exchanges the descriptor of a
 * mmap by another thread and prints how many mappings of OP.log could be written.
 */
#include "payload.h"
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <utime.h>

static char path[4096], spare[4096], other[4096];

static int said(long result) { return result < 0 ? errno : 0; }

static int growing(int flags) { return open(path, flags | O_APPEND); }

static int mapped(int prot, int after) {
    int fd = growing(O_RDWR);
    char *at = mmap(NULL, 4096, prot, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return errno;
    if (after && mprotect(at, 4096, after))
        return errno;
    *at = 'X';
    return 0;
}

static int in_aio(void) {
    aio_context_t context = 0;
    struct iocb request, *list = &request;
    struct io_event event;
    int fd = growing(O_WRONLY);
    if (syscall(SYS_io_setup, 1, &context))
        return errno;
    memset(&request, 0, sizeof request);
    request.aio_lio_opcode = IOCB_CMD_PWRITE;
    request.aio_fildes = fd;
    request.aio_buf = (unsigned long)"X";
    request.aio_nbytes = 1;
    request.aio_rw_flags = 0x20; /* RWF_NOAPPEND */
    if (syscall(SYS_io_submit, context, 1, &list) < 0)
        return errno;
    if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) < 0)
        return errno;
    return event.res == 1 ? 0 : -(int)event.res;
}

static int by_ioctl(unsigned request) {
    struct {
        int16_t type, whence;
        int64_t start, len;
        int32_t sysid, pid, pad[4];
    } where = {.len = 4096}; /* struct space_resv */
    return said(ioctl(growing(O_WRONLY), request, &where));
}

static volatile int going = 1;
static int swapped, good, bad;

static void *swap(void *_) {
    (void)_;
    while (going) {
        dup2(bad, swapped);
        dup2(good, swapped);
    }
    return NULL;
}

static int race(int ms) {
    pthread_t thread;
    struct timespec now, end;
    int won = 0;
    good = open(spare, O_RDWR), bad = growing(O_RDWR), swapped = dup(good);
    if (pwrite(good, "good", 4, 0) != 4)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ms / 1000;
    pthread_create(&thread, NULL, swap, NULL);
    do {
        char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, swapped, 0);
        if (at != MAP_FAILED) {
            won += memcmp(at, "good", 4) != 0;
            munmap(at, 4096);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec && !won);
    going = 0;
    pthread_join(thread, NULL);
    return won;
}

static int one(const char *op) {
    struct iovec part = {"X", 1};
    struct timespec times[2] = {{1, 0}, {1, 0}};
    struct timeval tv[2] = {{1, 0}, {1, 0}};
    struct utimbuf old = {1, 1};
    char name[64];
    int fd;
#define IS(name) if (!strcmp(op, name))
    IS("read") return said(open(path, O_RDONLY));
    IS("append") return said(growing(O_WRONLY));
    IS("append_rw") return said(growing(O_RDWR));
    IS("write") return said(open(path, O_WRONLY));
    IS("write_create") return said(open(path, O_WRONLY | O_CREAT, 0600));
    IS("read_write") return said(open(path, O_RDWR));
    IS("empty") return said(open(path, O_RDONLY | O_TRUNC));
    IS("append_empty") return said(growing(O_WRONLY | O_TRUNC));
    IS("creat") return said(creat(path, 0600));
    IS("truncate") return said(truncate(path, 0));
    IS("ftruncate") return said(ftruncate(growing(O_WRONLY), 0));
    IS("fallocate") return said(fallocate(growing(O_WRONLY), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4));
    IS("setfl") return said(fcntl(growing(O_WRONLY), F_SETFL, 0));
    IS("setfl_async") return said(fcntl(growing(O_WRONLY), F_SETFL, O_ASYNC | O_NONBLOCK));
    IS("setfl_upper") return said(syscall(SYS_fcntl, growing(O_WRONLY), 0xff00000000L | F_SETFL, 0xff0000000000L | O_NONBLOCK));
    IS("setfl_kept") return said(fcntl(growing(O_WRONLY), F_SETFL, O_APPEND | O_NONBLOCK));
    IS("setfl_spare") {
        fd = open(spare, O_WRONLY | O_APPEND);
        return fcntl(fd, F_SETFL, O_NONBLOCK) ? errno : (fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK)) != O_NONBLOCK;
    }
    IS("pwritev2") return said(syscall(SYS_pwritev2, growing(O_WRONLY), &part, 1, 0, 0, 0x20));
    IS("aio") return in_aio();
    IS("punch") return by_ioctl(0x4030582b);
    IS("zero") return by_ioctl(0x40305839);
    IS("map") return mapped(PROT_READ | PROT_WRITE, 0);
    IS("map_later") return mapped(PROT_READ, PROT_READ | PROT_WRITE);
    IS("map_spare") {
        fd = open(spare, O_RDWR);
        return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0;
    }
    IS("unlink") return said(unlink(path));
    IS("unlinkat") return said(unlinkat(AT_FDCWD, path, 0));
    IS("rename") return said(rename(path, other));
    IS("rename_over") return said(rename(spare, path));
    IS("exchange") return said(syscall(SYS_renameat2, AT_FDCWD, spare, AT_FDCWD, path, 2));
    IS("link") return said(link(path, other));
    IS("link_fd") {
        snprintf(name, sizeof name, "/proc/self/fd/%d", open(path, O_RDONLY));
        return said(linkat(AT_FDCWD, name, AT_FDCWD, other, AT_SYMLINK_FOLLOW));
    }
    IS("chmod") return said(chmod(path, 0777));
    IS("fchmod") return said(fchmod(open(path, O_RDONLY), 0777));
    IS("fchmodat") return said(fchmodat(AT_FDCWD, path, 0777, 0));
    IS("chown") return said(syscall(SYS_chown, path, getuid(), -1));
    IS("lchown") return said(lchown(path, getuid(), -1));
    IS("fchown") return said(fchown(open(path, O_RDONLY), getuid(), -1));
    IS("fchownat") return said(fchownat(AT_FDCWD, path, getuid(), -1, 0));
    IS("utime") return said(syscall(SYS_utime, path, &old));
    IS("utimes") return said(syscall(SYS_utimes, path, tv));
    IS("futimesat") return said(syscall(SYS_futimesat, AT_FDCWD, path, tv));
    IS("utimensat") return said(utimensat(AT_FDCWD, path, times, 0));
    IS("futimens") return said(futimens(open(path, O_RDONLY), times));
    IS("setxattr") return said(setxattr(path, "user.a", "b", 1, 0));
    IS("lsetxattr") return said(lsetxattr(path, "user.a", "b", 1, 0));
    IS("fsetxattr") return said(fsetxattr(open(path, O_RDONLY), "user.a", "b", 1, 0));
    IS("removexattr") return said(removexattr(path, "user.old"));
    IS("fremovexattr") return said(fremovexattr(open(path, O_RDONLY), "user.old"));
    IS("race") return race(2000);
    return 1000;
}

int main(int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        snprintf(path, sizeof path, "%s/%s.log", argv[1], argv[i]);
        snprintf(spare, sizeof spare, "%s/%s.spare", argv[1], argv[i]);
        snprintf(other, sizeof other, "%s/%s.new", argv[1], argv[i]);
        printf("%s %d\n", argv[i], one(argv[i]));
        fflush(stdout);
    }
    return 0;
}
