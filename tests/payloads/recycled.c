/* Kills numbers of processes that have gone, hoping that they are somebody else's by now: SECONDS. */
#include "payload.h"

enum { BATCH = 32, MOST = 1024 };

int main(int argc, char **argv) {
    double end = now() + (argc > 1 ? atof(argv[1]) : 1);
    long sent = 0, refused = 0, none = 0;
    static char seen[4194304];
    static pid_t old[MOST];
    int count = 0;
    sayf("ready");
    while (now() < end) {
        pid_t living[BATCH];
        for (int i = 0; i < BATCH; i++)
            if ((living[i] = fork()) == 0)
                for (;;)
                    pause();
        /* a number that has come back to ourselves shows that numbers do come back */
        for (int i = 0; i < count; i++)
            if (kill(old[i], SIGKILL) == 0)
                sent++;
            else if (errno == EPERM)
                refused++;
            else
                none++;
        for (int i = 0; i < BATCH; i++) {
            if (living[i] <= 0)
                continue;
            kill(living[i], SIGKILL);
            waitpid(living[i], NULL, 0);
            if (!seen[living[i]] && count < MOST)
                old[count++] = living[i];
            seen[living[i]] = 1;
        }
    }
    say("sent", sent);
    say("refused", refused);
    say("none", none);
    return 0;
}
