"""Variables of the environment that the command does not get unless somebody asks for them.

UNSAFE says which and why; a `*` stands for anything.  What lifts it: passenv+PATTERN, -e VAR=VALUE, -e VAR=,
trace/allow_unsafe_env.  SYD_ variables never reach the command, but for SYD_TEST_*.

Sources: syd(7), Restricting environment; ld.so(8), Secure-execution mode; glibc, sysdeps/generic/unsecvars.h;
musl(7); gnupg, ssh-agent(1), sudo(8) and systemd.exec(5) for what they name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

UNSAFE = {
    "chooses the code that a program loads": (
        "LD_* LIBPATH SHLIB_PATH DYLD_* _RLD* GLIBC_TUNABLES GCONV_PATH GETCONF_DIR GIO_EXTRA_MODULES GTK_MODULES "
        "GTK_PATH GTK_IM_MODULE* GDK_PIXBUF_MODULE* GST_PLUGIN* QT_* QML* MUSL_LOCPATH LIBGL_DRIVERS_PATH "
        "VK_ICD_FILENAMES VK_*LAYER* PERL5DB* BASH_FUNC_*"
    ),
    "steers or records the memory allocator": "MALLOC_*",
    "leads name resolution and messages elsewhere": (
        "HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_* NIS_PATH NLSPATH LOCPATH TMPDIR TZDIR"
    ),
    "says where you are and how you speak": "LANG LANGUAGE LC_* TZ PWD OLDPWD",
    "opens your desktop and its session": (
        "DISPLAY XAUTHORITY WAYLAND_* MIR_* XDG_* DBUS_* SESSION_MANAGER ICEAUTHORITY AT_SPI_* PULSE_* PIPEWIRE_* "
        "XMODIFIERS WINDOWID"
    ),
    "opens your agents and your keys": (
        "SSH_* GPG_* GNUPGHOME KRB5CCNAME KRB5_KTNAME SSLKEYLOGFILE SUDO_ASKPASS GIT_ASKPASS CREDENTIALS_DIRECTORY "
        "NOTIFY_SOCKET AWS_SE* AWS_ACCESS_KEY_ID AZURE_CLIENT_* GOOGLE_APPLICATION_CREDENTIALS NPM_CONFIG_*AUTH*"
    ),
    "is a secret by its name": "*TOKEN* *PASSW* *SECRET* *KEY* *CREDENTIAL* *COOKIE* *PRIVATE* *PASSPHRASE*",
}

OWN, TESTS = b"SYD_", b"SYD_TEST_"


def _compile() -> tuple[frozenset[bytes], tuple[bytes, ...], tuple[bytes, ...], tuple[tuple[bytes, bytes], ...]]:
    """Exact names, prefixes, parts, and (prefix, part) pairs."""
    exact, prefixes, parts, both = set(), [], [], []
    for words in UNSAFE.values():
        for word in words.encode().split():
            first, star, rest = word.partition(b"*")
            if not star:
                exact.add(word)
            elif not first:
                parts.append(rest.rstrip(b"*"))
            elif rest.strip(b"*"):
                both.append((first, rest.rstrip(b"*")))
            else:
                prefixes.append(first)
    return frozenset(exact), tuple(prefixes), tuple(parts), tuple(both)


_EXACT, _PREFIXES, _PARTS, _BOTH = _compile()


def unsafe(name: bytes) -> bool:
    """Is the variable kept from the command unless somebody asks for it?"""
    if name in _EXACT or name.startswith(_PREFIXES):
        return True
    for part in _PARTS:
        if part in name:
            return True
    return any(name.startswith(first) and part in name[len(first) :] for first, part in _BOTH)


def allowed(
    env: Mapping[bytes, bytes], passed: set[bytes], patterns: list[str], everything: bool
) -> dict[bytes, bytes]:
    """What of `env` the command gets.

    passed      names that were asked for one by one (-e)
    patterns    of passenv+
    everything  trace/allow_unsafe_env
    """
    from syd_pool.policy.patterns import Wild

    wild = [Wild(pattern.encode("utf-8", "surrogateescape")) for pattern in patterns]
    return {
        name: value
        for name, value in env.items()
        if (not name.startswith(OWN) or name.startswith(TESTS))
        and (everything or not unsafe(name) or name in passed or any(one.match(name) for one in wild))
    }
