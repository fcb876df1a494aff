/* mmap(2) with PROT_EXEC of a file that may not be executed, which begins with "BAD!".
 *
 *   map_exec plain GOOD BAD           `good E`, `bad E`, and `read E` for BAD without PROT_EXEC
 *   map_exec swap GOOD BAD SECONDS    another thread exchanges the descriptor; `mapped N`, `bad N`
 *   map_exec move GOOD BAD SECONDS    ... and a third moves the new mapping away and puts a good one in its place
 */
#include "payload.h"

#define SIZE 4096
static const char *good_name, *bad_name;
static int slot = 100;
static atomic_int over;
static char *fixed = (char *)0x10000000000, *hidden = (char *)0x20000000000;

static int opened(const char *name) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(name);
    return fd;
}

static void *swapper(void *unused) {
    int good = opened(good_name), bad = opened(bad_name);
    while (!over) {
        dup2(good, slot);
        dup2(bad, slot);
    }
    return unused;
}

static void *mover(void *unused) {
    while (!over)
        if (mremap(fixed, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, hidden) == hidden) {
            if (memcmp(hidden, "BAD!", 4) == 0)
                sayf("hidden");
            munmap(hidden, SIZE);
        }
    return unused;
}

static int try(const char *name, int protection) {
    void *p = mmap(NULL, SIZE, protection, MAP_PRIVATE, opened(name), 0);
    return p == MAP_FAILED ? errno : 0;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    good_name = argv[2];
    bad_name = argv[3];
    if (strcmp(argv[1], "plain") == 0) {
        say("good", try(good_name, PROT_READ | PROT_EXEC));
        say("bad", try(bad_name, PROT_READ | PROT_EXEC));
        say("only", try(bad_name, PROT_EXEC));
        say("read", try(bad_name, PROT_READ));
        return 0;
    }
    pthread_t one, two;
    long mapped = 0, bad = 0;
    dup2(opened(good_name), slot);
    pthread_create(&one, NULL, swapper, NULL);
    if (strcmp(argv[1], "move") == 0)
        pthread_create(&two, NULL, mover, NULL);
    for (double end = now() + atof(argv[4]); now() < end;) {
        int flags = MAP_PRIVATE | (strcmp(argv[1], "move") == 0 ? MAP_FIXED : 0);
        char *p = mmap(flags & MAP_FIXED ? fixed : NULL, SIZE, PROT_READ | PROT_EXEC, flags, slot, 0);
        if (p == MAP_FAILED)
            continue;
        mapped++;
        if (flags & MAP_FIXED)
            continue;
        if (memcmp(p, "BAD!", 4) == 0) {
            bad++;
            sayf("executable");
        }
        munmap(p, SIZE);
    }
    over = 1;
    say("mapped", mapped);
    say("bad", bad);
    _exit(0);
}
