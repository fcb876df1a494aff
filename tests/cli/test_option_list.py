"""syd-pool options: every option is either done or refused by name, and the list says which."""

from __future__ import annotations

import json
import re
from errno import EINVAL, EOPNOTSUPP
from pathlib import Path

import pytest

from syd_pool.cli import option_list
from syd_pool.policy import Ruleset, categories
from syd_pool.policy.errors import BadRule
from syd_pool.policy.options import LIVE, NO, OPTIONS, PARTLY, START, YES
from syd_pool.policy.values import (
    BOOL,
    BYTE,
    DURATION,
    LEVEL,
    MEMORY,
    MICROS,
    NAMESPACES,
    NICE,
    OCTAL,
    SIGNED,
    SIZE,
    TEXT,
    UINT,
    VERBOSE,
)

ROOT = Path(__file__).resolve().parents[2]
# A value of each kind that is nobody's default
ASKING = {
    BOOL: "on", UINT: "77", OCTAL: "077", DURATION: "7s", SIZE: "7M", NICE: "7", TEXT: "/x", LEVEL: "debug",
    VERBOSE: "2", MEMORY: "1", NAMESPACES: "user", SIGNED: "7", BYTE: "7", MICROS: "7us",
}  # fmt: skip
# Options that are read under a name that is put together; the prefix that is written in the source
PREFIXES = ("trace/allow_unsafe_sendfd_", "rlimit/")


def sources() -> str:
    """All of the program but the tables themselves."""
    paths = [p for p in (ROOT / "syd_pool").rglob("*.py") if p.name not in ("options.py", "values.py")]
    return "\n".join(p.read_text() for p in paths)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_done_or_refused_by_name(name: str) -> None:
    """Asking for something: accepted and kept, or EOPNOTSUPP with the option's name.  Never ignored."""
    kind, _, support, when, why = OPTIONS[name]
    assert support in (YES, PARTLY, NO) and when in (START, LIVE)
    assert bool(why) == (support != YES), "what is not whole says why"
    rules = Ruleset()
    if support == NO:
        with pytest.raises(BadRule, match=re.escape(name)) as caught:
            rules.apply(f"{name}:{ASKING[kind]}")
        assert caught.value.errno == EOPNOTSUPP
        assert not rules.values
    else:
        other = "off" if OPTIONS[name][1] is True else ASKING[kind]
        rules.apply(f"{name}:{other}")
        assert rules.values and rules.option(name) != OPTIONS[name][1]


@pytest.mark.parametrize("name", [n for n, row in OPTIONS.items() if row[2] == YES])
def test_a_supported_option_is_read_by_something(name: str) -> None:
    """What is called supported has a consumer: its name, or its guard's, stands in the program."""
    short = name.removeprefix("trace/").removeprefix("allow_unsafe_")
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    wanted = [prefix] if prefix else [f'"{name}"', f'"{name}:', f'"{short}"', f"{name}:", f"_{short}"]
    text = sources()
    assert any(word in text for word in wanted), f"nothing reads {name}"


def test_the_control_an_invented_option_has_no_reader() -> None:
    """The search above can fail."""
    assert '"trace/allow_unsafe_copy"' not in sources()


def errno_of(line: str) -> int:
    """0 if the command is accepted, else its errno."""
    try:
        Ruleset().apply(line)
    except BadRule as error:
        return error.errno
    return 0


@pytest.mark.parametrize("category", sorted(categories.ALL))
def test_a_switch_is_done_or_refused(category: str) -> None:
    """A category that the list calls supported can be switched on; one it calls unsupported cannot."""
    (row,) = [row for row in option_list.rows() if row["name"] == f"sandbox/{category}"]
    assert errno_of(f"sandbox/{category}:on") == (EOPNOTSUPP if row["support"] == NO else 0)


# An element for each list that does not take a path
ELEMENTS = {
    "setenv!": "A=b", "clearenv!": "", "allow/ioctl+": "FIONBIO", "deny/ioctl+": "FIONBIO", "setuid+": "0:65534",
    "setgid+": "0:65534", "allow/net/accept+": "any!80", "deny/net/accept+": "any!80", "allow/net/link+": "route",
    "deny/net/link+": "route", "block+": "1.2.3.4",
}  # fmt: skip


@pytest.mark.parametrize("row", [r for r in option_list.rows() if r["section"] == "lists"], ids=lambda r: r["name"])
def test_a_list_is_done_or_refused(row: dict[str, str]) -> None:
    """Every list of the table, with an element that asks for something."""
    name = row["name"].replace("lock/*", "lock/read")
    if name not in ("include", "include_profile"):  # tests/policy/test_files.py
        element = ELEMENTS.get(name, "/x")
        assert errno_of(name + element) == (EOPNOTSUPP if row["support"] == NO else 0)


def test_the_list_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """Names choose rows; JSON is for programs; nothing found is status 1."""
    assert option_list.main(["--json", "sync_seccomp"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["support"], row["when"]) == ("trace/sync_seccomp", YES, START)
    assert option_list.main(["rlimit/core"]) == 0
    assert "rlimit/core" in capsys.readouterr().out
    assert option_list.main(["nothing-like-this"]) == 1
    assert option_list.main(["--bogus"]) == EINVAL
