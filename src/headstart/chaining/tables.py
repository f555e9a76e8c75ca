"""What a finished chain came to, as rows of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.chaining.run import Chained
    from headstart.core.lineage import Kept
    from headstart.core.types import Score


def link_rows(chained: Chained) -> list[tuple[str, ...]]:
    """Return name, test score, gain over the same link without the chain, and what was kept, of each link."""
    rows: list[tuple[str, ...]] = []
    for name, result in chained.results.items():
        kept = result.lineage.kept if result.lineage else ()
        own = result.lineage.links[-1].gain if result.lineage else None
        gain = spread(own) if own else ""
        rows.append((name, str(result.evaluation.primary), gain, "; ".join(kept_words(row) for row in kept)))
    return rows


def tested_rows(chained: Chained) -> list[tuple[str, ...]]:
    """Return each earlier task on its test items: by its own network then, by the last one now."""
    return [
        (row.name, f"{row.then:.3f}", f"{row.now:.3f}", spread(row.change)) if not row.why_not
        else (row.name, "", "", row.why_not)
        for row in chained.tested
    ]  # fmt: skip


def kept_words(row: Kept) -> str:
    """Say how much of a task is left."""
    if row.why_not:
        return f"{row.name}: not known ({row.why_not})"
    share = (
        f"{row.share.value:.0%} [{row.share.low:.0%}, {row.share.high:.0%}]"
        if row.share
        else "nothing to keep"
    )
    return f"{row.name} {share}"


def spread(score: Score) -> str:
    """Say a difference with its interval."""
    return f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
