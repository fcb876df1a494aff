"""The rules of one run, and the decisions made from them.

    parse.apply --add, remove, switch--> Ruleset --verdicts["stat"][path]--> action

Guarantees:
- the last rule that matches decides; without one, `default/<category>` does (syd(5));
- a decision that was made before is one dictionary look-up, however many rules there are;
- a first decision tries only the few rules that could match (matching.py);
- memory for decisions is bounded, whatever paths the command asks about.

A Ruleset is plain data: it survives fork and pickle.  It belongs to one process; nothing here locks.
"""

from __future__ import annotations

from syd_pool.policy import actions, categories, requests
from syd_pool.policy.actions import ALLOW, DENY, KILL
from syd_pool.policy.categories import GLOB, NET, deny_errno
from syd_pool.policy.forced import forced
from syd_pool.policy.lock import UNSET
from syd_pool.policy.matching import Matches, PathRules, Verdicts
from syd_pool.policy.options import ALIASES, OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from syd_pool.policy.blocks import Blocked, Edit
    from syd_pool.policy.network import AddressRules
    from syd_pool.policy.values import Value

_UNIX = (b"/", b"@", b"!")  # what the text of a Unix address begins with


class FilesystemVerdicts(dict[int, int]):
    """f_type of statfs(2) -> action for the category `fs`."""

    __slots__ = ("decide",)

    def __init__(self, decide: Callable[[int], int] | None) -> None:
        super().__init__()
        self.decide = decide

    def __missing__(self, magic: int) -> int:
        action = self.decide(magic) if self.decide is not None else ALLOW
        self[magic] = action
        return action


class Ruleset:
    """The policy of one run.

    enabled     categories that are on
    verdicts    category -> Verdicts; every glob category is a key
    walk        directory -> the hardest verdict of `walk` on it and every directory above it but `/`
    filesystem  f_type -> verdict of the category `fs`
    lock        a state of lock.py
    live        the command runs: nothing is expanded any more
    defaults    category -> action when no rule matches
    values      options that were set; ask option(), set with set_options()
    resolve, opens, lifted  what they force on every look-up and open, and what they permit (forced.py)
    env         what setenv!, unsetenv! and clearenv! say, in order: (operation, name, value)
    passenv     patterns of variables that are passed on although they look dangerous
    passed      names of such variables (-e)
    addresses   (action, category, text) of the address rules, in order
    landlock    (right, absolute path or ports) of the lock rules, in order
    masks       (pattern, target, target for directories or b"") of the masked files, in order
    appends     patterns of the append-only files, in order
    masked      path -> index of the mask that counts, -1 for none; None while there is no mask at all
    appended    path -> index of the pattern that makes it append-only, -1 for none; None likewise
    blocks      elements of block, in order (blocks.py)
    blocked     the set of addresses they make; None while there is none
    accepted    ADDRESS!PORT of a peer that connects -> action of the rules of net/accept; None while there is none
    requests    (action, number) of the rules about ioctl(2), in order
    requested   number of a request -> action
    kept        are there masks or append-only files?  They are not to be changed (emulate/kept.py)
    transits    {"setuid": {from: to}, "setgid": {from: to}}
    chrooted    the command has given up the file system; see cut_off()
    """

    __slots__ = (
        "_paths",
        "accepted",
        "addresses",
        "appended",
        "appends",
        "blocked",
        "blocks",
        "chrooted",
        "defaults",
        "enabled",
        "env",
        "filesystem",
        "filesystems",
        "kept",
        "landlock",
        "lifted",
        "live",
        "lock",
        "masked",
        "masks",
        "opens",
        "passed",
        "passenv",
        "requested",
        "requests",
        "resolve",
        "transits",
        "values",
        "verdicts",
        "walk",
    )

    def __init__(self) -> None:
        self.lock = UNSET
        self.live = False
        self.chrooted = False
        self._defaults()

    def _defaults(self) -> None:
        self.enabled: set[str] = set(categories.ON_BY_DEFAULT)
        self.defaults: dict[str, int] = {"pid": KILL, "lock": KILL}
        self.values: dict[str, Value] = {}
        self.resolve, self.opens, self.lifted = 0, 0, 0
        self.env: list[tuple[str, bytes, bytes]] = []
        self.passenv: list[str] = []
        self.passed: set[bytes] = set()
        self.addresses: list[tuple[int, str, str]] = []
        self.filesystems: list[tuple[int, str]] = []
        self.landlock: list[tuple[str, str]] = list(categories.LOCK_DEFAULTS)
        self.masks: list[tuple[bytes, bytes, bytes]] = []
        self.appends: list[bytes] = []
        self.requests = requests.at_start()
        self.blocks: list[Edit] = []
        self.transits: dict[str, dict[int, int]] = {"setuid": {}, "setgid": {}}
        self._paths: dict[str, PathRules] = {}
        self.refresh()

    # --- questions ---

    def option(self, name: str) -> Value:
        """The value of an option of options.OPTIONS (`trace/` may be left out).  Raises KeyError."""
        name = ALIASES.get(name, name)
        if name not in OPTIONS:
            name = "trace/" + name
        if name in self.values:
            return self.values[name]
        return OPTIONS[name][1]

    def errno(self, category: str) -> int:
        """What a denied call fails with.  Raises KeyError."""
        return deny_errno(category)

    def explain(self, category: str, path: bytes) -> str:
        """The command that decides about `path`: a rule, a default action, or the switch that is off."""
        if category == "block":
            return "block+" + path.partition(b"!")[0].decode()
        if category == "ioctl":
            number = requests.read(path.decode("ascii"), DENY)[0]
            name = actions.NAMES[self.requested[number]]
            return f"{name}/ioctl+{path.decode('ascii')}" if number in self.requested else f"default/ioctl:{name}"
        if category not in self.enabled and category not in categories.LISTS:
            return f"sandbox/{category}:off"
        if (category in NET or category in categories.LISTS) and path[:1] not in _UNIX:
            about = [(action, text) for action, name, text in self.addresses if name == category]
            index = _network().AddressRules(about).find(path)
            if index >= 0:
                action, text = about[index]
                return f"{actions.NAMES[action]}/{category}+{text}"
        paths = self._paths.get(category)
        index = paths.find(path) if paths else -1
        if paths is None or index < 0:
            return f"default/{category}:{actions.NAMES[self.defaults.get(category, DENY)]}"
        action, pattern = paths.rules[index]
        return f"{actions.NAMES[action]}/{category}+{pattern.decode('utf-8', 'surrogateescape')}"

    def path_rules(self) -> list[tuple[str, int, bytes]]:
        """Every path rule as (category, action, pattern), by category, the one that is asked first in front."""
        return [
            (name, action, pattern)
            for name in GLOB
            if name in self._paths
            for action, pattern in reversed(self._paths[name].rules)
        ]

    def has_rules(self, action: int, names: list[str]) -> bool:
        """Is there any rule with `action` for one of these categories or lists?"""
        return (
            any(action == rule[0] for name in names if name in self._paths for rule in self._paths[name].rules)
            or any(rule[0] == action and rule[1] in names for rule in self.addresses)
            or ("fs" in names and any(rule[0] == action for rule in self.filesystems))
        )

    def environment(self, env: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """`env` after setenv!, unsetenv! and clearenv!, in their order; clearenv! leaves SYD_ ones alone."""
        found = dict(env)
        for operation, name, value in self.env:
            if operation == "set":
                found[name] = value
            elif operation == "unset":
                found.pop(name, None)
            else:
                found = {k: v for k, v in found.items() if k.startswith(b"SYD_")}
        return found

    # --- edits, by parse.py; they do not ask the lock ---

    def switch(self, category: str, on: bool) -> None:
        """sandbox/<category>"""
        (self.enabled.add if on else self.enabled.discard)(category)
        self.refresh(category)

    def set_default(self, category: str, action: int) -> None:
        """default/<category>"""
        self.defaults[category] = action
        self.refresh(category)

    def set_options(self, values: Mapping[str, Value]) -> None:
        """<option>:<value>"""
        self.values.update(values)
        self.resolve, self.opens, self.lifted = forced(self.values)

    def add(self, action: int, category: str, pattern: bytes) -> None:
        """<action>/<category>+<pattern>"""
        self._paths.setdefault(category, PathRules()).add(action, pattern)
        self.refresh(category)

    def remove(self, action: int, category: str, pattern: bytes, every: bool) -> None:
        """<action>/<category>-<pattern>, or ^"""
        self._paths.setdefault(category, PathRules()).remove(action, pattern, every)
        self.refresh(category)

    def reset(self) -> None:
        """Back to how a run starts; the lock stays as it is (syd(2), reset)."""
        self._defaults()

    def cut_off(self) -> None:
        """After chroot(2): every category that is on refuses every path; only `chdir /` is left (syd(7), chroot)."""
        self.chrooted = True
        self.refresh()

    def refresh(self, category: str = "") -> None:
        """Forget the decisions about one category, or all."""
        if not category:
            self.verdicts = {name: self._verdicts(name) for name in GLOB}
        elif category in self.verdicts:
            self.verdicts[category] = self._verdicts(category)
        if category in ("", "walk"):
            self.walk = Verdicts(self._walk if "walk" in self.enabled else None)
        if category in ("", "fs"):
            self.filesystem = FilesystemVerdicts(self._filesystem if "fs" in self.enabled else None)
        if category in ("", "mask"):
            self.masked = Matches(mask[0] for mask in self.masks) if self.masks else None
        if category in ("", "append"):
            self.appended = Matches(self.appends) if self.appends else None
        if category in ("", "block"):
            self.blocked: Blocked | None = _blocks().Blocked(self.blocks) if self.blocks else None
        if category in ("", "net/accept"):
            about = [(action, text) for action, name, text in self.addresses if name == "net/accept"]
            refused = any(action != ALLOW for action, _ in about)
            self.accepted = Verdicts(_DecideNetwork(None, about, ALLOW)) if refused else None
        if category in ("", "ioctl"):
            default = self.defaults.get("ioctl", DENY)
            self.requested = requests.RequestVerdicts(self.requests, "ioctl" in self.enabled, default)
        self.kept = bool(self.masks or self.appends)

    # --- decisions ---

    def _verdicts(self, category: str) -> Verdicts:
        if category not in self.enabled:
            return Verdicts(None)
        paths = self._paths.get(category)
        default = self.defaults.get(category, DENY)
        if category in NET:
            about = [(action, text) for action, name, text in self.addresses if name == category]
            return Verdicts(self._within(category, _DecideNetwork(paths, about, default)))
        return Verdicts(self._within(category, _Decide(paths, default)))

    def _within(self, category: str, decide: Callable[[bytes], int]) -> Callable[[bytes], int]:
        """`decide`; once chrooted, of nothing that is a path but `/` where one may still be."""
        if not self.chrooted:
            return decide
        here = b"/" if category in ("stat", "chdir") else b""
        return lambda path: DENY if path[:1] == b"/" and path != here else decide(path)

    def _walk(self, directory: bytes) -> int:
        decide = self.verdicts["walk"].decide
        if decide is None:
            return ALLOW
        worst, at = ALLOW, directory.rfind(b"/")
        known = self.walk.get(directory[:at]) if at > 0 else None
        if known is not None:
            return max(known, decide(directory))
        at = 0
        while at >= 0:
            at = directory.find(b"/", at + 1)
            part = directory if at < 0 else directory[:at]
            if len(part) > 1:
                worst = max(worst, decide(part))
        return worst

    def _filesystem(self, magic: int) -> int:
        from syd_pool.policy.filesystems import lookup

        for action, element in reversed(self.filesystems):
            if magic in lookup(element):
                return action
        return self.defaults.get("fs", DENY)

    # --- pickling: decisions are left behind ---

    def __getstate__(self) -> dict[str, object]:
        left_out = ("verdicts", "walk", "filesystem", "masked", "appended", "kept", "requested", "blocked", "accepted")
        return {name: getattr(self, name) for name in self.__slots__ if name not in left_out}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.refresh()

    # --- all or nothing ---

    def save(self) -> dict[str, object]:
        """What restore() needs to undo everything that is done from now on."""
        state: dict[str, object] = {}
        for name, value in self.__getstate__().items():
            if isinstance(value, dict):
                state[name] = {k: _copied(v) for k, v in value.items()}
            else:
                state[name] = value.copy() if isinstance(value, list | set) else value
        return state

    def restore(self, state: dict[str, object]) -> None:
        """Be as at save()."""
        self.__setstate__(state)

    # --- the language; parse.py is the grammar ---

    def apply(self, line: str, source: str = "") -> None:
        """Carry out one configuration command.  Raises BadRule, and then nothing of it was done."""
        from syd_pool.policy.parse import apply

        apply(self, line, source)

    def load(self, path: str) -> None:
        """Carry out a configuration file.  Raises BadRule."""
        from syd_pool.policy.files import load

        load(self, path)

    def profile(self, name: str) -> None:
        """Carry out a built-in profile, or several by their letters (`MP`).  Raises BadRule."""
        from syd_pool.policy.files import profile

        profile(self, name)


def _copied(value: object) -> object:
    if isinstance(value, PathRules):
        return PathRules(value.rules.copy())
    return value.copy() if isinstance(value, dict) else value


class _Decide:
    """A decision of one category: called with a path."""

    __slots__ = ("default", "paths")

    def __init__(self, paths: PathRules | None, default: int) -> None:
        self.paths = paths
        self.default = default

    def __call__(self, path: bytes) -> int:
        paths = self.paths
        if paths is None:
            return self.default
        index = paths.find(path)
        return self.default if index < 0 else paths.rules[index][0]


class _DecideNetwork(_Decide):
    """A decision of a network category: called with an address as text (network.py)."""

    __slots__ = ("about", "addresses")

    def __init__(self, paths: PathRules | None, about: list[tuple[int, str]], default: int) -> None:
        super().__init__(paths, default)
        self.about = about
        self.addresses: AddressRules | None = None

    def __call__(self, text: bytes) -> int:
        if text[:1] in _UNIX:
            return super().__call__(text)
        if self.addresses is None:
            self.addresses = _network().AddressRules(self.about)
        index = self.addresses.find(text)
        return self.default if index < 0 else self.about[index][0]


def _blocks() -> ModuleType:
    """policy/blocks.py, imported at the first element."""
    from syd_pool.policy import blocks

    return blocks


def _network() -> ModuleType:
    """policy/network.py, imported at the first question about an IP address."""
    from syd_pool.policy import network

    return network
