"""The reply under a perturbation inside the model (arXiv 2407.15549, 2402.09063): a measure beyond what any prompt can do. The search is
in `optim/latent_reply.py`."""

from __future__ import annotations

from typing import Any

from forethought.attacks import UNCHANGED, Attack
from forethought.attacks.suffixes import affirmation, check_target
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Flow, Search
from forethought.records import Found, Prompt, Sent


def latent(
    epsilon: float = 0.5,
    depths: tuple[float, ...] = (1 / 3, 2 / 3),
    steps: int = 16,
    step_size: float = 0.25,
    max_tokens: int = 128,
    target: str | None = None,
    empty_thought: bool = False,
) -> Attack:
    """PGD at the tokens of the request, at `depths` of the model (0 is the embeddings), inside a ball of `epsilon` times the residual
    stream's median norm, `steps` steps of `step_size` times epsilon; then a greedy reply of at most `max_tokens`, which is this
    attack's own and not the run's sampling. `target` and `empty_thought` as in `gcg`.
    """
    if min(steps, max_tokens) < 1 or min(epsilon, step_size) <= 0 or not depths or not all(0 <= d <= 1 for d in depths):
        raise ForethoughtError(
            "latent needs steps and max_tokens of at least 1, epsilon and step_size above 0, and depths between 0 and 1."
        )
    check_target(target)

    def attack(prompt: Prompt) -> Flow[list[Sent]]:
        if not prompt.messages or prompt.messages[-1].role != "user" or not prompt.text.strip():
            raise AskFailed("not_applicable", UNCHANGED)
        wanted = target or affirmation(prompt.request)

        def run(loaded: Any, seed: int) -> Found:
            from forethought.chat import encode_prompt, with_system
            from forethought.optim.latent_reply import latent_reply

            size = len(encode_prompt(loaded.tokenizer, loaded.render(question))) + max_tokens
            if size > loaded.context:
                raise AskFailed("too_long", f"{size} tokens with the reply exceed the context of {loaded.context}")
            return latent_reply(
                loaded.model, loaded.tokenizer, with_system(prompt.messages, loaded.system), wanted, depths=depths,
                epsilon=epsilon, steps=steps, step_size=step_size, max_tokens=max_tokens, stops=loaded.stops, seed=seed,
                empty_thought=empty_thought,
            )  # fmt: skip

        name = f"latent({epsilon}, {depths}, {steps}, {step_size}, {max_tokens}, {empty_thought}) {wanted}"
        question = Search("target", prompt.messages, name, run)
        found = yield question
        assert isinstance(found, Found)
        return [Sent(messages=prompt.messages, reply=found.reply)]

    return attack
