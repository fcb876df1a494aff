/* A FIFO open that waits, and a signal: fifo_signal FIFO restart|norestart|default SIGNAL
 *
 * Prints ready PID, then what became of the open: `open ERRNO MICROSECONDS-SINCE-THE-SIGNAL`, handled N.
 */
#include "payload.h"
static volatile sig_atomic_t handled;
static volatile double when;
static void handler(int number UNUSED) {
    if (!handled++)
        when = now();
}
int main(int argc, char **argv) {
    if (argc < 4)
        return 97;
    struct sigaction action = {.sa_handler = handler, .sa_flags = strcmp(argv[2], "restart") ? 0 : SA_RESTART};
    if (strcmp(argv[2], "default"))
        sigaction(atoi(argv[3]), &action, NULL);
    say("ready", getpid());
    int fd = (int)syscall(SYS_open, argv[1], O_RDONLY), error = fd < 0 ? errno : 0;
    sayf("open %d %ld\nhandled %d", error, when > 0 ? (long)((now() - when) * 1e6) : -1, (int)handled);
    return error;
}
