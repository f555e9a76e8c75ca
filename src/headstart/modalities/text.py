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
from headstart.modalities.encodings import decode

NOUN = ("text", "texts")
VERSION = 1
"""Version of reading and of the division into words; bump when their results move."""
EXTENSIONS: frozenset[str] = frozenset((".txt", ".text", ".md"))
"""File name endings, in lower case, that count as texts when a folder is listed."""

SKETCH = 32
"""Numbers in a text's sketch."""
SHINGLE = 5
"""Characters in a shingle."""
_FACTOR, _GOLDEN = np.uint64(1_000_003), np.uint64(0x9E3779B97F4A7C15)
_SHIFT, _HALF = np.uint64(29), np.uint64(32)
_SKETCHED = 20_000
"""Characters of a text that its sketch looks at: the first ones."""

Raw = str | tuple[str, ...] | Path
"""A text, a text that is split into words already, or a file."""

_EMOJI = r"[\u2600-\u27bf\U0001f300-\U0001faff]"
_ALONE = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""Kana and ideographs: scripts that write no spaces, so each stands for itself."""


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
        if all(map(_is_blank, words)):
            raise _unusable("a list of words", "it is empty")
        _refuse_long(sum(map(len, words)), "a list of words", limits)
        return words
    name = str(raw) if isinstance(raw, Path) else "a text"
    text = _clean(decode(raw) if isinstance(raw, Path) else raw, name)
    if _is_blank(text):
        raise _unusable(name, "it is empty")
    _refuse_long(len(text), name, limits)
    return text


def words(text: str) -> list[tuple[str, int, int]]:
    """Return each word with where it starts and ends; signs stand alone, emoji and combining marks stay whole."""
    return [(match.group(), match.start(), match.end()) for match in _word().finditer(text)]


@lru_cache(maxsize=1)
def _word() -> re.Pattern[str]:
    """Return the pattern of a word: an emoji with what is joined to it, letters and digits with marks, or a sign."""
    joins = [chr(code) for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))]
    marks = [letter for letter in joins if unicodedata.category(letter)[0] == "M"]
    mark = f"[{''.join(marks)}\u200c\u200d]*"
    emoji = rf"[\U0001f1e6-\U0001f1ff]{{2}}|{_EMOJI}(?:[\ufe0f\U0001f3fb-\U0001f3ff\u20e3]|\u200d{_EMOJI})*"
    return re.compile(rf"{emoji}|{_ALONE}{mark}|(?:(?!{_ALONE})\w{mark})+|[^\w\s]{mark}")


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
    return np.unique(_shingles(text))


def _shingles(text: str) -> np.ndarray:
    """Return the hash of each shingle in turn."""
    plain = " ".join(text[:_SKETCHED].casefold().split())
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) < SHINGLE:
        return np.array([zlib.crc32(plain.encode())], dtype=np.uint32)
    count = len(codes) - SHINGLE + 1
    mixed = codes[:count].copy()
    for place in range(1, SHINGLE):
        mixed *= _FACTOR
        mixed += codes[place : count + place]
    mixed ^= mixed >> _SHIFT
    mixed *= _GOLDEN
    return (mixed >> _HALF).astype(np.uint32)


def sketch(text: str) -> np.ndarray:
    """Return a text's MinHash, uint32 [SKETCH]."""
    multipliers, offsets = _permutations()
    mixed = multipliers[:, None] * _shingles(text).astype(np.uint64)
    mixed += offsets[:, None]
    return (mixed.min(1) >> _HALF).astype(np.uint32)


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
    start = text[:400]
    if start.isascii():
        return 0 if any(map(str.isalpha, start)) else len(SCRIPTS)
    counts = [0] * (len(SCRIPTS) + 1)
    for letter in start:
        counts[_script_of(letter)] += 1
    most = int(np.argmax(counts[:-1]))
    return most if counts[most] else len(SCRIPTS)


@lru_cache(maxsize=1 << 14)
def _script_of(letter: str) -> int:
    """Return the place in SCRIPTS of a letter's script, len(SCRIPTS) of what is no letter or of another one."""
    name = unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""
    return SCRIPTS.index(name) if name in SCRIPTS else len(SCRIPTS)


def _clean(text: str, name: str) -> str:
    """Return a text in NFC; NUL characters are refused."""
    if "\0" in text:
        raise _unusable(name, f"it holds a NUL character at {text.index(chr(0))}")
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))


def _is_blank(text: str) -> bool:
    """Tell whether nothing of a text is seen: no letters, but spaces and controls (such as U+200B)."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


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
