"""The values that travel say themselves in one line."""

from __future__ import annotations

from headstart.core.types import Audit, Finding, Receipt, Score, TensorOrigin


def test_a_receipt_counts_numbers_not_tensors():
    receipt = Receipt(
        "weights.safetensors",
        (
            TensorOrigin("stem.weight", (4, 3), "loaded"),
            TensorOrigin("stem.first", (2, 2), "adapted"),
            TensorOrigin("head.weight", (2, 2), "fresh"),
            TensorOrigin("steps", (), "loaded"),
        ),
    )
    assert receipt.transferred == 17 / 21
    assert receipt.summary() == "3/4 tensors (81.0% of the numbers) from weights.safetensors"


def test_a_receipt_of_nothing_transferred_nothing():
    assert Receipt("nowhere", ()).transferred == 0.0


def test_findings_are_found_by_their_code():
    leak, small = Finding("leak-exact", "error", "3 pictures"), Finding("small-class", "warning", "2 classes")
    audit = Audit(10, 9, (leak, small))
    assert audit.by_code("leak-exact") == (leak,)
    assert audit.by_code("unreadable") == ()


def test_a_score_prints_with_its_interval_and_number():
    assert str(Score("accuracy", 0.912, 0.88, 0.941, 300)) == "0.912 [0.880, 0.941] (n=300)"
