"""Rendering and splitting, token for token, over the real chat templates of a dozen model families."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from datetime import date
from types import MethodType
from typing import Any
from unicodedata import normalize

import pytest
from conftest import HOSTILE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from templates import (
    COHERE,
    DEEPSEEK,
    FAMILIES,
    GEMMA,
    GLM,
    LLAMA,
    PHI,
    Family,
    build,
    load,
    template_names,
    template_text,
)

from forethought.chat import (
    CLOSE,
    OPEN,
    Split,
    check_rows,
    encode_example,
    encode_prompt,
    end_of_turn,
    open_thoughts,
    opens_thought,
    render_completion,
    render_prompt,
    split,
    stop_ids,
    with_system,
)
from forethought.errors import ForethoughtError
from forethought.records import Message, Messages, user

SYSTEM, HI = Message(role="system", content="Be kind."), user("Hi")
TALK = (*HI, Message(role="assistant", content="Hello."), *user("Again"))

# Family: the prompt of a user's "Hi"; the same under the system message "Be kind."; the prompt of the talk Hi, Hello., Again.
PROMPTS = {
    "chatml": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAgain<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llama3_1": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAgain<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nAgain<end_of_turn>\n<start_of_turn>model\n",
    ),
    "gemma3": (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nAgain<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi3": (
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
        "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n",
        "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nAgain<|end|>\n<|assistant|>\n",
    ),
    "phi3_5": (
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
        "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n",
        "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nAgain<|end|>\n<|assistant|>\n",
    ),
    "qwen2_5": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "qwen3": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "qwen3_off": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    "qwen3_5_think": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n",
    ),
    "qwen3_5_nothink": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    "deepseek_r1_distill": (
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n",
        "<｜begin▁of▁sentence｜>Be kind.<｜User｜>Hi<｜Assistant｜><think>\n",
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜><｜User｜>Again<｜Assistant｜><think>\n",
    ),
    "deepseekv3": (
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n",
        "<｜begin▁of▁sentence｜>Be kind.<｜User｜>Hi<｜Assistant｜><think>\n",
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜><｜User｜>Again<｜Assistant｜><think>\n",
    ),
    "cohere": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be kind.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Again<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "glm4moe": (
        "[gMASK]<sop><|user|>\nHi<|assistant|>",
        "[gMASK]<sop><|system|>\nBe kind.<|user|>\nHi<|assistant|>",
        "[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\nHello.<|user|>\nAgain<|assistant|>",
    ),
    "lfm2": (
        "<|startoftext|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|startoftext|><|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|startoftext|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nAgain<|im_end|>\n<|im_start|>assistant\n",
    ),
}

# Family: the completion of ("Why.", "Yes."), None where the template allows no thought; of a plain "Yes."; the end of turn.
COMPLETIONS = {
    "chatml": ("<think>\nWhy.\n</think>\n\nYes.<|im_end|>", "Yes.<|im_end|>", "<|im_end|>"),
    "llama3": ("<think>\nWhy.\n</think>\n\nYes.<|eot_id|>", "Yes.<|eot_id|>", "<|eot_id|>"),
    "llama3_1": ("<think>\nWhy.\n</think>\n\nYes.<|eot_id|>", "Yes.<|eot_id|>", "<|eot_id|>"),
    "gemma": ("<think>\nWhy.\n</think>\n\nYes.<end_of_turn>", "Yes.<end_of_turn>", "<end_of_turn>"),
    "gemma3": ("<think>\nWhy.\n</think>\n\nYes.<end_of_turn>", "Yes.<end_of_turn>", "<end_of_turn>"),
    "phi3": ("<think>\nWhy.\n</think>\n\nYes.<|end|>", "Yes.<|end|>", "<|end|>"),
    "phi3_5": ("<think>\nWhy.\n</think>\n\nYes.<|end|>", "Yes.<|end|>", "<|end|>"),
    "qwen2_5": ("<think>\nWhy.\n</think>\n\nYes.<|im_end|>", "Yes.<|im_end|>", "<|im_end|>"),
    "qwen3": ("<think>\nWhy.\n</think>\n\nYes.<|im_end|>", "Yes.<|im_end|>", "<|im_end|>"),
    "qwen3_off": (None, "Yes.<|im_end|>", "<|im_end|>"),
    "qwen3_5_think": ("Why.\n</think>\n\nYes.<|im_end|>", "\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
    "qwen3_5_nothink": (None, "Yes.<|im_end|>", "<|im_end|>"),
    "deepseek_r1_distill": (
        "Why.\n</think>\n\nYes.<｜end▁of▁sentence｜>",
        "\n</think>\n\nYes.<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
    ),
    "deepseekv3": (
        "Why.\n</think>\n\nYes.<｜end▁of▁sentence｜>",
        "\n</think>\n\nYes.<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
    ),
    "cohere": (
        "<think>\nWhy.\n</think>\n\nYes.<|END_OF_TURN_TOKEN|>",
        "Yes.<|END_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "glm4moe": ("<think>\nWhy.\n</think>\n\nYes.<|endoftext|>", "Yes.<|endoftext|>", "<|endoftext|>"),
    "lfm2": ("<think>\nWhy.\n</think>\n\nYes.<|im_end|>", "Yes.<|im_end|>", "<|im_end|>"),
}
PREFILLED = {"qwen3_5_think", "deepseek_r1_distill", "deepseekv3"}
EMPTIED = {"qwen3_off", "qwen3_5_nothink"}

each = pytest.mark.parametrize("name", FAMILIES)
thinking = pytest.mark.parametrize("name", [n for n in FAMILIES if n not in EMPTIED])


def squash(text: str | None) -> str:
    return re.sub(r"\s+", "", text or "")


def trained(row: Any) -> list[int]:
    return [i for i, on in zip(row.ids, row.mask, strict=True) if on]


def test_the_tables_cover_every_family() -> None:
    assert FAMILIES.keys() == PROMPTS.keys() == COMPLETIONS.keys()
    assert {n for n, golden in COMPLETIONS.items() if golden[0] is None} == EMPTIED


@each
def test_prompt(name: str) -> None:
    plain, with_role, talk = PROMPTS[name]
    assert render_prompt(load(name), HI) == plain
    assert render_prompt(load(name), (SYSTEM, *HI)) == with_role
    assert render_prompt(load(name), TALK) == talk
    assert [opens_thought(p) for p in PROMPTS[name]] == [name in PREFILLED] * 3


@each
def test_completion_and_end_of_turn(name: str) -> None:
    prompt, (thought, plain, end) = PROMPTS[name][0], COMPLETIONS[name]
    assert end_of_turn(load(name)) == end
    assert render_completion(prompt, None, " Yes.\n", end) == plain
    if thought is None:
        with pytest.raises(ForethoughtError, match="closes an empty thought"):
            render_completion(prompt, "Why.", "Yes.", end)
    else:
        assert render_completion(prompt, "\nWhy. ", " Yes.\n", end) == thought


@each
def test_stops_hold_end_of_turn_eos_and_the_generation_config(name: str) -> None:
    tokenizer, family = load(name), FAMILIES[name]
    ids = {tokenizer.convert_tokens_to_ids(t) for t in (COMPLETIONS[name][2], family.eos)}
    assert stop_ids(tokenizer) == ids
    assert stop_ids(tokenizer, 3) == ids | {3}
    assert stop_ids(tokenizer, [3, 4]) == ids | {3, 4}
    assert all(isinstance(i, int) for i in stop_ids(tokenizer, [3]))


@each
def test_a_prefilled_tag_alone_needs_a_line_break(name: str) -> None:
    prompt = PROMPTS[name][0].rstrip("\n")
    if name in PREFILLED:
        assert opens_thought(prompt)
        assert render_completion(prompt, "Why.", "Yes.", "<e>") == "\nWhy.\n</think>\n\nYes.<e>"


@each
def test_a_template_is_given_an_opened_thought(name: str) -> None:
    """What the model reads and is to say stays the same text; only who writes the first tag differs."""
    tokenizer = copy.deepcopy(load(name))
    if name in EMPTIED:
        with pytest.raises(ForethoughtError, match="closes an empty thought"):
            open_thoughts(tokenizer)
        return
    if name not in PREFILLED:
        assert not opens_thought(render_prompt(tokenizer, user("hello")))
    for _ in range(2):
        open_thoughts(tokenizer)
        assert opens_thought(render_prompt(tokenizer, user("hello")))
    messages = (*user("hello"), Message(role="assistant", content="Yes."), *user("and now?"))
    plain, opened = render_prompt(load(name), messages), render_prompt(tokenizer, messages)
    said = render_completion(plain, "Why.", "No.", "<e>")
    assert opened + render_completion(opened, "Why.", "No.", "<e>") == plain + said


# (b) Ids and masks.

REASONING, ANSWER = "The request is fine:\n\n1. bread {x} %s\n2. cafe\u0301 🍞", "Knead it.\n\nThen bake\tit. ﬁ"


def examples(name: str) -> list[tuple[Messages, str | None, str]]:
    talks = [HI, (SYSTEM, *HI), TALK, (SYSTEM, *TALK)]
    reasonings = [None] if name in EMPTIED else [None, REASONING]
    return [(talk, reasoning, ANSWER) for talk in talks for reasoning in reasonings]


@each
def test_encoded_rows(name: str) -> None:
    tokenizer, (thought, plain, end) = load(name), COMPLETIONS[name]
    for messages, reasoning, answer in examples(name):
        row = encode_example(tokenizer, messages, reasoning, answer)
        prompt = render_prompt(tokenizer, messages)
        n = row.prompt_length
        assert list(row.ids[:n]) == encode_prompt(tokenizer, prompt)
        assert tokenizer.decode(row.ids[:n]) == prompt
        assert row.mask == (0,) * n + (1,) * (len(row.ids) - n) and len(row.ids) > n > 0
        assert row.ids[-1] == tokenizer.convert_tokens_to_ids(end) and row.ids[-1] in stop_ids(tokenizer)
        assert row.ids.count(tokenizer.bos_token_id) == (
            prompt.count(FAMILIES[name].bos) if tokenizer.bos_token_id is not None else 0
        )
        text = tokenizer.decode(trained(row))
        shape = plain if reasoning is None else thought
        assert shape is not None
        wanted = shape.replace("Why.", reasoning or "").replace("Yes.", answer)
        assert text == (normalize("NFC", wanted) if FAMILIES[name].nfc else wanted)


@each
def test_the_ids_are_the_templates_own(name: str) -> None:
    tokenizer = load(name)
    for messages in (HI, TALK, (SYSTEM, *HI)):
        turns = [m.model_dump() for m in messages]
        if name == "gemma" and messages[0].role == "system":
            turns = [{"role": "user", "content": "Be kind.\n\nHi"}]
        own = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)["input_ids"]
        row = encode_example(tokenizer, messages, None, "Yes.")
        assert list(row.ids[: row.prompt_length]) == own
    if FAMILIES[name].bos:
        assert tokenizer("Hi")["input_ids"][0] == tokenizer.bos_token_id, "the trap is set: this tokenizer adds a BOS"


def test_a_prompt_is_the_same_tomorrow() -> None:
    """Llama 3.2's template writes today's date, where it is given one."""
    tokenizer = build(FAMILIES["llama3"], template_text("llama3_2"))
    prompt = render_prompt(tokenizer, HI)
    assert "Today Date: 26 Jul 2024" in prompt
    assert str(date.today().year) in tokenizer.apply_chat_template([m.model_dump() for m in HI], tokenize=False)
    row = encode_example(tokenizer, HI, "Why.", "Yes.")
    assert tokenizer.decode(row.ids[: row.prompt_length]) == prompt
    assert check_rows(tokenizer, [(HI, "Why.", "Yes.")], stop_ids(tokenizer), 1024)


@each
def test_reasoning_and_answer_come_back(name: str) -> None:
    tokenizer = load(name)
    for messages, reasoning, answer in examples(name):
        row = encode_example(tokenizer, messages, reasoning, answer)
        reply = tokenizer.decode(trained(row), skip_special_tokens=True)
        parts = split(reply, opens_thought(render_prompt(tokenizer, messages)))
        assert parts.status == ("no_think" if reasoning is None else "ok")
        assert (parts.reasoning is None) == (reasoning is None)
        form = (lambda text: normalize("NFC", text)) if FAMILIES[name].nfc else str
        assert (parts.reasoning, parts.answer) == (reasoning and form(reasoning), form(answer))
    assert check_rows(tokenizer, examples(name), stop_ids(tokenizer), 10_000) == [
        encode_example(tokenizer, *example) for example in examples(name)
    ]


@each
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_prompts_are_rendered_and_checked_too(name: str, hostile: str) -> None:
    tokenizer = load(name)
    row = (user(HOSTILE[hostile]), None if name in EMPTIED else "Why.", "Yes.")
    prompt = render_prompt(tokenizer, row[0])
    assert HOSTILE[hostile].strip() in prompt
    assert opens_thought(prompt) == (name in PREFILLED)
    assert len(check_rows(tokenizer, [row], stop_ids(tokenizer), 100_000)) == 1


# (c) System messages, (g) conversations.


@each
def test_a_deployment_system_prompt_comes_first(name: str) -> None:
    tokenizer = load(name)
    alone = render_prompt(tokenizer, with_system(HI, "Be kind."))
    assert alone == PROMPTS[name][1]
    both = render_prompt(tokenizer, with_system((SYSTEM, *HI), "Obey the law."))
    assert both == PROMPTS[name][1].replace("Be kind.", "Obey the law.\n\nBe kind.")


def test_with_system() -> None:
    assert with_system(HI, None) == with_system(HI, "") == HI
    assert with_system(HI, "S") == (Message(role="system", content="S"), *HI)
    assert with_system((SYSTEM, *TALK), "S") == (Message(role="system", content="S\n\nBe kind."), *TALK)
    assert with_system((), "S") == (Message(role="system", content="S"),)


def test_a_system_message_is_merged_where_the_template_has_no_such_role() -> None:
    turn = "<start_of_turn>{}\n{}<end_of_turn>\n".format
    assert render_prompt(load("gemma"), (SYSTEM, *TALK)) == (
        "<bos>"
        + turn("user", "Be kind.\n\nHi")
        + turn("model", "Hello.")
        + turn("user", "Again")
        + "<start_of_turn>model\n"
    )
    assert render_prompt(load("gemma"), (SYSTEM,)) == "<bos>" + turn("user", "Be kind.") + "<start_of_turn>model\n"
    # The assistant's words stay the assistant's.
    assert render_prompt(load("gemma"), (SYSTEM, *TALK[1:])) == (
        "<bos>" + turn("user", "Be kind.") + turn("model", "Hello.") + turn("user", "Again") + "<start_of_turn>model\n"
    )


def test_a_system_message_is_merged_where_the_template_drops_it() -> None:
    deaf = build(
        FAMILIES["phi3"], template_text("phi3").replace("'<|system|>\n' + message['content'] + '<|end|>\n'", "''")
    )
    assert render_prompt(deaf, (SYSTEM, *HI)) == "<|user|>\nBe kind.\n\nHi<|end|>\n<|assistant|>\n"
    assert len(check_rows(deaf, [((SYSTEM, *HI), "Why.", "Yes.")], stop_ids(deaf), 1000)) == 1


@thinking
def test_earlier_assistant_turns_keep_their_place_and_carry_no_loss(name: str) -> None:
    tokenizer = load(name)
    row = encode_example(tokenizer, (SYSTEM, *TALK), "Why.", "Yes.")
    before = tokenizer.decode(row.ids[: row.prompt_length])
    places = [before.index(words) for words in ("Be kind.", "Hi", "Hello.", "Again")]
    assert places == sorted(places)
    assert "Hello." not in tokenizer.decode(trained(row))


@pytest.mark.parametrize("messages", [(), (*HI, *HI), (*TALK[:2], SYSTEM)])
def test_a_conversation_the_template_refuses(messages: Messages) -> None:
    with pytest.raises(ForethoughtError, match="cannot render this conversation"):
        render_prompt(load("gemma"), messages)


# (d) Templates that cannot be trained to think.


@pytest.mark.parametrize("name", sorted(EMPTIED))
def test_an_emptied_thought_cannot_be_trained(name: str) -> None:
    tokenizer = load(name)
    with pytest.raises(ForethoughtError, match="closes an empty thought before the answer"):
        encode_example(tokenizer, HI, "Why.", "Yes.")
    with pytest.raises(ForethoughtError, match="closes an empty thought before the answer"):
        check_rows(tokenizer, [(HI, "Why.", "Yes.")], stop_ids(tokenizer), 1000)
    assert len(check_rows(tokenizer, [(HI, None, "Yes.")], stop_ids(tokenizer), 1000)) == 1


WORDLESS = {"idefics3", "smolvlm", "llava_next"}


@pytest.mark.parametrize("name", template_names())
def test_every_template_in_trl_is_right_or_fails_clearly(name: str) -> None:
    special = (
        *LLAMA,
        *GEMMA,
        *PHI,
        *DEEPSEEK,
        *COHERE,
        *GLM,
        "<|im_end|>",
        "<|return|>",
        "<turn|>",
        "<end_of_utterance>",
    )
    tokenizer = build(Family("", "<s>", "</s>", "<pad>", special), template_text(name))
    if name in WORDLESS:
        with pytest.raises(ForethoughtError, match=r"leaves out the words of a turn|cannot render an assistant turn"):
            stop_ids(tokenizer)
        return
    stops = stop_ids(tokenizer)
    for messages in (HI, (SYSTEM, *HI), (SYSTEM, *TALK)):
        assert len(check_rows(tokenizer, [(messages, None, "Yes.")], stops, 10_000)) == 1
        rows = [(messages, "Why.", "Yes.")]
        if render_prompt(tokenizer, messages).rstrip().endswith(CLOSE):
            with pytest.raises(ForethoughtError, match="closes an empty thought"):
                check_rows(tokenizer, rows, stops, 10_000)
        else:
            assert len(check_rows(tokenizer, rows, stops, 10_000)) == 1


# (e) What check_rows refuses.


def fails(match: str, tokenizer: Any, rows: Any, *, stops: Any = None, max_length: int = 1000) -> None:
    """check_rows raises one line that names the rule."""
    with pytest.raises(ForethoughtError, match=match) as caught:
        check_rows(tokenizer, rows, stop_ids(tokenizer) if stops is None else stops, max_length)
    assert "\n" not in str(caught.value)


GOOD = (HI, "Why.", "Yes.")


class Wrapped:
    """A tokenizer whose named methods are replaced."""

    def __init__(self, inner: Any, **methods: Any) -> None:
        self._inner = inner
        for name, method in methods.items():
            setattr(self, name, MethodType(method, inner))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, text: str, **options: Any) -> Any:
        return self.encode_text(text, **options) if "encode_text" in self.__dict__ else self._inner(text, **options)


def test_check_rows_finds_a_doubled_bos_in_the_template() -> None:
    def apply(inner: Any, turns: Any, *, tokenize: bool, **options: Any) -> Any:
        out = inner.apply_chat_template(turns, tokenize=tokenize, **options)
        return {"input_ids": [inner.bos_token_id, *out["input_ids"]]} if tokenize else out

    fails("the ids differ from the template's own", Wrapped(load("llama3"), apply_chat_template=apply), [GOOD])


def test_check_rows_finds_a_tokenizer_that_adds_its_bos_regardless() -> None:
    def encode(inner: Any, text: str, **options: Any) -> Any:
        return inner(text)

    fails("the ids differ from the template's own", Wrapped(load("llama3"), encode_text=encode), [GOOD])


def test_check_rows_finds_a_prefix_that_is_not_the_inference_prompt() -> None:
    seen: list[str] = []

    def encode(inner: Any, text: str, **options: Any) -> Any:
        seen.append(text)
        return inner(text if len(seen) == 1 else text.replace("Hi", "Hello"), **options)

    fails("the training prefix differs from the inference prompt", Wrapped(load("qwen3"), encode_text=encode), [GOOD])


@pytest.mark.parametrize("name", ["chatml", "deepseekv3"])
def test_check_rows_finds_lost_reasoning(name: str) -> None:
    def encode(inner: Any, text: str, **options: Any) -> Any:
        cut = re.sub(r"<think>.*</think>|^Why\.", "", text, flags=re.DOTALL)
        return inner(cut, **options)

    fails("the reasoning is not inside the trained tokens", Wrapped(load(name), encode_text=encode), [GOOD])


def test_check_rows_finds_a_lost_answer_and_a_lost_end() -> None:
    def no_answer(inner: Any, text: str, **options: Any) -> Any:
        return inner(text.replace("Yes.", "Y"), **options)

    def no_end(inner: Any, text: str, **options: Any) -> Any:
        return inner(text.removesuffix("<|im_end|>"), **options)

    fails("the answer is not inside the trained tokens", Wrapped(load("chatml"), encode_text=no_answer), [GOOD])
    fails("the end-of-turn token is not trained", Wrapped(load("chatml"), encode_text=no_end), [GOOD])


@pytest.mark.parametrize(
    ("shift", "rule"), [(-1, "the prompt carries loss"), (1, "the reasoning is not inside the trained tokens")]
)
def test_check_rows_finds_a_shifted_mask(monkeypatch: pytest.MonkeyPatch, shift: int, rule: str) -> None:
    def shifted(*row: Any, **more: Any) -> Any:
        right = encode_example(*row, **more)
        start = right.prompt_length + shift
        return replace(right, mask=(0,) * start + (1,) * (len(right.ids) - start))

    monkeypatch.setattr("forethought.chat.encode_example", shifted)
    fails(rule, load("chatml"), [GOOD])


@pytest.mark.parametrize("name", ["gemma", "phi3", "llama3"])
def test_check_rows_finds_stops_without_the_end_of_turn(name: str) -> None:
    tokenizer = load(name)
    only_eos = frozenset({tokenizer.eos_token_id})
    fails("the end-of-turn token is not trained or does not stop generation", tokenizer, [GOOD], stops=only_eos)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ((HI, "", "Yes."), "the answer or the reasoning is empty"),
        ((HI, " \n", "Yes."), "the answer or the reasoning is empty"),
        ((HI, "Why.", ""), "the answer or the reasoning is empty"),
        ((HI, None, " \n"), "the answer or the reasoning is empty"),
        ((HI, "One </think> two", "Yes."), "the reasoning is not inside"),
        ((HI, "One <think> two", "Yes."), "the reasoning is not inside"),
        ((HI, "Why.", "Yes </think> no."), "not inside the trained tokens"),
        ((HI, "Why.", "Yes <think> no."), "not inside the trained tokens"),
        ((HI, None, "Yes <think> no."), "the answer is not inside the trained tokens"),
    ],
)
@pytest.mark.parametrize("name", ["chatml", "qwen3_5_think"])
def test_check_rows_refuses_rows_that_would_not_read_back(name: str, row: Any, rule: str) -> None:
    fails(rule, load(name), [GOOD, row])


@each
def test_masks_go_by_position_never_by_id(name: str) -> None:
    tokenizer, family = load(name), FAMILIES[name]
    for token in dict.fromkeys((family.eos, family.pad, COMPLETIONS[name][2])):
        answer = f"Yes{token} and more."
        row = encode_example(tokenizer, HI, None, answer)
        inside = row.ids[row.prompt_length : -1]
        assert tokenizer.convert_tokens_to_ids(token) in inside and all(row.mask[row.prompt_length :])
        assert squash(tokenizer.decode(inside)).endswith(squash(answer))
        # Trained in full, yet a reply would stop short: such a row is refused by name, never cut.
        fails("a special token stands inside the trained text", tokenizer, [(HI, None, answer)])


def test_pad_equal_to_eos_is_no_trouble() -> None:
    tokenizer = load("chatml")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    (row,) = check_rows(tokenizer, [GOOD], stop_ids(tokenizer), 1000)
    assert row.ids[-1] == tokenizer.pad_token_id and row.mask[-1] == 1
    assert tokenizer.pad_token_id in row.ids[: row.prompt_length] and not any(row.mask[: row.prompt_length])


def test_think_tags_that_are_special_tokens_are_refused() -> None:
    tokenizer = build(Family("qwen3", None, "<|im_end|>", "<|endoftext|>", ("<|im_start|>", OPEN, CLOSE)))
    fails("a special token stands inside the trained text", tokenizer, [GOOD])


def test_text_that_the_tokenizer_normalizes_is_not_lost() -> None:
    tokenizer = load("qwen3")
    assert tokenizer.decode(tokenizer("cafe\u0301")["input_ids"]) == "caf\u00e9"
    assert len(check_rows(tokenizer, [(HI, "cafe\u0301", "e\u0301 ﬁ Ａ")], stop_ids(tokenizer), 1000)) == 1


def test_rows_too_long() -> None:
    tokenizer, long = load("chatml"), (HI, "Why. " * 50, "Yes.")
    stops, room = stop_ids(tokenizer), len(encode_example(tokenizer, *GOOD).ids)
    assert check_rows(tokenizer, [GOOD] * 9 + [long], stops, room) == [encode_example(tokenizer, *GOOD)] * 9
    fails(f"2 of 19 rows are longer than max_length={room}", tokenizer, [GOOD] * 17 + [long] * 2, max_length=room)
    fails("1 of 1 rows are longer", tokenizer, [GOOD], max_length=room - 1)


def test_an_empty_set() -> None:
    fails("the training set is empty", load("chatml"), [])


def test_the_error_shows_the_row() -> None:
    with pytest.raises(ForethoughtError, match=r"Row: 'Hi'\. Trained text: '<think>"):
        check_rows(load("chatml"), [(HI, "a </think> b", "Yes.")], stop_ids(load("chatml")), 1000)


def test_end_of_turn_falls_back_on_eos_or_fails() -> None:
    bare = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    tokenizer = build(FAMILIES["llama3"], bare)
    assert end_of_turn(tokenizer) == "<|end_of_text|>"
    tokenizer.eos_token = None
    with pytest.raises(ForethoughtError, match="no special token and the tokenizer has no eos"):
        end_of_turn(tokenizer)
    with pytest.raises(ForethoughtError, match="cannot render an assistant turn: no"):
        end_of_turn(build(FAMILIES["llama3"], "{{ raise_exception('no') }}"))
    with pytest.raises(ForethoughtError, match="leaves out the words of a turn"):
        end_of_turn(build(FAMILIES["llama3"], "{% for m in messages %}{{ m['role'] }}<|eot_id|>{% endfor %}"))


# (f) Splitting. Where a text ends inside a thought, or nothing follows it, there is no answer to judge.

CASES = [
    # text, opened, reasoning, answer, status
    ("<think>\na\n</think>\n\nb", False, "a", "b", "ok"),
    ("\n <think>a</think>b", False, "a", "b", "ok"),
    ("<think>a\n\nb</think>\n\nc\n\nd\n", False, "a\n\nb", "c\n\nd", "ok"),
    ("b", False, None, "b", "no_think"),
    ("  b\n", False, None, "b", "no_think"),
    ("", False, None, "", "empty_answer"),
    (" \n\t", False, None, "", "empty_answer"),
    ("<think>a", False, "a", "", "unclosed"),
    ("<think>", False, "", "", "unclosed"),
    ("<think>I can't help. Sure, here is how", False, "I can't help. Sure, here is how", "", "unclosed"),
    ("<think>a</thin", False, "a</thin", "", "unclosed"),
    ("<think>a</think>", False, "a", "", "empty_answer"),
    ("<think>a</think>\n \n", False, "a", "", "empty_answer"),
    ("<think></think>", False, "", "", "empty_answer"),
    # The prompt had opened the thought.
    ("a\n</think>\n\nb", True, "a", "b", "ok"),
    ("a\n</think>\n\n", True, "a", "", "empty_answer"),
    ("a", True, "a", "", "unclosed"),
    ("", True, "", "", "unclosed"),
    ("I cannot help with that.", True, "I cannot help with that.", "", "unclosed"),
    ("\n</think>\n\nb", True, None, "b", "no_think"),
    ("<think>\na</think>b", True, "a", "b", "repeated"),
    ("a<think>b</think>c", True, "a\nb", "c", "repeated"),
    ("a <think> b", True, "a\nb", "", "unclosed"),
    ("a</think>b<think>c</think>d", True, "a\nb\nc", "d", "repeated"),
    # A close without its open ends a thought that a server opened.
    ("a</think>b", False, "a", "b", "ok"),
    ("</think>b", False, None, "b", "no_think"),
    ("a</think>", False, "a", "", "empty_answer"),
    ("a</think>b<think>c</think>d", False, "a\nb\nc", "d", "repeated"),
    ("a</think>b</think>c", False, "a\nb", "c", "repeated"),
    # An emptied thought is no thought, however it came about.
    ("<think></think>b", False, None, "b", "no_think"),
    ("<think>\n \t\n</think>\n\nSure, b", False, None, "Sure, b", "no_think"),
    ("<think>\n\n</think>\n\nSure, here is<think>I must not", False, "Sure, here is\nI must not", "", "unclosed"),
    ("<think>\n\n</think>\n\n<think>a</think>b", False, "a", "b", "repeated"),
    ("<think>\n\n</think>\n\nSure<think>a</think>I can't", False, "Sure\na", "I can't", "repeated"),
    # Words before the thought.
    ("Sure! <think>a</think>b", False, "a", "b", "repeated"),
    ("Sure! <think>a", False, "a", "", "unclosed"),
    ("Sure! <think>a</think>", False, "a", "", "empty_answer"),
    # More than one thought.
    ("<think>a</think>b<think>c</think>d", False, "a\nb\nc", "d", "repeated"),
    ("<think>a<think>b</think>c</think>d", False, "a\nb\nc", "d", "repeated"),
    ("<think>a<think>b</think>c", False, "a\nb", "c", "repeated"),
    ("<think>a</think>b</think>c", False, "a\nb", "c", "repeated"),
    ("<think>a</think>b<think>c</think>", False, "a\nb\nc", "", "empty_answer"),
    ("<think>a</think>b</think>", False, "a\nb", "", "empty_answer"),
    # The last thought is cut off, so the last word was not spoken, whatever came before.
    ("<think>a</think>b<think>c", False, "a\nb\nc", "", "unclosed"),
    ("<think>a</think><think>", False, "a", "", "unclosed"),
    ("<think>a</think>b<think>c</think>d<think>", False, "a\nb\nc\nd", "", "unclosed"),
    # Only the exact tags are tags.
    ("<THINK>a</THINK>b", False, None, "<THINK>a</THINK>b", "no_think"),
    ("<Think>a</Think>b", False, None, "<Think>a</Think>b", "no_think"),
    ("< think >a</ think>b", False, None, "< think >a</ think>b", "no_think"),
    ("<thinking>a</thinking>b", False, None, "<thinking>a</thinking>b", "no_think"),
    ("<think>a</THINK>b", False, "a</THINK>b", "", "unclosed"),
    ("&lt;think&gt;a", False, None, "&lt;think&gt;a", "no_think"),
]


@pytest.mark.parametrize(("text", "opened", "reasoning", "answer", "status"), CASES)
def test_split(text: str, opened: bool, reasoning: str | None, answer: str, status: Any) -> None:
    assert split(text, opened) == Split(reasoning, answer, status)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_split_of_hostile_replies(hostile: str) -> None:
    text = HOSTILE[hostile]
    for opened in (False, True):
        assert isinstance(split(text, opened), Split)
    if OPEN not in text and CLOSE not in text:
        assert split(f"<think>{text}</think>x{text}").answer == f"x{text}".strip()


PIECES = st.lists(st.sampled_from([OPEN, CLOSE, "<thin", "k>", "</", "a", "Sure", " ", "\n", "\n\n"]), max_size=12)
TAGGED = st.one_of(st.text(), PIECES.map("".join))
UNTAGGED = TAGGED.filter(lambda text: OPEN not in text and CLOSE not in text)
quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)


@quick
@given(TAGGED, st.booleans())
def test_split_never_raises_and_keeps_its_word(text: str, opened: bool) -> None:
    parts = split(text, opened)
    assert (parts.status in ("unclosed", "empty_answer")) == (parts.answer == "")
    assert parts.answer == parts.answer.strip() and parts.answer in text
    assert OPEN not in parts.answer and CLOSE not in parts.answer
    assert (parts.reasoning is None) <= (parts.status in ("no_think", "empty_answer"))
    if parts.status == "ok":
        assert parts.reasoning
    if opened:
        assert parts == split(f"{OPEN}\n{text}"), "a prefilled tag and one in the text are the same"


@quick
@given(TAGGED)
def test_nothing_that_ends_inside_a_thought_is_an_answer(text: str) -> None:
    assert split(f"{text}{OPEN}a") == Split(split(f"{text}{OPEN}a").reasoning, "", "unclosed")


@quick
@given(UNTAGGED, UNTAGGED, st.sampled_from(sorted(PROMPTS)))
def test_what_is_rendered_splits_back(reasoning: str, answer: str, name: str) -> None:
    prompt, end = PROMPTS[name][0], "<e>"
    for thought in (None,) if name in EMPTIED else (None, reasoning):
        said = render_completion(prompt, thought, answer, end)
        assert said.endswith(end)
        parts = split(said.removesuffix(end), opens_thought(prompt))
        assert squash(parts.reasoning) == squash(thought)
        assert squash(parts.answer) == squash(answer)
        if answer.strip():
            assert parts.status == ("ok" if thought and thought.strip() else "no_think")
        else:
            assert parts.status == "empty_answer"


@settings(quick, max_examples=30)
@given(
    UNTAGGED.filter(str.strip), UNTAGGED.filter(str.strip), st.sampled_from(["chatml", "qwen3", "deepseekv3", "gemma"])
)
def test_what_is_encoded_reads_back(reasoning: str, answer: str, name: str) -> None:
    tokenizer = load(name)
    (row,) = check_rows(tokenizer, [(HI, reasoning, answer)], stop_ids(tokenizer), 100_000)
    reply = tokenizer.decode(trained(row), skip_special_tokens=True)
    assert split(reply, name in PREFILLED).status == "ok"
    assert all(row.mask[row.prompt_length :]) and not any(row.mask[: row.prompt_length])
