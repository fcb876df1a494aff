"""Path patterns: rsync's wildmatch with syd's triple star.

Sources: syd(2), PATTERN MATCHING; rsync(1), PATTERN MATCHING RULES; syd 3.52 where they leave a doubt.

    ?  *      within a component         [a-z] [!a-z] [^a-z] [[:alpha:]]   one byte, never a slash
    **        anything                   /**/   also a single slash
    X/***     X and everything below it  \\      escapes, but only in a pattern that has a wildcard

Guarantee: matching is linear in the length of the path (for a given pattern), whatever the path is.  No `re`:
its backtracking is not linear, and importing it would cost 5 ms in front of every command.

How: a pattern is cut at every `**` into chunks, a chunk at every `*` into words, a word has a fixed length.
All words but the last can be placed at the first position where they fit: a later one leaves less room for
what follows.  A `*` never crosses a slash, so if a chunk fails somewhere in a component of the path, every
later start in the same component fails too.
"""

from __future__ import annotations

LITERAL, TREE, BELOW, WILD = range(4)

_WILDCARDS = b"*?["
_SLASH = 47

# The POSIX classes of rsync's wildmatch, as the "C" locale has them.
_LOWER, _UPPER, _DIGIT = bytes(range(97, 123)), bytes(range(65, 91)), b"0123456789"
_PUNCT = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CLASSES = {
    b"alpha": _LOWER + _UPPER,
    b"lower": _LOWER,
    b"upper": _UPPER,
    b"digit": _DIGIT,
    b"alnum": _LOWER + _UPPER + _DIGIT,
    b"xdigit": _DIGIT + b"abcdefABCDEF",
    b"punct": _PUNCT,
    b"graph": _LOWER + _UPPER + _DIGIT + _PUNCT,
    b"print": _LOWER + _UPPER + _DIGIT + _PUNCT + b" ",
    b"space": b" \t\n\v\f\r",
    b"blank": b" \t",
    b"cntrl": bytes((*range(32), 127)),
}
_NOT_SLASH = frozenset(range(256)) - {_SLASH}


class Unmatchable(ValueError):
    """The pattern can never match (an unclosed class, say), as in rsync."""


def normal(pattern: bytes) -> bytes:
    """The pattern with runs of slashes made one, as every path that is judged has them."""
    while b"//" in pattern:
        pattern = pattern.replace(b"//", b"/")
    return pattern


def quoted(path: bytes) -> str:
    """A pattern that matches `path` and nothing else, as a user can write it: bytes that are no text in hexadecimal."""
    if has_wildcard(path):
        special = {42: b"[*]", 63: b"[?]", 91: b"[[]", 92: b"\\\\"}
        path = b"".join(special.get(byte, b"%c" % byte) for byte in path)
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return path.hex()
    return text if text.isprintable() and "$" not in text else path.hex()


def has_wildcard(pattern: bytes) -> bool:
    """Is it more than a literal?"""
    return any(c in pattern for c in (b"*", b"?", b"["))


def literal(text: bytes) -> bytes:
    """The pattern that matches `text` and nothing else."""
    if not has_wildcard(text):
        return text
    return b"".join(_AS_CLASS.get(c) or bytes((c,)) for c in text)


_AS_CLASS = {c: b"[" + bytes((c,)) + b"]" for c in _WILDCARDS} | {92: b"\\\\"}


def classify(pattern: bytes) -> tuple[int, bytes]:
    """The kind of a normal pattern: (LITERAL, path), (TREE, X) of X/***, (BELOW, X) of X/**, (WILD, it)."""
    if not has_wildcard(pattern):
        return LITERAL, pattern
    if pattern.endswith(b"**/"):
        pattern = pattern[:-1]  # no path ends with a slash; syd takes it so too
    for tail, kind in ((b"/***", TREE), (b"/**", BELOW)):
        head = pattern.removesuffix(tail)
        if head != pattern and not has_wildcard(head) and b"\\" not in head:
            return kind, head
    return WILD, pattern


class Wild:
    """A compiled pattern with wildcards.  Plain data; `head` is what every matching path begins with.

    A pattern X/*** is two: X itself, and X/**.
    """

    __slots__ = ("alternatives", "head")

    def __init__(self, pattern: bytes) -> None:
        texts = [pattern]
        if pattern.endswith(b"/***"):
            texts = [pattern[:-4], pattern[:-1]]
        self.alternatives: list[tuple[list[Chunk], list[bool]]] = []
        heads = []
        for text in texts:
            try:
                chunks, gaps = _compile(text)
            except Unmatchable:
                continue
            self.alternatives.append((chunks, gaps))
            heads.append(_head(chunks[0].words[0]))
        self.head = min(heads, key=len) if heads else b""

    def match(self, path: bytes) -> bool:
        """Does the pattern match the whole path?"""
        return any(_match(chunks, gaps, path) for chunks, gaps in self.alternatives)


# A word is bytes when it is literal, else one set of bytes for each position.
Word = bytes | tuple[frozenset[int], ...]


def _head(word: Word) -> bytes:
    """The literal bytes that a word begins with."""
    if isinstance(word, bytes):
        return word
    end = 0
    while end < len(word) and len(word[end]) == 1:
        end += 1
    return bytes(next(iter(accepted)) for accepted in word[:end])


class Chunk:
    """What stands between two `**`: words, between which a `*` stood."""

    __slots__ = ("slashes", "words")

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.slashes = sum(_slashes(word) for word in words)


def _slashes(word: Word) -> int:
    if isinstance(word, bytes):
        return word.count(b"/")
    return sum(1 for accepted in word if _SLASH in accepted)


def _compile(pattern: bytes) -> tuple[list[Chunk], list[bool]]:
    """Chunks, and for each gap between them whether it is that of `/**/`: empty, or ending with a slash."""
    chunks: list[Chunk] = []
    gaps: list[bool] = []
    words: list[Word] = []
    word: list[frozenset[int]] = []
    i, end = 0, len(pattern)

    def close_word() -> None:
        words.append(_literal(word))
        word.clear()

    while i < end:
        byte = pattern[i]
        if byte == 42:  # *
            stars = i
            while i < end and pattern[i] == 42:
                i += 1
            close_word()
            if i - stars == 1:
                continue
            after_slash = stars == 0 or pattern[stars - 1] == _SLASH
            slashed = i - stars == 2 and after_slash and i < end and pattern[i] == _SLASH
            i += slashed
            if slashed and gaps and gaps[-1] and words == [b""]:
                words.clear()  # /**/**/ is /**/
                continue
            chunks.append(Chunk(words.copy()))
            gaps.append(slashed)
            words.clear()
        elif byte == 63:  # ?
            word.append(_NOT_SLASH)
            i += 1
        elif byte == 91:  # [
            accepted, i = _class(pattern, i + 1)
            word.append(accepted)
        else:
            if byte == 92 and i + 1 < end:  # \
                i += 1
            word.append(frozenset((pattern[i],)))
            i += 1
    close_word()
    chunks.append(Chunk(words))
    return chunks, gaps


def _literal(word: list[frozenset[int]]) -> Word:
    """The word as bytes if each position accepts one byte only."""
    if all(len(accepted) == 1 for accepted in word):
        return bytes(next(iter(accepted)) for accepted in word)
    return tuple(word)


def _class(pattern: bytes, i: int) -> tuple[frozenset[int], int]:
    """The bytes that the class behind `[` accepts, and where the pattern goes on.  Raises Unmatchable."""
    negated = pattern[i : i + 1] in (b"!", b"^")
    i += negated
    start, accepted, last = i, set[int](), -1
    while True:
        byte = _at(pattern, i)
        if byte == 93 and i > start:  # ] closes, unless it comes first
            break
        if byte == 91 and pattern[i + 1 : i + 2] == b":":
            close = pattern.find(b"]", i + 2)
            if close > 0 and pattern[close - 1] == 58 and close - 1 >= i + 2:
                accepted |= _named(pattern[i + 2 : close - 1])
                i, last = close + 1, -1
                continue
        if byte == 45 and last >= 0 and _at(pattern, i + 1) != 93:  # a range, not a last `-`
            i += 1
            upper = _at(pattern, i)
            if upper == 92:
                i += 1
                upper = _at(pattern, i)
            accepted |= set(range(last, upper + 1))
            i, last = i + 1, -1
            continue
        if byte == 92:
            i += 1
            byte = _at(pattern, i)
        accepted.add(byte)
        i, last = i + 1, byte
    found = _NOT_SLASH - accepted if negated else accepted & _NOT_SLASH
    return frozenset(found), i + 1


def _at(pattern: bytes, i: int) -> int:
    if i >= len(pattern):
        raise Unmatchable("a class is not closed")
    return pattern[i]


def _named(name: bytes) -> frozenset[int]:
    if name not in _CLASSES:
        raise Unmatchable("no such class")
    return frozenset(_CLASSES[name])


# --- matching ------------------------------------------------------------------------------------


def _match(chunks: list[Chunk], gaps: list[bool], path: bytes) -> bool:
    if len(chunks) == 1:
        return _finish(chunks[0].words, path, 0)
    at = _start(chunks[0].words, path, 0)
    for chunk, slashed in zip(chunks[1:-1], gaps, strict=False):
        if at < 0:
            return False
        at = _float(chunk.words, path, at, slashed)
    return at >= 0 and _last(chunks[-1], path, at, gaps[-1])


def _fits(word: Word, path: bytes, at: int) -> bool:
    if isinstance(word, bytes):
        return path.startswith(word, at)
    if at + len(word) > len(path):
        return False
    for accepted in word:
        if path[at] not in accepted:
            return False
        at += 1
    return True


def _find(word: Word, path: bytes, low: int, high: int) -> int:
    """The first position from `low` to `high` where the word fits, or -1."""
    if isinstance(word, bytes):
        return path.find(word, low, high + len(word))
    for at in range(low, min(high, len(path) - len(word)) + 1):
        if _fits(word, path, at):
            return at
    return -1


def _component_end(path: bytes, at: int) -> int:
    slash = path.find(b"/", at)
    return len(path) if slash < 0 else slash


def _rest(words: list[Word], path: bytes, at: int) -> int:
    """Where words[1:] end at the earliest when words[0] ended at `at`; -1 if they do not fit."""
    for word in words[1:]:
        found = _find(word, path, at, _component_end(path, at))
        if found < 0:
            return -1
        at = found + len(word)
    return at


def _start(words: list[Word], path: bytes, at: int) -> int:
    """The earliest end of a chunk that starts at `at`, or -1."""
    return _rest(words, path, at + len(words[0])) if _fits(words[0], path, at) else -1


def _finish(words: list[Word], path: bytes, at: int) -> bool:
    """Does a chunk that starts at `at` reach to the end of the path?"""
    if not _fits(words[0], path, at):
        return False
    if len(words) == 1:
        return at + len(words[0]) == len(path)
    at = _rest(words[:-1], path, at + len(words[0]))
    last = words[-1]
    place = len(path) - len(last)
    return 0 <= at <= place <= _component_end(path, at) and _fits(last, path, place)


def _float(words: list[Word], path: bytes, at: int, slashed: bool) -> int:
    """The earliest end of a chunk that starts at `at` or later, or -1."""
    first, most = words[0], len(path)
    while at <= most:
        if not slashed:
            at = _find(first, path, at, most)
            if at < 0:
                return -1
        ended = _start(words, path, at)
        if ended >= 0:
            return ended
        slash = path.find(b"/", at + (not slashed and path[at : at + 1] == b"/"))
        if slash < 0:
            return -1
        at = slash + slashed
    return -1


def _last(chunk: Chunk, path: bytes, at: int, slashed: bool) -> bool:
    """Does the last chunk, starting at `at` or later, reach to the end of the path?"""
    words = chunk.words
    if len(words) == 1:
        start = len(path) - len(words[0])
        if start < at or (slashed and start > at and path[start - 1] != _SLASH):
            return False
        return _fits(words[0], path, start)
    # it holds so many slashes, so it starts in the component that has as many behind it
    low = len(path)
    for _ in range(chunk.slashes + 1):
        low = path.rfind(b"/", 0, low)
        if low < 0:
            break
    low += 1
    if slashed:
        return low >= at and _finish(words, path, low)
    start = _find(words[0], path, max(low, at), len(path))
    return start >= 0 and _finish(words, path, start)
