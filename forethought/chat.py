"""The one place that knows chat templates and think tags: rendering, splitting, and the checks before training.

A tokenizer here is anything with transformers' tokenizer interface; nothing in this module imports torch. Traps this guards
against are numbered in docs/design.md, "Templates and masks".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from forethought.errors import ForethoughtError, first_line
from forethought.records import Message, Messages, Reply, SplitStatus, user

OPEN, CLOSE = "<think>", "</think>"
PROBE = "Zq7"
NEW_PARAGRAPH = "\n\n"
# What a template that asks for today's date is told: the date that Llama 3.1's and 3.2's fall back on. A macro, since transformers hands
# no function of ours to a template.
TODAY = datetime(2024, 7, 26)
SAME_DAY = "".join(
    ("{%- macro strftime_now(format) -%}{{ format",
     *(f' | replace("%{code}", "{TODAY:%{code}}")' for code in "dbBYymAaHMSj"),
     ' }}{%- endmacro %}{{ "" }}')
)  # fmt: skip
Tokenizer = Any


@dataclass(frozen=True)
class Split:
    """Reasoning and answer of one reply. `reasoning` is None where there is no thought."""

    reasoning: str | None
    answer: str
    status: SplitStatus


@dataclass(frozen=True)
class Encoded:
    """Token ids of one training row; `mask[i]` is the loss weight of token i, 0 where it is not trained. The prompt is the first
    `prompt_length` tokens."""

    ids: tuple[int, ...]
    mask: tuple[float, ...]
    prompt_length: int


def with_system(messages: Messages, system: str | None) -> Messages:
    """`messages` with a deployment system prompt in front; a system message that is already there follows it."""
    if not system:
        return messages
    if messages and messages[0].role == "system":
        return (Message(role="system", content=f"{system}\n\n{messages[0].content}"), *messages[1:])
    return (Message(role="system", content=system), *messages)


def fold_system(messages: Messages) -> Messages:
    """`messages` with a system turn's words at the head of the first user turn, for what takes no system turn."""
    if not messages or messages[0].role != "system":
        return messages
    head, rest = messages[0].content, messages[1:]
    if rest and rest[0].role == "user":
        head, rest = f"{head}\n\n{rest[0].content}".strip(), rest[1:]
    return (Message(role="user", content=head), *rest)


def check_channels(tokenizer: Tokenizer) -> None:
    """ForethoughtError for a template that writes special tokens between generation prompt and answer (the channels of gpt-oss): thoughts
    would come back, and be trained, as a part of the answer."""
    turns = (Message(role="user", content=PROBE), Message(role="assistant", content=PROBE))
    try:
        whole, prompt = _apply(tokenizer, turns, generate=False), render_prompt(tokenizer, turns[:1])
    except Exception:
        return  # What cannot be rendered says so where it is used.
    lead = whole[len(prompt) : whole.rfind(PROBE)] if whole.startswith(prompt) else ""
    if any(t.special and t.content in lead for t in tokenizer.added_tokens_decoder.values()):
        raise ForethoughtError(
            f"this model's template writes {lead!r} before an answer, and such channels are not read here. Serve the model with its "
            "reasoning parser, and name it openai:MODEL@URL."
        )


def render_prompt(tokenizer: Tokenizer, messages: Messages) -> str:
    """The text up to where the assistant begins to speak, exactly as at inference.

    A template that refuses or drops a system message gets its text at the head of the first user turn.
    """
    try:
        return _apply(tokenizer, _with_system_role(tokenizer, messages))
    except Exception as error:
        raise ForethoughtError(f"the chat template cannot render this conversation: {first_line(error)}") from error


def opens_thought(prompt: str) -> bool:
    """Whether the rendered prompt leaves a thought open, as templates that prefill `<think>` do."""
    return prompt.rfind(OPEN) > prompt.rfind(CLOSE) and not prompt[prompt.rfind(OPEN) + len(OPEN) :].strip()


def open_thoughts(tokenizer: Tokenizer) -> None:
    """Give the tokenizer a template that opens the thought, as those of reasoning models do: what the model says then begins inside it,
    whatever the conversation before was like. One that opens it already stays. ForethoughtError where it closes an empty thought."""
    prompt = render_prompt(tokenizer, user("hello"))
    if prompt.rstrip().endswith(CLOSE):
        raise ForethoughtError(
            "this chat template closes an empty thought before the answer, so none can be opened in it."
        )
    if not opens_thought(prompt):
        tokenizer.chat_template += "{%- if add_generation_prompt %}{{ '" + OPEN + "\\n' }}{%- endif %}"


def continue_prompt(prompt: str, prefix: str) -> str:
    """The rendered prompt and the words put into the model's mouth. A thought that the template has opened is not opened again."""
    if prefix.startswith(OPEN) and opens_thought(prompt):
        return prompt.rstrip() + prefix.removeprefix(OPEN)
    return prompt + prefix


def render_completion(prompt: str, reasoning: str | None, answer: str, end: str) -> str:
    """What the model is to say after `prompt`: `<think>`, reasoning, `</think>`, answer, end of turn.

    Where the template has opened the thought already, the completion begins inside it; a row without reasoning then closes it
    at once. Raises ForethoughtError where the template has closed an empty thought before the model can speak.
    """
    if opens_thought(prompt):
        lead = "" if prompt.endswith("\n") else "\n"
        return f"{lead}{(reasoning or '').strip()}\n{CLOSE}\n\n{answer.strip()}{end}"
    if reasoning is None:
        return f"{answer.strip()}{end}"
    if prompt.rstrip().endswith(CLOSE):
        raise ForethoughtError(
            "this chat template closes an empty thought before the answer, so reasoning cannot be trained with it. "
            "Load the model with its thinking mode on, or set a template of your own."
        )
    return f"{OPEN}\n{reasoning.strip()}\n{CLOSE}\n\n{answer.strip()}{end}"


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Token ids of rendered text, with no special token added: the template has put in what belongs there."""
    return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def encode_begun(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of rendered text that ends inside a reply, as they would be if a word came next.

    Many tokenizers cut `\\n\\n` at the end of a text otherwise than before a word. A reply that goes on after a closed thought would then
    begin where no trained one ever did, and a model trained to refuse there would not.
    """
    ids = encode_prompt(tokenizer, text)
    if not text[-1:].isspace():
        return ids
    before_word = encode_prompt(tokenizer, text + "I")[:-1]
    same = tokenizer.decode(before_word, skip_special_tokens=False) == tokenizer.decode(ids, skip_special_tokens=False)
    return before_word if same else ids


def encode_example(
    tokenizer: Tokenizer,
    messages: Messages,
    reasoning: str | None,
    answer: str,
    decisive: Sequence[str] = (),
    weight: float = 1.0,
    rest: float = 1.0,
    end: str | None = None,
) -> Encoded:
    """Ids and loss mask of a training row. Prompt and completion are tokenized apart, so that the training prefix is the
    inference prompt token for token. Tokens of the `decisive` texts, looked for in this order, get the loss weight `weight`, all others of
    the completion `rest`. `end` is the end of a turn, where it is known already."""
    prompt = render_prompt(tokenizer, messages)
    before = encode_prompt(tokenizer, prompt)
    completion = render_completion(prompt, reasoning, answer, end or end_of_turn(tokenizer))
    after = encode_prompt(tokenizer, completion)
    weights = [rest] * len(after)
    if decisive and weight != rest:
        weights = _weigh(tokenizer, completion, decisive, weight, rest)
    return Encoded(tuple(before + after), (0.0,) * len(before) + tuple(weights), len(before))


def _weigh(tokenizer: Tokenizer, completion: str, decisive: Sequence[str], weight: float, rest: float) -> list[float]:
    spans = tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    weights, end = [rest] * len(spans), 0
    for text in decisive:
        start = completion.find(text, end)
        if start < 0:
            raise ForethoughtError(f"the decisive text {text[:60]!r} is not in the completion.")
        end = start + len(text)
        weights = [weight if a < end and b > start else w for w, (a, b) in zip(weights, spans, strict=True)]
    return weights


def end_of_turn(tokenizer: Tokenizer) -> str:
    """The text of the token that ends an assistant turn in this template; `eos` where the template adds none.

    Found by rendering a conversation: it is the first special token after the assistant's words. Raises ForethoughtError where
    the template leaves the words out.
    """
    turns = (Message(role="user", content=PROBE), Message(role="assistant", content=PROBE))
    try:
        text = _apply(tokenizer, turns, False)
    except Exception as error:
        raise ForethoughtError(f"the chat template cannot render an assistant turn: {first_line(error)}") from error
    if text.count(PROBE) < len(turns):
        raise ForethoughtError(
            "the chat template leaves out the words of a turn, as those of vision models do with plain text. "
            "Set a template that renders them."
        )
    tail = text[text.rfind(PROBE) + len(PROBE) :]
    added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content in tail]
    if added:
        return str(min(added, key=tail.index))
    if tokenizer.eos_token:
        return str(tokenizer.eos_token)
    raise ForethoughtError(
        "the chat template ends an assistant turn with no special token and the tokenizer has no eos."
    )


def stop_ids(tokenizer: Tokenizer, generation_eos: int | Sequence[int] | None = None) -> frozenset[int]:
    """Ids that end a reply: the template's end of turn, the tokenizer's eos and those of the generation config."""
    extra = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
    ids = [tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)), tokenizer.eos_token_id, *extra]
    return frozenset(int(i) for i in ids if i is not None)


def split(text: str, opened: bool = False) -> Split:
    """Reasoning and answer of everything said after the generation prompt; `opened` if that prompt left a thought open.

    `unclosed`: the text ends inside a thought, so there is no answer, whatever was said before. `empty_answer`: nothing follows
    the last thought. `repeated`: more than one thought, or words before the first; the answer is what follows the last one.
    `no_think`: no thought, or one without a word in it. A `</think>` without its opening tag ends a thought that some template
    or server opened.
    """
    if not (opened or OPEN in text or CLOSE in text):
        return Split(None, text.strip(), "no_think" if text.strip() else "empty_answer")
    head, tag, rest = text.partition(OPEN)
    if opened or not tag or CLOSE in head:
        head, rest = "", text
    thought, closed, answer = rest.rpartition(CLOSE)
    if not closed or OPEN in answer:
        return Split(_untag(rest), "", "unclosed")
    reasoning, answer = _untag(thought), answer.strip()
    if not answer:
        return Split(reasoning, "", "empty_answer")
    if head.strip() or OPEN in thought or CLOSE in thought:
        return Split(reasoning, answer, "repeated")
    return Split(reasoning, answer, "ok") if reasoning else Split(None, answer, "no_think")


def raw_reply(prefix: str, reply: Reply) -> str:
    """Everything after the generation prompt, the prefix included; and the opening tag, where the template has set it."""
    opened = reply.opened and not prefix.startswith(OPEN)
    return (f"{OPEN}\n" if opened else "") + prefix + reply.text


def decision_point(raw: str, prefix: str = "") -> str | None:
    """`raw` up to where its answer begins: after the last thought, or after `prefix` where that has closed the thought or there is
    none. None where the last thought is never closed."""
    at = raw.rfind(CLOSE)
    if raw.rfind(OPEN) > at:
        return None
    if at < 0:
        return prefix
    end = at + len(CLOSE)
    white = raw[end : len(raw) - len(raw[end:].lstrip())]
    point = raw[:end] + (white or NEW_PARAGRAPH)
    begun = raw[: raw.find(prefix) + len(prefix)] if prefix else ""
    return begun if len(begun) > end else point


def check_rows(
    tokenizer: Tokenizer,
    rows: Iterable[tuple[Messages, str | None, str] | tuple[Messages, str | None, str, Sequence[str]]],
    stops: frozenset[int],
    max_length: int,
    weight: float = 1.0,
) -> list[Encoded]:
    """Encode rows (messages, reasoning, answer, and optionally the decisive texts, whose tokens weigh `weight`) and assert what
    silently goes wrong elsewhere. Returns the rows that fit `max_length`.

    Checked on every row: reasoning and answer are not empty and inside the trained tokens, with no special token among them; the
    prefix is the inference prompt; the ids are the template's own; the end-of-turn token is trained and stops generation; the
    prompt carries no loss.
    Raises ForethoughtError that names the first rule broken, and when more than one row in ten is too long.
    """
    kept: list[Encoded] = []
    total = too_long = 0
    # Looking through thousands of added tokens takes longer than a row does.
    end, special = end_of_turn(tokenizer), {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for messages, reasoning, answer, *rest in rows:
        total += 1
        decisive: Sequence[str] = rest[0] if rest else ()
        row = encode_example(tokenizer, messages, reasoning, answer, decisive, weight, end=end)
        _check_row(tokenizer, messages, reasoning, answer, row, stops, end, special)
        if len(row.ids) > max_length:
            too_long += 1
        else:
            kept.append(row)
    if total == 0:
        raise ForethoughtError("the training set is empty. Check what synthesis rejected, and why.")
    if too_long > total / 10:
        raise ForethoughtError(
            f"{too_long} of {total} rows are longer than max_length={max_length} tokens and would be left out "
            f"(a cut row would lose its answer). Raise max_length."
        )
    return kept


def _check_row(
    tokenizer: Tokenizer,
    messages: Messages,
    reasoning: str | None,
    answer: str,
    row: Encoded,
    stops: frozenset[int],
    end: str,
    special: set[int],
) -> None:
    prompt = render_prompt(tokenizer, messages)
    trained = [i for i, on in zip(row.ids, row.mask, strict=True) if on]
    text = tokenizer.decode(trained, skip_special_tokens=False)
    found = split(text.removesuffix(end), opens_thought(prompt))
    rules = {
        "the prompt carries loss": not any(row.mask[: row.prompt_length]),
        "the answer or the reasoning is empty (None stands for a row without reasoning)": bool(answer.strip())
        and (reasoning is None or bool(reasoning.strip())),
        "the reasoning is not inside the trained tokens": reasoning is None
        or _squash(reasoning) == _squash(found.reasoning or ""),
        "the answer is not inside the trained tokens": _squash(answer) == _squash(found.answer),
        "the training prefix differs from the inference prompt": list(row.ids[: row.prompt_length])
        == encode_prompt(tokenizer, prompt),
        "the ids differ from the template's own (a doubled or missing BOS?)": list(row.ids[: row.prompt_length])
        == _template_ids(tokenizer, messages),
        "the end-of-turn token is not trained or does not stop generation": bool(trained) and trained[-1] in stops,
        "a special token stands inside the trained text, and a reply would end there or lose it": special.isdisjoint(
            trained[:-1]
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ForethoughtError(
                f"{rule}. Row: {messages[-1].content[:60]!r}. Trained text: {text[:120]!r}. "
                "Training on this would not teach what the data says."
            )


def _apply(tokenizer: Tokenizer, messages: Messages, generate: bool = True) -> str:
    turns = [m.model_dump() for m in messages]
    return str(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate, **_same_day(tokenizer))
    )


def _template_ids(tokenizer: Tokenizer, messages: Messages) -> list[int]:
    turns = [m.model_dump() for m in _with_system_role(tokenizer, messages)]
    out = tokenizer.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=True, return_dict=True, **_same_day(tokenizer)
    )
    return list(out["input_ids"])


def _same_day(tokenizer: Tokenizer) -> dict[str, Any]:
    """What keeps a template from writing today's date into the prompt: a run that goes on tomorrow, or another target's, would have
    another prompt."""
    if "strftime_now" not in str(tokenizer.chat_template):
        return {}
    return {"chat_template": SAME_DAY + tokenizer.get_chat_template()}


def _with_system_role(tokenizer: Tokenizer, messages: Messages) -> Messages:
    """`messages` as this template takes them: without a system turn where it refuses one, or leaves its words out."""
    if not messages or messages[0].role != "system":
        return messages
    try:
        text = _apply(tokenizer, (Message(role="system", content=PROBE), *messages[1:]))
    except Exception:
        text = ""
    if PROBE in text:
        return messages
    return fold_system(messages)


def _untag(text: str) -> str:
    """The words of one or more thoughts, without their tags."""
    return "\n".join(filter(None, map(str.strip, re.split("</?think>", text))))


def _squash(text: str) -> str:
    """`text` without what a tokenizer may rightly change: white space and Unicode normal form."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))
