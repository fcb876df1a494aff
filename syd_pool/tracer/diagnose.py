"""What a tracee looks like when its wait status is one that no rule covers.

The only module that imports python-ptrace (GPL-2.0-only, used as a library at run time; our own code is
MIT).  It costs 25 ms, so it is loaded when a run ends with events.Unexpected and never before.
"""

from __future__ import annotations


def describe(tid: int, status: int) -> str:
    """One line: the raw status, and the registers of the tracee if it is still stopped."""
    text = f"wait status {status:#x} of thread {tid}"
    try:
        from ptrace.binding import ptrace_getregs
        from ptrace.error import PtraceError
    except ImportError as error:
        return f"{text} (no registers: {error})"
    try:
        registers = ptrace_getregs(tid)
    except PtraceError as error:
        return f"{text} (no registers: {error})"
    names = ("orig_rax", "rax", "rip", "rsp", "rdi", "rsi", "rdx")
    return text + ": " + " ".join(f"{name}={getattr(registers, name):#x}" for name in names)
