"""What a synthesis run holds: balance, lengths, rejects; and where the runs of several methods on the same prompts differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forethought.records import Example, Prompt, Rejected

FIELDS = ("label", "category", "style")
QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


def balance(prompts: Sequence[Prompt]) -> dict[str, dict[str, int]]:
    """{field: {value: count}} for label, category and style, the most frequent first."""
    return {field: dict(Counter(str(getattr(p, field) or "-") for p in prompts).most_common()) for field in FIELDS}


def lengths(texts: Mapping[str, Sequence[str]], measure: Callable[[str], int]) -> dict[str, dict[str, float]]:
    """{name: {p5, median, p95, max, mean}} of the lengths of each list of texts; empty lists are left out."""
    found = {}
    for name, items in texts.items():
        sizes = sorted(measure(t) for t in items)
        if sizes:
            at = {q: float(sizes[min(len(sizes) - 1, int(share * len(sizes)))]) for q, share in QUANTILES.items()}
            found[name] = at | {"mean": round(sum(sizes) / len(sizes), 1)}
    return found


def describe(
    examples: Sequence[Example], rejected: Sequence[Rejected], measure: Callable[[str], int], unit: str
) -> dict[str, Any]:
    """All statistics of a synthesis run; `unit` says what `measure` counts."""
    texts = {
        "prompt": [e.prompt.text for e in examples],
        "reasoning": [e.reasoning for e in examples if e.reasoning is not None],
        "answer": [e.answer for e in examples],
    }
    return {
        "examples": len(examples),
        "rejected": dict(Counter(r.reason for r in rejected).most_common()),
        "kept": balance([e.prompt for e in examples]) | {"decision": dict(Counter(e.decision for e in examples))},
        "lost": balance([r.prompt for r in rejected]),
        "unit": unit,
        "lengths": lengths(texts, measure),
        "checks": dict(Counter(c for e in examples for c in e.checks).most_common()),
    }


def disagreements(runs: Mapping[str, tuple[Sequence[Example], Sequence[Rejected]]]) -> dict[str, Any]:
    """Where methods given the same prompts differ: how many prompts all were given and all kept, what each alone lost and why,
    and where the kept examples decide or name the category differently. Variants count with their prompt."""
    kept = {
        name: {e.prompt.base: e for e in examples if e.prompt.style is None} for name, (examples, _) in runs.items()
    }
    lost = {name: {r.prompt.base: r.reason for r in rejected} for name, (_, rejected) in runs.items()}
    shared = set.intersection(*(set(k) for k in kept.values())) if kept else set()
    given = [{*kept[name], *lost[name]} for name in runs]
    every, common = set().union(*given), set.intersection(*given) if given else set()
    only = {
        name: dict(
            Counter(
                lost[name][i]
                for i in every
                if i in lost[name] and i not in kept[name] and any(i in k for k in kept.values())
            ).most_common()
        )
        for name in runs
    }
    differ = {
        field: sum(len({getattr(k[i], field) for k in kept.values()}) > 1 for i in shared)
        for field in ("decision", "category")
    }
    return {
        "prompts": len(every),
        "given to all": len(common),
        "kept by all": len(shared),
        "kept": {name: len(k) for name, k in kept.items()},
        "lost here but kept elsewhere": only,
        "kept by all, but different": differ,
    }
