// umasks DIRECTORY ROUNDS: files made under many umasks by processes and threads that share them or do not
#include "payload.h"

static const char *top;
static long *wrong, *made;
static char stack[65536];

static void expect(mode_t mask)
{
    char name[4096];
    struct stat st;
    for (int directory = 0; directory < 2; directory++) {
        snprintf(name, sizeof name, "%s/%d-%d", top, getpid(), directory);
        if (directory ? mkdir(name, 0777) : (close(open(name, O_CREAT | O_EXCL | O_WRONLY, 0777)), access(name, F_OK)))
            exit(9);
        stat(name, &st);
        if ((st.st_mode & 0777) != (0777 & ~mask))
            __atomic_add_fetch(wrong, 1, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(made, 1, __ATOMIC_SEQ_CST);
        if (directory ? rmdir(name) : unlink(name))
            exit(9);
    }
}

static int change(void *mask)
{
    umask((mode_t)(long)mask);
    expect((mode_t)(long)mask);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    top = argv[1];
    wrong = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    made = wrong + 1;
    mode_t mine = umask(0);
    umask(mine);
    expect(mine);
    for (int round = 0; round < atoi(argv[2]); round++) {
        mode_t other = rand() & 0777;
        // one of its own, that nobody else sees; ids return, other umasks come with them
        pid_t child = fork();
        if (child == 0) {
            expect(mine);
            change((void *)(long)other);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        expect(mine);
        // one that is shared: what the child sets is ours
        child = clone(change, stack + sizeof stack, CLONE_FS | SIGCHLD, (void *)(long)other);
        waitpid(child, NULL, 0);
        expect(mine = other);
    }
    say("made", *made);
    say("wrong", *wrong);
    return 0;
}
