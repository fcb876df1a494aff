"""(c) a shell script with pipes, traps and background jobs; job control in a real pty."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time

import pytest
from arena import Nursery, syd_differs
from workshop import Workshop, assert_same, assert_same_tree

SCRIPT = r"""
set -u
trap 'echo exiting with $?' EXIT
trap 'echo got TERM; term=1' TERM
term=0
echo pipeline; printf '%s\n' c a b | sort | tr a-z A-Z | paste -sd, -
{ echo left; echo right >&2; } 2>both | cat > left; cat left both
for i in 1 2 3; do (sleep 0.0$i; echo "job $i" >> jobs; exit $i) & eval p$i=$!; done
wait $p1; echo $?; wait $p2; echo $?; wait $p3; echo $?
sort jobs > sorted; rm jobs; cat sorted
kill -TERM $$; echo "term=$term"
( trap 'echo child; exit 5' USR1; kill -USR1 $(sh -c 'echo $PPID'); : ); echo "child said $?"
sleep 100 & sleeper=$!; sleep 0.2; kill $sleeper; wait $sleeper; echo "sleeper $?"
mkfifo pipe 2>/dev/null && { cat pipe & echo through > pipe; wait; }
cat <<END
here $((6 * 7)) $(echo substituted) `echo backquoted`
END
mkdir -p a/b/c; cd a/b; pwd -P | sed 's,.*/a,a,'; cd ../..; rmdir a/b/c; ls -d a/*
umask 027; : > masked; ls -l masked | cut -c1-10
exec 3> third; echo three >&3; exec 3>&-; cat third
test -e missing || echo missing; cat missing 2>&1 | sed 's/^[^:]*: //'
(exit 3); echo $?; false || echo or; ! false && echo not
{ sh -c 'kill -SEGV $$'; segv=$?; } 2>/dev/null; echo "segv $segv"
head -c 100000 /dev/zero | tail -c 5 | wc -c
yes | head -3
set -- x y z; echo "$#" "$@"
exit 9
"""


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash"])
def test_script(workshop: Workshop, shell: str) -> None:
    """(c) pipes, traps, background jobs, here documents, exit codes: output, status and files as natively."""
    if not os.path.exists(shell):
        pytest.skip(f"no {shell}")
    command = [shell, "-c", SCRIPT]
    native, expected = workshop.native(["/bin/sh", "-c", '"$@"; test $? = 9', "sh", *command], 30)
    boxed, found = workshop.boxed(["/bin/sh", "-c", '"$@"; test $? = 9', "sh", *command])
    assert_same(native, boxed)
    assert_same_tree(expected, found)
    assert "got TERM" in native.out and "segv 139" in native.out and "sleeper 143" in native.out


class Session:
    """An interactive bash on a pty, natively or in the sandbox."""

    def __init__(self, workshop: Workshop, boxed: bool) -> None:
        command = ["bash", "--norc", "--noprofile", "-i"]
        if boxed:
            command = workshop.runner.syd(command, [*workshop.rules(), *self.terminal_rules()])
        workshop.prepare(None)
        self.nursery = Nursery()
        self.master, slave = pty.openpty()
        os.fchmod(slave, 0o666)
        self.text, self.whole = "", ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=workshop.work,
            env={"PATH": "/usr/bin:/bin", "PS1": "$ ", "TERM": "dumb", "LC_ALL": "C", "HOME": str(workshop.work)},
            **workshop.runner.identity.arguments(),  # type: ignore[call-overload]
        )
        self.nursery.owned.add(self.process.pid)
        os.close(slave)

    @staticmethod
    def terminal_rules() -> list[str]:
        """What an interactive shell needs beyond the policy."""
        return ["allow/walk,stat,read,write+/dev/pts/***", "allow/walk,stat+/dev/pts"]

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def expect(self, text: str, deadline: float = 20) -> None:
        """Wait until this appears after what was expected last."""
        end = time.monotonic() + deadline
        while text not in self.text:
            if not select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} in {self.text!r}; all {self.whole!r}")
            try:
                data = os.read(self.master, 4096).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"terminal closed; no {text!r} in {self.text!r}") from None
            self.text += data
            self.whole += data
        self.text = self.text.split(text, 1)[1]

    def close(self) -> None:
        """Hang up; nothing may be left."""
        os.close(self.master)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.nursery.close()


def play(session: Session) -> None:
    """^Z, fg, bg, jobs, ^C, kill %1, wait: what a person does all day."""
    session.type("echo rea''dy; tty >/dev/null && echo on-a-t''ty\n")
    session.expect("ready")
    session.expect("on-a-tty")
    session.type("sleep 30\n")
    time.sleep(0.4)
    session.type("\x1a")
    session.expect("Stopped")
    session.type("jobs\n")
    session.expect("sleep 30")
    session.type("bg\n")
    session.expect("&")
    session.type("kill %1; wait %1; echo sta''tus $?\n")
    session.expect("status 143")
    session.type("sleep 30\n")
    time.sleep(0.4)
    session.type("\x03")
    session.type("echo inter''rupted $?\n")
    session.expect("interrupted 130")
    session.type("cat | tr a-z A-Z\n")
    session.type("shout\n")
    session.expect("SHOUT")
    session.type("\x1a")
    session.expect("Stopped")
    session.type("fg\n")
    session.type("again\n")
    session.expect("AGAIN")
    session.type("\x04")
    session.type("(exit 3); echo co''de $?\n")
    session.expect("code 3")
    session.type("mkfifo f; cat f\n")
    time.sleep(0.4)
    session.type("\x1a")
    with syd_differs("a call that waits does not stop"):
        session.expect("Stopped", 5)
    session.type("bg; echo thr''ough > f; wait; echo do''ne\n")
    session.expect("through")
    session.expect("done")
    session.type("exit 7\n")


@pytest.mark.parametrize("boxed", [False, True], ids=["native", "boxed"])
def test_job_control(workshop: Workshop, boxed: bool) -> None:
    """(c) an interactive bash on a pty: stop, continue, background, interrupt, also on a call that waits."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    session = Session(workshop, boxed)
    try:
        play(session)
        assert session.process.wait(15) == 7
    finally:
        session.close()
    assert not session.nursery.leftovers
