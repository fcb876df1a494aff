"""The category ioctl: requests are judged by number, whoever decides: the filter, or a worker in an open run."""

from __future__ import annotations

from errno import EACCES, EBUSY, EINVAL, ENOTTY, EOPNOTSUPP

import pytest
from arena import Arena, Runner, is_real_syd

pytestmark = pytest.mark.attack

FIONREAD, TCGETS, TIOCSTI, LISTENER, PUNCH = "541b", "5401", "5412", "c0502100", "4030582b"
REQUESTS = [FIONREAD, TCGETS, TIOCSTI, LISTENER, PUNCH]
# What a pipe says natively
NATIVE = {FIONREAD: 0, TCGETS: ENOTTY, TIOCSTI: ENOTTY, LISTENER: ENOTTY, PUNCH: ENOTTY}
ON = "sandbox/ioctl:on"


def ask(runner: Runner, rules: list[str], words: list[str]) -> list[list[int]]:
    """What each word gives in the sandbox."""
    outcome = runner.boxed([str(runner.payload("requests")), *words], rules)
    assert outcome.status == 0, outcome
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [line[0] for line in lines] == words, outcome
    return [[int(number) for number in line[1:]] for line in lines]


CASES: list[tuple[list[str], dict[str, int]]] = [
    ([], {TIOCSTI: EACCES}),
    (["deny/ioctl-TIOCSTI"], {}),
    (["deny/ioctl+FIONREAD,TCGETS"], {FIONREAD: EACCES, TCGETS: EACCES, TIOCSTI: EACCES}),
    ([ON], {TCGETS: EACCES, TIOCSTI: EACCES, PUNCH: EACCES}),
    ([ON, "allow/ioctl+TCGETS,tiocsti"], {PUNCH: EACCES}),
    ([ON, "deny/ioctl+TCGETS", "allow/ioctl+TCGETS", "allow/ioctl-FIONREAD"],
     {FIONREAD: EACCES, TIOCSTI: EACCES, PUNCH: EACCES}),
    ([ON, "default/ioctl:warn", "deny/ioctl+TCGETS"], {TCGETS: EACCES, TIOCSTI: EACCES}),
    ([ON, "default/ioctl:filter"], {TCGETS: EACCES, TIOCSTI: EACCES, PUNCH: EACCES}),
    (["append+/x"], {TIOCSTI: EACCES, PUNCH: EOPNOTSUPP}),
]  # fmt: skip


@pytest.mark.parametrize("lock", ["lock:on", "lock:off"])
@pytest.mark.parametrize(("rules", "refused"), CASES, ids=[" ".join(rules) for rules, _ in CASES])
def test_what_is_said(runner: Runner, arena: Arena, rules: list[str], refused: dict[str, int], lock: str) -> None:
    """The same in a run that is locked and one that is open; only the lower 32 bits count."""
    want = NATIVE | {LISTENER: EACCES} | refused
    found = ask(runner, [*rules, lock], REQUESTS)
    if is_real_syd() and lock == "lock:off":
        pytest.skip("syd decides at the start")
    assert found == [[want[request]] * 2 for request in REQUESTS]


def test_the_control(runner: Runner, arena: Arena) -> None:
    """Natively the pipe itself answers."""
    outcome = runner.native([str(runner.payload("requests")), *REQUESTS])
    assert outcome.out.split("\n")[:-1] == [f"{request} {NATIVE[request]} {NATIVE[request]}" for request in REQUESTS]


def test_edits_are_seen(runner: Runner, arena: Arena) -> None:
    """Switched on, allowed, denied and switched off while the command runs: the next call is judged by it."""
    words = [TCGETS, "api:sandbox/ioctl:on", TCGETS, "api:allow/ioctl+TCG*", TCGETS, "api:deny/ioctl+0x5401", TCGETS,
             "api:allow/ioctl+tcgets", TCGETS, "api:allow/ioctl^TCGETS", TCGETS, "api:sandbox/ioctl:off", FIONREAD,
             "api:allow/ioctl+NOSUCH", "api:deny/ioctl-TIOCSTI", TIOCSTI]  # fmt: skip
    found = [numbers[0] for numbers in ask(runner, ["lock:off"], words)]
    assert found == [ENOTTY, 0, EACCES, 0, ENOTTY, 0, EACCES, 0, ENOTTY, 0, EACCES, 0, 0, EINVAL, EBUSY, EACCES]


def test_a_refusal_is_logged_with_its_rule(runner: Runner, arena: Arena) -> None:
    """The request by its name where names were needed, and the rule that would allow it."""
    command = runner.syd([str(runner.payload("requests")), TCGETS], [ON, "deny/ioctl+TCGETS"])
    command.remove("-q")
    with runner.start(command) as running:
        outcome = running.finish(30)
    assert '"ctl":"TCGETS"' in outcome.err and "configure `allow/ioctl+TCGETS'" in outcome.err, outcome
