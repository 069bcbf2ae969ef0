"""Harmful completions for the methods that train against them, and the rows made of them.

They come from the model that is being defended, begun by a compliant opening; they stay in the run's directory, are never part of a data
set, and no other run reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from forethought.chat import CLOSE, Encoded, encode_prompt, end_of_turn, render_completion, render_prompt
from forethought.config import TrainConfig
from forethought.errors import ForethoughtError
from forethought.flow import Ask, Flow, Job, generator_for, run_flows
from forethought.models import load_model
from forethought.models.heap import let_go
from forethought.progress import progress
from forethought.records import Attempt, Example, Prompt, Reply, Sampling
from forethought.refusals import classify
from forethought.run import Run
from forethought.train.base import Base
from forethought.train.launch import is_first, wait

FILE = "elicited.jsonl"


def elicit(
    examples: Sequence[Example], base: Base, config: TrainConfig, run: Run, seed: int, opening: str, max_tokens: int
) -> dict[str, Attempt]:
    """{prompt id: the model's compliant reply} of the examples' prompts, as far as it complied; kept in the run's `elicited.jsonl`.

    Where `steps` read fewer rows than there are prompts, only that many are asked, drawn by `seed`. Raises ForethoughtError where it
    complied with none.
    """
    prompts = {e.prompt.id: e.prompt for e in examples}
    if config.steps and (most := config.steps * config.batch_size) < len(prompts):
        drawn = set(generator_for(seed, "elicit").sample(sorted(prompts), most))
        prompts = {i: p for i, p in prompts.items() if i in drawn}
    if is_first():
        _ask(prompts, base, config, run, seed, opening, max_tokens)
    wait()
    found = {a.prompt.id: a for a in run.read(FILE, Attempt) if a.prompt.id in prompts}
    labels = {i: classify(a.answer, a.prompt.request).label if a.error is None else "failed" for i, a in found.items()}
    kept = {i: found[i] for i in prompts if labels[i] == "not_refused"}
    if is_first():
        run.log(f"elicited {len(kept)} of {len(prompts)} harmful completions after {opening!r}")
    if not kept:
        raise ForethoughtError(
            f"the model complied with none of {len(prompts)} harmful prompts after {opening!r}, so there is nothing to train "
            "against. Try another opening: METHOD(opening=...)."
        )
    return kept


def _ask(
    prompts: dict[str, Prompt], base: Base, config: TrainConfig, run: Run, seed: int, opening: str, max_tokens: int
) -> None:
    done = run.read(FILE, Attempt)
    seen = {a.prompt.id for a in done}
    jobs = [Job(i, partial(_flow, p, opening, max_tokens)) for i, p in prompts.items() if i not in seen]
    if not jobs:
        return
    model = load_model(str(base.adapter or base.name), dtype=config.dtype)
    try:
        with progress("elicit", len(prompts), "prompts", len(seen)) as bar:
            for job in run_flows(jobs, {"target": model}, seed=seed):
                made = job.value or Attempt(
                    id=job.key, prompt=prompts[job.key], attack="elicit", messages=(), error=job.error
                )
                done.append(made)
                run.append(FILE, [made])
                bar.advance()
    finally:
        model.close()
        del model
        let_go()
    order = {id: i for i, id in enumerate(prompts)}
    done.sort(key=lambda a: order[a.prompt.id])
    run.replace(FILE, done)


def _flow(prompt: Prompt, opening: str, max_tokens: int) -> Flow[Attempt]:
    prefix, sampling = opening, Sampling(max_tokens=max_tokens)
    reply = yield Ask("target", prompt.messages, prefix, sampling=sampling)
    assert isinstance(reply, Reply)
    if reply.opened:
        # The template had opened a thought, which the opening must not stand in.
        prefix = f"{CLOSE}\n\n{opening}"
        reply = yield Ask("target", prompt.messages, prefix, sampling=sampling)
        assert isinstance(reply, Reply)
    return Attempt(
        id=prompt.id,
        prompt=prompt,
        attack="elicit",
        messages=prompt.messages,
        prefix=prefix,
        raw=prefix + reply.text,
        answer=opening + reply.text,
        stop=reply.stop,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def encode_elicited(base: Base, attempt: Attempt, reasoning: str | None, max_length: int) -> Encoded:
    """The row prompt -> (thought, elicited answer), cut to `max_length`; it ends its turn only where the model did."""
    prompt = render_prompt(base.tokenizer, attempt.messages)
    end = end_of_turn(base.tokenizer) if attempt.stop == "stop" else ""
    before = encode_prompt(base.tokenizer, prompt)
    after = encode_prompt(base.tokenizer, render_completion(prompt, reasoning, attempt.answer, end))
    ids = (*before, *after)[:max_length]
    if len(ids) <= len(before):
        raise ForethoughtError(f"a prompt alone has {len(before)} tokens. Raise max_length.")
    return Encoded(ids, (0.0,) * len(before) + (1.0,) * (len(ids) - len(before)), len(before))
