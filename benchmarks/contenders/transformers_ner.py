"""Named entities by the transformers Trainer, as the library's own token-classification example has it.

Batches in random order padded to their longest text, first sub-words labelled, AdamW with a linear schedule.
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks._measure import Job, Watch
from benchmarks._tagged import Sentence, minilm_folder, read

LONGEST = 256
"""Sub-words a sentence, as ours."""


def run(job: Job, watch: Watch) -> dict[str, Any]:
    """Train on the training sentences, tag the test sentences."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(job.options["threads"])
    sentences = read(job.table)
    tags = sorted({tag for part in sentences.values() for sentence in part for tag in sentence.tags})
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    with watch.lap("open"):
        model = AutoModelForTokenClassification.from_pretrained(minilm_folder(), num_labels=len(tags))
    with watch.lap("train"), tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=job.epochs, per_device_train_batch_size=job.batch_size,
            learning_rate=job.options["learning_rate"], seed=job.seed, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_encoded(sentences["train"], tokenizer, tags),
            data_collator=DataCollatorForTokenClassification(tokenizer),
        )
        trainer.train()
        with watch.lap("test"):
            test = _encoded(sentences["test"], tokenizer, tags)
            logits = trainer.predict(test).predictions
    watch.laps["train"] = watch.laps["train"] - watch.laps["test"]
    said = {
        sentence.number: _tags(sentence, row, words, tags)
        for sentence, row, words in zip(sentences["test"], logits, test["words"], strict=True)
    }
    return {"facts": {"tags": said, "learning_rate": job.options["learning_rate"]}}


def _tags(sentence: Sentence, logits: Any, words: list[int], tags: list[str]) -> list[str]:
    """Return the likeliest tag of each word's first sub-word; O where the tokenizer swallowed the word."""
    found = ["O"] * len(sentence.words)
    for row, word in zip(logits, words, strict=False):
        if word >= 0:
            found[word] = tags[row.argmax()]
    return found


def _encoded(sentences: list[Sentence], tokenizer: Any, tags: list[str]) -> Dataset:
    """Return token ids with the tag of each word at its first sub-word."""
    found = tokenizer(
        [list(sentence.words) for sentence in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=LONGEST,
    )
    labels: list[list[int]] = []
    owners: list[list[int]] = []
    for row, sentence in enumerate(sentences):
        words = found.word_ids(row)
        owners.append(
            [
                -1 if word is None or (place and words[place - 1] == word) else word
                for place, word in enumerate(words)
            ]
        )
        labels.append([-100 if word < 0 else tags.index(sentence.tags[word]) for word in owners[-1]])
    return Dataset.from_dict({**found, "labels": labels, "words": owners})
