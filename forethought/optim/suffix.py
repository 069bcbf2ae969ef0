"""What token searches share: where a suffix stands in the rendered prompt, its target's loss, and which tokens may be used.

All is exact about tokens: a suffix counts only if the text that is sent is tokenized, template and all, to the ids that were searched.
Everything before the suffix is read once and kept as key-values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache

from forethought.chat import encode_prompt, render_completion, render_prompt
from forethought.errors import AskFailed, ForethoughtError
from forethought.models.caching import with_cache
from forethought.records import Found, Messages

MARK = "Zq7suffix7qZ"
ANCHOR = 8
CACHED = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Place:
    """A suffix's surroundings. `head` and `tail` are the rendered texts around it, `before` and `after` their ids in context, `start`
    the ids of the first suffix, `target` those of the reply that is wanted after the generation prompt, of which the first
    `lead` end a thought."""

    head: str
    tail: str
    before: tuple[int, ...]
    start: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...]
    lead: int = 0


@dataclass(frozen=True)
class Prefix:
    """What is before the suffix: key-values [1, groups, n, width] a layer where the model has a plain cache, else ids to read each time."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    ids: tuple[int, ...] = ()


def make_place(tokenizer: Any, messages: Messages, target: str, start: str, *, empty_thought: bool = False) -> Place:
    """The place of a suffix `start` right after the words of the last user turn. With `empty_thought` the target stands after a thought
    without words, as a reasoning model writes it; a template that has opened a thought gets it closed in any case.

    Raises AskFailed (`not_applicable`) where the user does not have the last word or said nothing, and where this tokenizer melts the
    suffix into its surroundings.
    """
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise AskFailed("not_applicable", "there is no request to put a suffix to")
    if not target.strip() or not start.strip():
        raise ForethoughtError("a suffix search needs a target and a first suffix of at least one word.")
    turn = messages[-1].model_copy(update={"content": messages[-1].content + MARK})
    head, _, tail = render_prompt(tokenizer, (*messages[:-1], turn)).rpartition(MARK)
    prompt = head + start + tail
    said = messages[-1].model_copy(update={"content": messages[-1].content + start})
    if render_prompt(tokenizer, (*messages[:-1], said)) != prompt:
        raise AskFailed("not_applicable", "the chat template rewrites the suffix")
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    left, right = len(head), len(head) + len(start)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    inside = [i for i, (a, b) in enumerate(spans) if a < right and b > left]
    if not inside or any(spans[i][0] < left or spans[i][1] > right for i in inside):
        raise AskFailed("not_applicable", "this tokenizer merges the suffix with what stands around it")
    first, last = inside[0], inside[-1] + 1
    wanted = render_completion(prompt, "" if empty_thought else None, target, "")
    before, inner, after = tuple(ids[:first]), tuple(ids[first:last]), tuple(ids[last:])
    at = wanted.rindex(target.strip())
    ends = tokenizer(wanted, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    lead = sum(end <= at for _, end in ends)
    place = Place(head, tail, before, inner, after, tuple(encode_prompt(tokenizer, wanted)), lead)
    if surviving(tokenizer, place, torch.tensor([inner])) != [start]:
        raise AskFailed("not_applicable", "this tokenizer does not give the suffix back as it was")
    return place


def first_tokens(place: Place, count: int) -> Place:
    """The place with only the first `count` tokens of the target's words wanted, and what ends a thought before them."""
    return replace(place, target=place.target[: place.lead + count])


@torch.no_grad()
def read_prefix(model: Any, place: Place, cached: bool = True) -> Prefix:
    """Read what is before the suffix, once. To be read again when weights have changed. Without `cached`, or for an architecture whose
    state is not key-values alone, the ids are kept and read in every forward."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or CACHED)
    if not cached or not place.before or not kinds <= CACHED:
        return Prefix(ids=place.before)
    ids = torch.tensor([place.before], device=model.device)
    cache: Any = DynamicCache()
    model(input_ids=ids, logits_to_keep=1, **with_cache(model, cache))
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))


def width(place: Place, prefix: Prefix) -> int:
    """Tokens that one candidate costs in a forward."""
    return len(prefix.ids) + len(place.start) + len(place.after) + len(place.target) - 1


def losses(
    model: Any, place: Place, prefix: Prefix, suffixes: torch.Tensor, batch: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of candidate suffixes [n, length]: the mean loss (nats a target token) [n], and whether each target token is the likeliest one [n],
    which is to say that the greedy reply starts with the target. `batch` candidates share a forward. Both on the CPU."""
    with torch.no_grad():
        parts = [_target_loss(model, place, prefix, rows) for rows in torch.split(suffixes, batch)]
    return torch.cat([loss for loss, _ in parts]).cpu(), torch.cat([hit for _, hit in parts]).cpu()


def token_gradients(model: Any, place: Place, prefix: Prefix, suffix: torch.Tensor) -> torch.Tensor:
    """Slope [length, vocabulary], float32, of the target's loss along each token's one-hot coordinate at each place of `suffix` [length].

    Taken at the embeddings and carried over by the embedding matrix, which is the one-hot gradient without the one-hot (an embedding
    that is scaled afterwards scales it as a whole). Weights and their `.grad` stay as they are.
    """
    table = model.get_input_embeddings()
    with torch.enable_grad():
        vectors = table(suffix[None].to(model.device)).detach().requires_grad_(True)
        loss, _ = _target_loss(model, place, prefix, suffix[None], vectors)
        (slope,) = torch.autograd.grad(loss.sum(), vectors)
    with torch.no_grad():
        return (slope[0] @ table.weight.T).float()  # type: ignore[no-any-return]


def _target_loss(
    model: Any, place: Place, prefix: Prefix, suffixes: torch.Tensor, vectors: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss [n] and hit [n] of one forward over suffixes [n, length], or over their embeddings `vectors` [n, length, hidden]."""
    rows, device = len(suffixes), model.device

    def repeated(ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([ids], dtype=torch.long, device=device).expand(rows, -1)

    before, after = repeated(prefix.ids), repeated((*place.after, *place.target[:-1]))
    if vectors is None:
        given = {"input_ids": torch.cat([before, suffixes.to(device), after], 1)}
    else:
        table = model.get_input_embeddings()
        given = {"inputs_embeds": torch.cat([table(before), vectors, table(after)], 1)}
    cache = DynamicCache()
    for i, (keys, values) in enumerate(prefix.layers):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), i)
    kept = with_cache(model, cache) if prefix.layers else {"use_cache": False}
    logits = model(**given, **kept, logits_to_keep=len(place.target)).logits.float()
    target = repeated(place.target)
    each = cross_entropy(logits.transpose(1, 2), target, reduction="none")
    return each.mean(1), (logits.argmax(-1) == target).all(1)


@lru_cache(maxsize=2)
def allowed_tokens(tokenizer: Any, vocabulary: int) -> torch.Tensor:
    """[vocabulary] bool: which tokens a suffix may hold. Printable ASCII only, nothing special or added, no mere padding of the
    embedding table."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    known = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[i] for i in range(known)])
    fine = [bool(t.strip()) and t.isascii() and t.isprintable() and i not in special for i, t in enumerate(texts)]
    return torch.tensor(fine + [False] * (vocabulary - known))


def surviving(tokenizer: Any, place: Place, suffixes: torch.Tensor) -> list[str | None]:
    """The text of each suffix [n, length], or None for one that would not come back as the same ids from the whole rendered prompt, or
    ends in white space, which templates trim."""
    anchor = [*place.before[-ANCHOR:]]
    known = tokenizer.decode(anchor, clean_up_tokenization_spaces=False)
    rows = suffixes.tolist()
    whole = tokenizer.batch_decode([anchor + row for row in rows], clean_up_tokenization_spaces=False)
    texts = [t[len(known) :] if t.startswith(known) else "" for t in whole]
    back = tokenizer([place.head + t + place.tail for t in texts], add_special_tokens=False)["input_ids"]
    return [
        text if text and text == text.rstrip() and ids == [*place.before, *row, *place.after] else None
        for text, row, ids in zip(texts, rows, back, strict=True)
    ]


def found(
    tokenizer: Any,
    place: Place,
    prefix: Prefix,
    suffix: torch.Tensor,
    reached: bool,
    curve: Sequence[float],
    queries: int,
) -> Found:
    """What a search returns: the suffix [length] as text, the lowest loss at the start and after each step, and the cost."""
    (text,) = surviving(tokenizer, place, suffix[None])
    assert text is not None, "a search goes through surviving suffixes only"
    read = queries * width(place, prefix) + (len(place.before) if prefix.layers else 0)
    return Found(
        text=text,
        loss=curve[-1],
        reached=reached,
        steps=len(curve) - 1,
        queries=queries,
        tokens=read,
        losses=tuple(curve),
    )
