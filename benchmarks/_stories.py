"""The 260,000-parameter Llama of llama2.c (MIT) as a folder that `transformers:FOLDER` opens.

Its vocabulary comes as SentencePiece keeps it: pieces and scores, of which the higher is merged first.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BEGIN, END, UNKNOWN = "\n<s>\n", "\n</s>\n", "<unk>"


def write_folder(source: Path, folder: Path) -> Path:
    """Copy configuration and weights into a folder, write its tokenizer beside them, and return it."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, folder / name)
    _tokenizer(json.loads((source / "vocab.json").read_text(encoding="utf-8"))).save(
        str(folder / "tokenizer.json")
    )
    return folder


def _tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    """Return a byte-fallback BPE: every way to join two pieces into a third, in the order of its score."""
    numbers = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges = [
        (piece[:place], piece[place:])
        for piece, _ in sorted(pieces, key=lambda pair: -pair[1])
        for place in range(1, len(piece))
        if piece not in (BEGIN, END, UNKNOWN)
        and not piece.startswith("<0x")
        and piece[:place] in numbers
        and piece[place:] in numbers
    ]
    tokenizer = Tokenizer(models.BPE(numbers, merges, unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in (UNKNOWN, BEGIN, END)])
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="BEGIN $A", special_tokens=[("BEGIN", numbers[BEGIN])]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer
