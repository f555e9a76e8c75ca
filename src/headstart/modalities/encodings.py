"""From bytes to text: UTF-8, UTF-16, or the encoding that the letters suggest; what fits none is refused."""

from __future__ import annotations

import re
from pathlib import Path

from headstart.core.errors import DataError

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_LOOKED_AT = 4096
"""Bytes by which UTF-16 without a mark is told."""
_MOSTLY = 0.9
_ENOUGH = 1 << 17
"""Bytes that tell an encoding."""
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
"""Encodings that people's files come in; rarer ones would only win by accident."""
_LATIN = frozenset(("cp1250", "cp1252", "cp1254", "cp1257"))
_LETTERS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("cp1250", frozenset("áéíóöúüõû"), frozenset("õ")),  # Hungarian
    ("cp1254", frozenset("çöüâîûðþý"), frozenset("ðþý")),  # Turkish
    ("cp1252", frozenset("àâäáãåæçéèêëíìîïñóòôöõøœúùûüÿßªº"), frozenset()),  # Western Europe
)
"""(encoding, the letters that its languages show when they are read as cp1252, one of which must be among them)."""
GARBLED = re.compile("[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
                      "\u2013-\u2122]|\u00e2\u20ac|\ufffd")  # fmt: skip
"""UTF-8 that was read as cp1252 (an e with accent as A with tilde and a sign), or a replacement character."""


def decode(path: Path) -> str:
    """Return a file's text; DataError where it cannot be opened or is no text."""
    return decoded(content(path), str(path))[0]


def content(path: Path) -> bytes:
    """Return a file's bytes; DataError where it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise undecodable(str(path), error.strerror or str(error)) from None


def decoded(raw: bytes, name: str) -> tuple[str, str]:
    """Return the text of some bytes and the name of their encoding; DataError where they are no text.

    UTF-8 with or without a mark, UTF-16 with or without one, else the encoding that the letters suggest.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return raw.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise undecodable(name, f"it begins as {encoding} and is not ({error})") from None
    if b"\0" in raw:
        return _without_mark(raw, name)
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        _refuse_broken(raw, name, error)
        return _guessed(raw, name)


def is_garbled(text: str) -> bool:
    """Tell whether a text was decoded in a wrong encoding before it came here."""
    return GARBLED.search(text) is not None


def undecodable(name: str, reason: str) -> DataError:
    """Return the error for what is no text."""
    return DataError(
        f"{name} cannot be read: {reason}",
        expected="text in UTF-8 (or UTF-16, or a usual 8-bit encoding)",
        fix="save it as UTF-8, or delete it",
    )


def _without_mark(raw: bytes, name: str) -> tuple[str, str]:
    """Decode UTF-16 that begins without a mark: every other byte of most scripts is zero there."""
    start = raw[:_LOOKED_AT]
    for encoding, zeros, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if len(raw) % 2 == 0 and 2 * zeros.count(0) > len(zeros) and not others.count(0):
            try:
                return raw.decode(encoding), encoding
            except UnicodeDecodeError:
                break
    at = raw.index(0)
    line = raw.count(b"\n", 0, at) + 1
    raise undecodable(name, f"it holds a NUL byte at {at} (line {line}): it is no text")


def _refuse_broken(raw: bytes, name: str, error: UnicodeDecodeError) -> None:
    """Refuse what is UTF-8 but for a few bytes: any other encoding would garble all of the rest."""
    rest = raw.decode("utf-8", "ignore")
    sound = sum(len(letter.encode()) for letter in rest if not letter.isascii())
    odd = sum(byte > 127 for byte in raw) - sound
    if sound > _MOSTLY * (sound + odd):
        line = raw.count(b"\n", 0, error.start) + 1
        raise undecodable(
            name, f"it is UTF-8 but for {odd} bytes, the first in line {line} (byte {error.start})"
        )


def _guessed(raw: bytes, name: str) -> tuple[str, str]:
    """Decode bytes that are not UTF-8 by the statistics of their letters."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        raise DataError(
            f"{name} is not UTF-8",
            expected="UTF-8, or the extra that tells encodings",
            fix="pip install 'headstart[text]', or save it as UTF-8",
        ) from None
    telling = _telling(raw)
    best = from_bytes(telling, cp_isolation=list(_GUESSED)).best()
    if best is None:
        raise undecodable(name, "its encoding cannot be told")
    encoding = (_latin(telling) if best.encoding in _LATIN else None) or best.encoding
    try:
        return raw.decode(encoding), encoding
    except UnicodeDecodeError as error:  # The guess looks at samples only.
        raise undecodable(name, f"it looks like {encoding} and is not ({error})") from None


def _telling(raw: bytes) -> bytes:
    """Return lines of a large file that are not ASCII: these tell its encoding, and a few are enough."""
    if len(raw) <= _ENOUGH:
        return raw
    found = b"\n".join(line for line in raw.split(b"\n") if not line.isascii())
    end = found.rfind(b"\n", 0, _ENOUGH)
    return found[:end] if len(found) > _ENOUGH and end > 0 else found[:_ENOUGH]


def _latin(raw: bytes) -> str | None:
    """Return which of the Latin encodings has just the letters that occur; None where that is not plain."""
    seen = raw.decode("cp1252", "replace").lower()
    if "\ufffd" in seen:
        return None
    letters = {letter for letter in set(seen) if letter.isalpha() and not letter.isascii()}
    inside = set(re.findall(r"(?<=[^\W\d_])[\u00a1-\u00bf](?=[^\W\d_])", seen)) - set(
        "\u00aa\u00ab\u00b7\u00ba\u00bb"
    )
    if inside:  # Signs within words are letters of another encoding.
        return None
    fitting = (name for name, known, marks in _LETTERS if letters <= known and (not marks or letters & marks))
    return next(fitting, None)
