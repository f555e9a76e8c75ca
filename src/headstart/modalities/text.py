"""Texts: from a string, its words or a file to clean text, and what an audit needs of it."""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from headstart.core.errors import DataError
from headstart.core.types import LIMITS, Limits

NOUN = ("text", "texts")
VERSION = 1
"""Version of reading and of the division into words; bump when their results move."""
EXTENSIONS: frozenset[str] = frozenset((".txt", ".text", ".md"))
"""File name endings, in lower case, that count as texts when a folder is listed."""

SKETCH = 32
"""Numbers in a text's sketch."""
SHINGLE = 5
"""Characters in a shingle."""
_SKETCHED = 20_000
"""Characters of a text that its sketch looks at: the first ones."""

Raw = str | tuple[str, ...] | Path
"""A text, a text that is split into words already, or a file."""

_MARKS = (
    r"[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u06"
    r"5f\u0670\u06d6-\u06ed\u093c\u0941-\u094d\u200d\ufe0e\ufe0f\u20e3]"
)
_WORD = re.compile(
    # An emoji with its modifiers and joined ones, letters and digits with their marks, or one other sign.
    rf"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[\u2600-\u27bf\U0001f300-\U0001faff](?:[\ufe0f\U0001f3fb-\U0001f3ff\u20e3]|\u200d[\u2600-\u27bf\U0001f300-\U0001faff])*)"
    rf"|(?:\w{_MARKS}*)+|[^\w\s]{_MARKS}*"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an audit needs of one text: its size, how much of it is in which script, and a sketch of its shingles.

    `sketch`, uint32 [SKETCH], holds the least hash of all 5-character shingles under each of SKETCH permutations: two
    texts agree in as large a share of it as their shingles overlap (MinHash: Broder, 1997).
    """

    num_characters: int
    num_words: int
    script: int
    sketch: np.ndarray


def read(raw: Raw, limits: Limits = LIMITS) -> str | tuple[str, ...]:
    """Return a text in NFC, or its words; files are decoded. DataError where it is empty, too long or no text."""
    if isinstance(raw, tuple):
        words = tuple(_clean(word, "a list of words") for word in raw)
        if not any(word.strip() for word in words):
            raise _unusable("a list of words", "it is empty")
        _refuse_long(sum(map(len, words)), "a list of words", limits)
        return words
    name = str(raw) if isinstance(raw, Path) else "a text"
    text = _clean(decode(raw) if isinstance(raw, Path) else raw, name)
    if not text.strip():
        raise _unusable(name, "it is empty")
    _refuse_long(len(text), name, limits)
    return text


def decode(path: Path) -> str:
    """Return a file's text: UTF-8 (with or without a mark), UTF-16, else the encoding that its bytes suggest."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(str(path), error.strerror or str(error)) from None
    return decoded(content, str(path))[0]


def decoded(content: bytes, name: str) -> tuple[str, str]:
    """Return the text of some bytes and the name of their encoding; DataError where they are no text."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            try:
                return content.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise _unusable(name, f"it begins as {encoding} and is not ({error})") from None
    if b"\0" in content:
        raise _unusable(name, f"it holds a NUL byte at {content.index(0)}: it is no text")
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return _guessed(content, name)


def _guessed(content: bytes, name: str) -> tuple[str, str]:
    """Decode bytes that are not UTF-8 by the statistics of their letters."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        raise DataError(
            f"{name} is not UTF-8",
            expected="UTF-8, or the extra that tells encodings",
            fix="pip install 'headstart[text]'",
        ) from None
    best = from_bytes(content).best()
    if best is None:
        raise _unusable(name, "its encoding cannot be told")
    return str(best), best.encoding


def words(text: str) -> list[tuple[str, int, int]]:
    """Return each word with where it starts and ends; signs stand alone, emoji and combining marks stay whole."""
    return [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]


def facts(text: str | tuple[str, ...]) -> Facts:
    """Note the size, the commonest script and the sketch of a text."""
    whole = text if isinstance(text, str) else " ".join(text)
    count = len(text) if isinstance(text, tuple) else whole.count(" ") + 1
    return Facts(len(whole), count, _script(whole), sketch(whole))


def inspect(raw: Raw, *, limits: Limits = LIMITS) -> Facts:
    """Read a text only to note its facts (an audit without a network)."""
    return facts(read(raw, limits))


def shingles(text: str) -> np.ndarray:
    """Return the distinct hashes, uint32, of a text's 5-character shingles, whatever its case and spaces."""
    plain = " ".join(text[:_SKETCHED].casefold().split())
    codes = np.array([ord(letter) for letter in plain], dtype=np.uint64)
    if len(codes) < SHINGLE:
        return np.array([zlib.crc32(plain.encode())], dtype=np.uint32)
    mixed = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for place in range(SHINGLE):
        mixed = mixed * np.uint64(1_000_003) + codes[place : len(codes) - SHINGLE + 1 + place]
    mixed ^= mixed >> np.uint64(29)
    return np.unique((mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.uint32))


def sketch(text: str) -> np.ndarray:
    """Return a text's MinHash, uint32 [SKETCH]."""
    multipliers, offsets = _permutations()
    found = shingles(text).astype(np.uint64)
    return ((found[None] * multipliers[:, None] + offsets[:, None]) >> np.uint64(32)).astype(np.uint32).min(1)


@lru_cache(maxsize=1)
def _permutations() -> tuple[np.ndarray, np.ndarray]:
    """Return the factors and offsets of the sketch's permutations."""
    draws = np.random.Generator(np.random.Philox(key=5))
    numbers = draws.integers(1, 2**63, (2, SKETCH), dtype=np.uint64)
    return numbers[0] | np.uint64(1), numbers[1]


SCRIPTS = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "HANGUL",
    "HIRAGANA",
    "KATAKANA",
    "CJK",
    "THAI",
)


def _script(text: str) -> int:
    """Return the place in SCRIPTS of the script of most letters, len(SCRIPTS) for others or none."""
    letters = [letter for letter in text[:400] if letter.isalpha()]
    if not letters or all(letter.isascii() for letter in letters):
        return 0 if letters else len(SCRIPTS)
    names = [unicodedata.name(letter, "").partition(" ")[0] for letter in letters]
    counts = [names.count(script) for script in SCRIPTS]
    return int(np.argmax(counts)) if max(counts) else len(SCRIPTS)


def _clean(text: str, name: str) -> str:
    """Return a text in NFC; NUL characters are refused."""
    if "\0" in text:
        raise _unusable(name, f"it holds a NUL character at {text.index(chr(0))}")
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))


def _refuse_long(length: int, name: str, limits: Limits) -> None:
    """Refuse a text beyond the limit."""
    if length > limits.characters:
        raise DataError(
            f"{name} is oversized: {length:,} characters",
            expected=f"at most {limits.characters:,} characters (data.max_characters)",
            fix="split it into several texts, or raise the limit with --set data.max_characters=...",
        )


def _unusable(name: str, reason: str) -> DataError:
    """Return the error for what is no text."""
    return DataError(
        f"{name} cannot be read: {reason}", expected="a text of at least one word", fix="replace or delete it"
    )
