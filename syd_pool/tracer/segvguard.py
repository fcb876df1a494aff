"""SegvGuard: a program that crashes again and again is not executed any more for a while (syd(7), SegvGuard).

    wait status with a signal of SIGNALS, or SIGKILL by a rule --> note_end()     maxcrashes within expiry: suspended
    verdict "may be executed" -------------> refusal()       while suspended: as default/segvguard says

A program is a file, (st_dev, st_ino): of a script it is the interpreter, which is what crashed.  One process
counts once however many of its threads end by the signal.  It stands where executions are judged: under
ptrace, with a row for execve in force.
"""

from __future__ import annotations

import os
from errno import EACCES
from time import monotonic

from syd_pool.linux.signals import SIGKILL
from syd_pool.policy import actions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from syd_pool.tracer.state import Run, Task

# ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS, QUIT: those that dump core
SIGNALS = frozenset((4, 5, 6, 7, 8, 11, 24, 25, 31, 3))
MOST_PROGRAMS = 1024  # remembered; then the oldest are forgotten
_SENT = {actions.ABORT: 6, actions.KILL: 9, actions.STOP: 19}


def note_end(run: Run, tid: int, signal: int) -> None:
    """A thread was ended by `signal`: if it led its group, was this a crash of its program?

    The status of a leader comes once per process, when all its threads have ended, with the signal that ended
    them; siblings that an execve(2) has ended do not lead.  SIGKILL counts when the rules sent it (action `kill`):
    one from anybody else, from the out-of-memory killer or for a fault of ours says nothing about the program.
    """
    if signal == SIGKILL:
        _hear_of_kills(run, tid)
    elif signal not in SIGNALS:
        return
    task = run.tasks.get(tid)
    rules = run.config.rules
    expiry = _number(rules.option("segvguard/expiry"))
    if task is None or task.tgid != tid or not expiry or (signal == SIGKILL and tid not in run.condemned):
        return
    program = task.program
    if program == (0, 0):
        return  # it never executed what a worker had judged
    now = monotonic()
    crashes = [when for when in run.crashes.pop(program, ()) if now - when < expiry]
    crashes.append(now)
    if len(crashes) >= _number(rules.option("segvguard/maxcrashes")):
        run.suspended[program] = now + _number(rules.option("segvguard/suspension"))
        run.log("segvguard", tid, _name(program), "crashes too often, suspended")
    run.crashes[program] = crashes
    for table in (run.crashes, run.suspended):
        while len(table) > MOST_PROGRAMS:
            del table[next(iter(table))]


def _hear_of_kills(run: Run, tid: int) -> None:
    """A worker says that it kills before it does so, but its word may not have been read yet."""
    from syd_pool.tracer import pool

    if tid not in run.condemned:
        for worker in list(run.workers.values()):
            pool.read_completions(run, worker)


def refusal(run: Run, task: Task, program: tuple[int, ...]) -> int:
    """The errno with which the execution of a file is refused, 0 if it is not; acts as default/segvguard says."""
    until = run.suspended.get((program[0], program[1]))
    if until is None:
        return 0
    rules = run.config.rules
    if monotonic() >= until or not rules.option("segvguard/expiry"):
        del run.suspended[program[0], program[1]]
        run.crashes.pop((program[0], program[1]), None)
        return 0
    action = rules.defaults.get("segvguard", actions.DENY)
    if action != actions.FILTER:
        run.log("segvguard", task.tid, _name(program), f"suspended: {actions.NAMES[action]}")
    if action == actions.WARN:
        return 0
    if action in _SENT:
        os.kill(task.tgid, _SENT[action])
    elif action == actions.EXIT:
        run.status, run.ended = EACCES, True
    return EACCES


def _name(program: tuple[int, ...]) -> str:
    return f"inode {program[1]} of device {program[0]:#x}"


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) else 0
