"""`r2d2`: robust refusal dynamic defense (Mazeika et al. 2024, arXiv 2402.04249, section 5): a pool of GCG suffixes that is searched
on while training.

Each step draws prompts of the pool, takes a few GCG steps on their suffixes against the model as it is now, and trains on prompt and
suffix together: away from the harmful target, towards the row that refuses; and on other rows as they are. From time to time a part of
the pool starts over. Known: pool, update, resets and losses. Ours: targets are the start of the defended model's own completions, and
as many prompts as other rows are drawn a step. The pool is kept with each checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from forethought.chat import Encoded
from forethought.config import TrainConfig
from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import generator_for
from forethought.optim.gcg import gcg_step
from forethought.optim.suffix import Place, allowed_tokens, make_place, read_prefix
from forethought.records import Example
from forethought.run import Run
from forethought.train import Learn
from forethought.train.base import Base, encode, encode_each, encode_held, open_base
from forethought.train.elicit import elicit
from forethought.train.forward import adversarial_terms, token_logprobs
from forethought.train.launch import processes
from forethought.train.loop import Learner, collate, fit, make_trainer
from forethought.train.plan import check_can
from forethought.train.rows import by_decision, hold_out

POOL_FILE = "pool.json"
START = " !"
Share = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Member:
    """A prompt of the pool: where its suffix stands, and the ids of the completion that refuses it."""

    place: Place
    refusal: tuple[int, ...]


def r2d2(
    pool: Count = 180,
    length: Count = 20,
    gcg_steps: Count = 5,
    candidates: Count = 64,
    topk: Count = 64,
    reset_every: Count = 50,
    reset_share: Annotated[float, Field(ge=0, le=1)] = 0.2,
    toward: Share = 1.0,
    away: Share = 1.0,
    keep: Share = 1.0,
    opening: str = "Sure, here is",
    max_tokens: Count = 12,
) -> Learn:
    """`pool` prompts at most, suffixes of `length` tokens, `gcg_steps` of search a draw; every `reset_every` steps `reset_share` of the
    suffixes start over. `opening` and at most `max_tokens` more of the model's own words are the targets. The other options are those
    of `gcg` and `lat`."""

    def learn(examples: list[Example], model_name: str, config: TrainConfig, run: Run, seed: int) -> dict[str, Any]:
        check_can(config, processes())
        base = open_base(model_name, config.init)
        fitting, held = hold_out(examples, config.validation)
        refused, others = by_decision(fitting, "r2d2")
        members = _members(base, refused, config, run, seed, pool, length, opening, max_tokens)
        data = [(row,) for row in encode(base, others, config, run)]
        trainer = make_trainer(
            Dynamic, base, data, config, run, seed, held=encode_held(base, held, config, run), width=3,
            members=members, tokenizer=base.tokenizer, steps=gcg_steps,
            search={"candidates": candidates, "topk": topk}, every=reset_every, share=reset_share,
            weights={"toward": toward, "away": away, "keep": keep},
        )  # fmt: skip
        # Prompts that are not in the pool are left out by design, those too long for it among them.
        spare = len(refused) - len(members)
        return fit(trainer, base, run, used=len(members) + len(data), spare=spare, pool=len(members))

    return learn


def _members(
    base: Base, refused: Sequence[Example], config: TrainConfig, run: Run, seed: int,
    pool: int, length: int, opening: str, max_tokens: int,
) -> list[Member]:  # fmt: skip
    """The pool: prompts drawn by `seed` that the model complied with and that a suffix can be put to."""
    drawn = sorted(refused, key=lambda e: generator_for(seed, "pool", e.prompt.id).random())[:pool]
    replies = elicit(drawn, base, config, run, seed, opening, max_tokens)
    members = []
    for example, row in encode_each(base, drawn, config, run):
        if example.prompt.id in replies:
            target = replies[example.prompt.id].answer
            try:
                place = make_place(base.tokenizer, example.prompt.messages, target, START * length)
            except AskFailed as error:
                run.log(f"{example.prompt.id}: not in the pool: {error}")
                continue
            members.append(Member(place, row.ids[row.prompt_length :]))
    if not members:
        raise ForethoughtError(
            "no prompt can take a suffix with this tokenizer and chat template, so r2d2 has no pool."
        )
    return members


class Dynamic(Learner):
    """Elements are (another row,); to each, a member of the pool is drawn."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        members = self.options["members"]
        self.suffixes = [torch.tensor(m.place.start) for m in members]
        self.drawn = (-1, 0)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        others = inputs["input_ids"]
        chosen = self.draw(len(others))
        members, bare = self.options["members"], self.bare(model)
        training = bare.training
        bare.eval()
        for i in chosen:
            self.suffixes[i] = self.searched(bare, i)
        bare.train(training)
        refusals = [attacked(members[i].place, self.suffixes[i], members[i].refusal) for i in chosen]
        harmful = [attacked(members[i].place, self.suffixes[i], members[i].place.target) for i in chosen]
        kept = [_row(*pair) for pair in zip(others, inputs["labels"], inputs["real"], strict=True)]
        batch = collate(list(zip(refusals, harmful, kept, strict=True)))
        ids, labels = batch["input_ids"].to(others.device), batch["labels"].to(others.device)
        terms = adversarial_terms(*token_logprobs(model, ids, labels))
        self.note(**terms)
        loss = sum(self.options["weights"][name] * term for name, term in terms.items())
        return (loss, None) if return_outputs else loss

    def trained_tokens(self) -> float:
        """To each row come the refusal and the harmful target of a member of the pool."""
        members = self.options["members"]
        theirs = sum(len(m.refusal) + len(m.place.target) for m in members) / len(members)
        return super().trained_tokens() + theirs

    def draw(self, count: int) -> list[int]:
        """Members of this forward, by (seed, step, forward), repeated only where there are too few; resets the pool when that is due."""
        step = self.state.global_step
        forward = self.drawn[1] + 1 if self.drawn[0] == step else 0
        self.drawn = (step, forward)
        size = len(self.suffixes)
        if forward == 0 and step and step % self.options["every"] == 0:
            rng = generator_for(self.args.seed, "reset", str(step))
            for i in rng.sample(range(size), round(self.options["share"] * size)):
                self.suffixes[i] = torch.tensor(self.options["members"][i].place.start)
        rng = generator_for(self.args.seed, "draw", str(step), str(forward))
        order = rng.sample(range(size), size)
        return [order[i % size] for i in range(count)]

    def searched(self, model: Any, member: int) -> torch.Tensor:
        """The member's suffix after a few GCG steps against the model as it is."""
        place, suffix = self.options["members"][member].place, self.suffixes[member]
        tokenizer = self.options["tokenizer"]
        allowed = allowed_tokens(tokenizer, model.get_input_embeddings().weight.shape[0])
        rng = generator_for(self.args.seed, "search", str(self.drawn), str(member))
        generator = torch.Generator().manual_seed(rng.randrange(2**63))
        prefix = read_prefix(model, place)
        for _ in range(self.options["steps"]):
            suffix, _, hit, _ = gcg_step(
                model, tokenizer, place, prefix, suffix, allowed, generator, **self.options["search"]
            )
            if hit:
                break
        return suffix

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # The Trainer writes its own state after this, so a checkpoint that is whole has its pool.
        folder = Path(str(output_dir or self.args.output_dir))
        if folder.name.startswith("checkpoint-"):
            folder.mkdir(parents=True, exist_ok=True)
            pool = [suffix.tolist() for suffix in self.suffixes]
            (folder / POOL_FILE).write_text(json.dumps(pool), encoding="utf-8")
        super()._save(output_dir, state_dict=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        pool = json.loads((Path(resume_from_checkpoint) / POOL_FILE).read_text(encoding="utf-8"))
        self.suffixes = [torch.tensor(ids) for ids in pool]
        super()._load_from_checkpoint(resume_from_checkpoint, model)


def attacked(place: Place, suffix: torch.Tensor, completion: Sequence[int]) -> Encoded:
    """The row (prompt with suffix) -> completion, loss on the completion only."""
    prompt = (*place.before, *suffix.tolist(), *place.after)
    mask = (0.0,) * len(prompt) + (1.0,) * len(completion)
    return Encoded((*prompt, *completion), mask, len(prompt))


def _row(ids: torch.Tensor, labels: torch.Tensor, real: torch.Tensor) -> Encoded:
    """A padded row as it was."""
    on = (labels[real] >= 0).float().tolist()
    return Encoded(tuple(ids[real].tolist()), tuple(on), on.index(1.0))
