"""config/expand above 0: what of a value goes to a shell, and what may come back."""

from __future__ import annotations

import subprocess
from errno import EINVAL, EOPNOTSUPP, ETIMEDOUT

import pytest

from syd_pool import policy
from syd_pool.policy import Ruleset, expand, substitute
from syd_pool.policy.errors import BadRule


def sh(script: bytes, env: dict[bytes, bytes], seconds: float) -> tuple[int, bytes]:
    """A shell without a sandbox."""
    done = subprocess.run(["/bin/sh", "-c", script], env=env, capture_output=True, timeout=10, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Ruleset:
    monkeypatch.setattr(policy, "shell", sh)
    monkeypatch.setenv("ONE", "1 *")
    monkeypatch.setenv("PATHS", "/a/b/c.d")
    monkeypatch.delenv("NONE", raising=False)
    made = Ruleset()
    made.apply("config/expand:5")
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$ONE/${ONE}", "1 */1 *"),
        ("$(echo a)", "a"),
        ("x$(echo a)y`echo b`z", "xaybz"),
        ("$(echo '*')", "*"),
        ("/***/$(echo a  b)'\"", "/***/a b'\""),
        ("$(echo \"a)b\" 'c)')d", "a)b c)d"),
        ('$(echo $(echo `echo deep`) "$(echo \'"\')")', 'deep "'),
        ("$(( (1 + 2) * 3 ))$", "9$"),
        ("${PATHS%/*}${PATHS##*.}", "/a/bd"),
        ("${NONE:-$(echo d)}${NONE:-plain}${NONE:-}", "dplain"),
        ("${NONE+x}$(echo end)", "end"),
        ("$$$(echo a)$$", "$a$"),
        ("it's $(echo \\)) ok", "it's ) ok"),
        ("~/$(echo x)", None),
        ("`echo \\`echo in\\``", "in"),
    ],
)
def test_expansion(rules: Ruleset, text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell has it, but nothing is split, matched with files or unquoted outside of the substitutions."""
    monkeypatch.setenv("HOME", "/home/me")
    assert expand.expand(rules, text) == ("/home/me/x" if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "errno", "word"),
    [
        ("$(false)", EINVAL, "status 1"),
        ("a$(exit 7)b$(echo fine)", EINVAL, "status 7"),
        ("/home/$(true)/***", EINVAL, "printed nothing"),
        ("$(printf 'a\\nb')", EINVAL, "one line"),
        ("$(printf '\\377')", EINVAL, "UTF-8"),
        ("$(id", EINVAL, "not closed"),
        ("`id", EINVAL, "not closed"),
        ("${PATHS%", EINVAL, "not closed"),
        ("${NONE%x}", EINVAL, "status"),
        ("$NONE$(echo x)", EINVAL, "NONE"),
        ("$(head -c 70000 /dev/zero | tr '\\0' a)", EINVAL, "64 KiB"),
        ("$(", EINVAL, "not closed"),
        ("$(echo 'a)", EINVAL, "not closed"),
    ],
)
def test_what_cannot_be_expanded(rules: Ruleset, text: str, errno: int, word: str) -> None:
    """A command that fails or prints nothing must not leave a hole in a path; the error shows the text."""
    with pytest.raises(BadRule, match=word) as caught:
        expand.expand(rules, text)
    assert caught.value.errno == errno


def test_without_the_option_no_command_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """config/expand:0, the default: text that looks like a substitution stays as it is."""

    def never(*_: object) -> tuple[int, bytes]:
        raise AssertionError("a shell was run")

    monkeypatch.setattr(policy, "shell", never)
    for text in ("$(id)", "`id`", "a$(id)b"):
        assert expand.expand(Ruleset(), text) == text
    live = Ruleset()
    live.apply("config/expand:5")
    live.live = True
    live.apply("allow/read+/$(id)")
    assert ("read", 0, b"/$(id)") in live.path_rules(), "nothing is expanded while the command runs"
    live.live = False
    with pytest.raises(AssertionError, match="was run"):
        live.apply("allow/read+/$(id)")


def test_simple_texts_need_no_shell(rules: Ruleset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles are full of ${SYD_HOME}: they cost nothing more."""
    monkeypatch.setattr(policy, "shell", None)
    assert expand.expand(rules, "$ONE ${NONE:-x} $$ ${SYD_UID}")
    with pytest.raises(BadRule, match="needs a shell") as caught:
        expand.expand(rules, "$(id)")
    assert caught.value.errno == EOPNOTSUPP


def test_time_and_size_are_told_apart(rules: Ruleset, monkeypatch: pytest.MonkeyPatch) -> None:
    for status, errno, word in ((substitute.TIMED_OUT, ETIMEDOUT, "5 s"), (substitute.TOO_MUCH, EINVAL, "64 KiB")):
        monkeypatch.setattr(policy, "shell", lambda *_, status=status: (status, b"x"))
        with pytest.raises(BadRule, match=word) as caught:
            expand.expand(rules, "$(id)")
        assert caught.value.errno == errno


def test_the_shell_sees_what_configurations_see(rules: Ruleset) -> None:
    """Variables of the file so far and those of syd(5)."""
    rules.apply("setenv!MINE=own")
    assert expand.expand(rules, '$(echo "$MINE ${SYD_UID}")') == f"own {expand.lookup(rules, 'SYD_UID')}"
