"""Which analyses an attack run allows, told before anything is loaded."""

from __future__ import annotations

from typing import Literal

from forethought.analysis.causal import plans
from forethought.analysis.log_odds import thinks
from forethought.analysis.rates import applies
from forethought.config import ModelConfig
from forethought.errors import ForethoughtError
from forethought.models import is_served
from forethought.records import Attempt
from forethought.run import Run
from forethought.stages.scoring import fork_of

Analysis = Literal["score", "causal", "divergence"]


def not_for(analysis: Analysis, source: Run, at: Literal["answer", "decision"] = "answer") -> str:
    """Why an analysis cannot be made of a finished attack run, a score `at` that place; empty where it can."""
    model = ModelConfig.model_validate(source.info["config"]["target"])
    target = model.name
    if is_served(target):
        return f"{target} is behind a server, and this needs a local model"
    if analysis == "divergence" and target.startswith("scripted:"):
        return f"{target} is a script, without hidden states"
    attempts = source.read("attempts.jsonl", Attempt)
    try:
        thinking = thinks(attempts)
    except ForethoughtError as error:
        return str(error)
    if analysis == "score" and at == "decision" and thinking:
        try:
            fork_of(model)
        except ForethoughtError as error:
            return str(error)
    if analysis == "causal":
        return _untestable(attempts) if thinking else f"{target} does not think before it answers"
    direct = {a.prompt.label for a in attempts if a.attack == "direct" and applies(a)}
    lacking = [label for label in ("harmful", "benign") if label not in direct]
    if analysis == "divergence" and lacking:
        return f"no {lacking[0]} prompt was asked directly, and attacks are measured against these"
    return ""


def _untestable(attempts: list[Attempt]) -> str:
    planned, missing = plans(attempts, 1)
    return "" if planned else f"no thought can be tested ({', '.join(f'{why}: {n}' for why, n in missing.items())})"
