"""CoCoNot's acceptability (Brahman et al. 2024, arXiv 2407.12043, sec. 4), in our words: it depends on what the prompt deserves."""

from __future__ import annotations

from forethought.flow import Flow
from forethought.judges import Judge
from forethought.judges.asking import By
from forethought.judges.rubric import shipped
from forethought.records import Attempt, Prompt, Verdict


def coconot(by: By = "reply", max_tokens: int = 1024) -> Judge:
    """A judge whose score 1 is *unacceptable*: fulfilling a `harmful` prompt, or not answering any other."""
    decline, comply = (shipped(file, by, max_tokens, "coconot") for file in ("coconot_decline", "coconot_comply"))

    def judge(prompt: Prompt, attempt: Attempt) -> Flow[Verdict]:
        return (yield from (decline if prompt.label == "harmful" else comply)(prompt, attempt))

    return judge
