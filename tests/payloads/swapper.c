/* Outside attacker: exchanges pairs of names as fast as it can until killed. swapper A B [A B]... */
#include "payload.h"
int main(int argc, char **argv) {
    say("ready", getpid());
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        for (int i = 1; i + 1 < argc; i += 2)
            if (syscall(SYS_renameat2, AT_FDCWD, argv[i], AT_FDCWD, argv[i + 1], 2 /* EXCHANGE */) < 0 && errno != ENOENT)
                die("exchange");
}
