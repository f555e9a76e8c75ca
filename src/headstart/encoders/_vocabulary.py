"""Texts as token ids by the `tokenizers` library, a vocabulary of words, and word vectors in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import EncoderError

UNKNOWN = "<unk>"
MOST_WORDS = 30_000
"""Words of a vocabulary, the most frequent first."""
LEAST_TIMES = 2
"""A word seen once teaches its row of the embedding nothing that holds elsewhere: it is read as unknown, so that the
unknown word's row learns too."""
_FEW_WORDS = 200
"""So few distinct words are all kept: hardly any would be left."""


class PlainTokenizer:
    """A tokenizer.json without a network's library around it; implements encoders._text.Tokenizer."""

    def __init__(self, content: bytes, *, before: Sequence[str] = (), name: str = "the tokenizer") -> None:
        """Read a tokenizer.json; `before` are the tokens that open each window."""
        try:
            self._tokenizer: Any = _library().Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:
            # The library raises a bare Exception for whatever it cannot read.
            raise EncoderError(
                f"{name} cannot be read ({str(error)[:200]})",
                expected="a tokenizer.json of the tokenizers library",
                fix="write it anew: Tokenizer.save('tokenizer.json')",
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        unknown = [token for token in before if self._tokenizer.token_to_id(token) is None]
        if unknown:
            raise EncoderError(
                f"{name} has no token {unknown[0]!r}, with which each window begins",
                expected="the tokens that config.json lists under `before`",
                fix="correct `before` in config.json, or take the tokenizer that the network was trained with",
            )
        self.before: tuple[int, ...] = tuple(self._tokenizer.token_to_id(token) for token in before)
        self.after: tuple[int, ...] = ()
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        unknown_id = self._tokenizer.token_to_id(UNKNOWN)
        self._fallback = [0 if unknown_id is None else unknown_id]

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one."""
        found = (self._tokenizer.token_to_id(name) for name in ("[MASK]", "<mask>"))
        return next((token for token in found if token is not None), self._fallback[0])

    def name(self, token: int) -> str:
        """Return how a token is written."""
        return self._tokenizer.id_to_token(token) or UNKNOWN

    def words(self) -> dict[str, int]:
        """Return the vocabulary: token -> id."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def encode(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word, as they stand in a text with blanks between."""
        ends = np.cumsum([len(word) + 1 for word in words])
        places = [
            (word, int(end) - len(word) - 1, int(end) - 1) for word, end in zip(words, ends, strict=True)
        ]
        return self.encode_text(" ".join(words), places)

    def encode_text(self, text: str, words: Sequence[tuple[str, int, int]]) -> list[list[int]]:
        """Return the ids of a text, each with the word in which it ends; a word without one is unknown."""
        if not words:
            return []
        found = self._tokenizer.encode(text, add_special_tokens=False)
        starts = np.array([start for _, start, _ in words])
        ends = np.array([end - 1 for _, end in found.offsets], dtype=np.int64)
        owners = np.maximum(np.searchsorted(starts, ends, side="right") - 1, 0)
        pieces: list[list[int]] = [[] for _ in words]
        for token, word in zip(found.ids, owners, strict=True):
            pieces[word].append(token)
        return [piece or self._fallback for piece in pieces]


def word_vocabulary(texts: Iterable[str], *, known: Collection[str] = ()) -> bytes:
    """Return a tokenizer.json of the words of some texts, in lower case; words in `known` need be seen only once."""
    library = _library()
    tokenizer = library.Tokenizer(library.models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
    tokenizer.normalizer = library.normalizers.Sequence(
        [library.normalizers.NFC(), library.normalizers.Lowercase()]
    )
    pattern = library.Regex(_word_pattern())
    tokenizer.pre_tokenizer = library.pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    times: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        times.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    least = LEAST_TIMES if len(times) > _FEW_WORDS else 1
    kept = [word for word, count in times.items() if count >= least or word in known]
    kept = sorted(kept, key=lambda word: (-times[word], word))[:MOST_WORDS]
    ids = {UNKNOWN: 0, **{word: row for row, word in enumerate(kept, 1) if word != UNKNOWN}}
    tokenizer.model = library.models.WordLevel(
        dict(zip(ids, range(len(ids)), strict=True)), unk_token=UNKNOWN
    )
    return tokenizer.to_str(pretty=False).encode()


def _word_pattern() -> str:
    """Return the pattern by which headstart.modalities.text divides words, as tokenizers' expressions are written."""
    emoji = "[\u2600-\u27bf\U0001f300-\U0001faff]"
    alone = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    mark = "[\\p{M}\u200c\u200d]*"
    joined = f"{emoji}(?:[\ufe0f\U0001f3fb-\U0001f3ff\u20e3]|\u200d{emoji})*"
    flag = "[\U0001f1e6-\U0001f1ff]{2}"
    return f"{flag}|{joined}|{alone}{mark}|(?:(?!{alone})\\w{mark})+|[^\\w\\s]{mark}"


@dataclass(frozen=True, slots=True)
class WordVectors:
    """Vectors of a file for words of a vocabulary: `rows` [n, D] belong to the ids `ids` [n]."""

    ids: np.ndarray
    rows: np.ndarray


def read_vectors(path: str, vocabulary: dict[str, int]) -> WordVectors:
    """Read the vectors of a vocabulary's words from a text file as GloVe and word2vec write it, one word a line.

    A word in capitals stands for the same in lower case where that has no line of its own. EncoderError where a line
    is ragged or no numbers, with its number, and where the file holds no word of the vocabulary.
    """
    exact: dict[int, np.ndarray] = {}
    similar: dict[int, np.ndarray] = {}
    for number, word, fields in _lines(path):
        own, lower = vocabulary.get(word), vocabulary.get(word.lower())
        if own is not None:
            exact.setdefault(own, _numbers(fields, path, number))
        elif lower is not None:
            similar.setdefault(lower, _numbers(fields, path, number))
    found = {**similar, **exact}
    if not found:
        raise EncoderError(
            f"{path} holds none of the {len(vocabulary)} words of these texts",
            expected="vectors of words of the texts' language",
            fix="choose another file, or leave encoder.vectors out",
        )
    ids = np.array(sorted(found))
    return WordVectors(ids, np.stack([found[token] for token in ids.tolist()]))


def words_in(path: str) -> set[str]:
    """Return the words of a file of vectors, in lower case."""
    return {word.lower() for _, word, _ in _lines(path)}


def _lines(path: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, word, its numbers as text); EncoderError where a line is ragged."""
    width = 0
    try:
        # Without universal newlines: some files hold a lone carriage return or a line separator as a word.
        with Path(path).open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                fields = line.rstrip("\r\n ").split(" ")
                if number == 1 and len(fields) == 2:
                    continue  # word2vec begins with the number of words and of numbers.
                width = width or len(fields) - 1
                if not width or len(fields) <= width or any(map(_is_number, fields[1:-width])):
                    raise EncoderError(
                        f"line {number} of {path} has {len(fields) - 1} numbers",
                        expected=f"a word and {width or 'several'} numbers, as in the lines before",
                        fix="mend or remove this line",
                    )
                # A word may hold blanks (". . ." in one of GloVe's files).
                yield number, " ".join(fields[:-width]), fields[-width:]
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror})",
            expected="a text file of word vectors",
            fix="correct encoder.vectors",
        ) from None
    except UnicodeDecodeError as error:
        raise EncoderError(
            f"{path} is not UTF-8 ({error})",
            expected="a text file: a word and its numbers in each line",
            fix="convert it (binary word2vec: gensim's save_word2vec_format(..., binary=False))",
        ) from None


def _is_number(field: str) -> bool:
    """Tell whether a field could be a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(fields: Sequence[str], path: str, number: int) -> np.ndarray:
    """Return a line's numbers; EncoderError where they are none."""
    try:
        row = np.array(fields, dtype=np.float32)
    except ValueError:
        row = np.array([np.nan])
    if not np.isfinite(row).all():
        raise EncoderError(
            f"line {number} of {path} holds something that is no finite number",
            expected="a word and its numbers, with blanks between",
            fix="mend or remove this line",
        )
    return row


def _library() -> Any:
    """Import tokenizers, or say how to get it."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise EncoderError(
            "networks for text need the package tokenizers, which is not installed",
            expected="the extra for texts",
            fix="pip install 'headstart[text]'",
        ) from None
    return tokenizers
