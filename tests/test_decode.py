"""One pass for prompts and replies: a reply never depends on what else is in the pass, also where rows are long or begin alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from forethought.chat import encode_prompt
from forethought.flow import Ask, Choose, Flow, Job, Logprobs, run_flows
from forethought.models import pages
from forethought.models.decode import PIECE, POSITIONS, Decoder, Piece, Row, branches, pick
from forethought.models.hf import HFModel, load_hf
from forethought.models.packed import pack_linears
from forethought.models.pages import PAGE
from forethought.records import Message, Reply, Sampling, user

SHOTS = (Message(role="user", content="say a word " * 5), Message(role="assistant", content="bread"))
SAMPLED = Sampling(temperature=0.9, top_p=0.9, max_tokens=9)
QUESTIONS: dict[str, Ask | Choose] = {
    **{f"short {n}": Ask("target", user("bake " * n), sampling=Sampling(max_tokens=3 + n)) for n in range(1, 7)},
    # Longer than the chunks in which attention adds up, and than what a matrix product takes in one go.
    **{f"long {n}": Ask("target", user("walk " * n), sampling=Sampling(max_tokens=4)) for n in (230, 290)},
    **{f"shots {n}": Ask("target", (*SHOTS, *user("sing " * n)), sampling=Sampling(max_tokens=6)) for n in (1, 2, 3)},
    **{f"sample {n}": Ask("target", user("tell a story"), sample=n, sampling=SAMPLED) for n in range(4)},
    **{f"choice {n}": Choose("target", user("draw " * n), (" yes", " no, " + "never " * 20, " perhaps")) for n in (3, 40)},
    "choice shots": Choose("target", (*SHOTS, *user("plan")), (" a", " b c")),
    "two choices": Choose("target", (*SHOTS, *user("plan")), (" b c", " d")),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny: Path) -> HFModel:
    return load_hf(str(tiny))


def flow(question: Ask | Choose) -> Flow[Reply | Logprobs]:
    reply = yield question
    assert isinstance(reply, Reply | Logprobs)
    return reply


def answers(model: HFModel, names: list[str]) -> dict[str, Reply | Logprobs]:
    jobs = [Job(name, lambda name=name: flow(QUESTIONS[name])) for name in names]
    found = {d.key: d for d in run_flows(jobs, {"target": model}, seed=3)}
    assert not [d.error for d in found.values() if d.error]
    return {key: d.value for key, d in found.items() if d.value is not None}


@pytest.mark.parametrize("threads", [1, 2])
def test_alone_in_a_crowd_and_backwards_are_the_same_to_the_bit(tiny: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = ["short 2", "long 230", "shots 2", "sample 3", "choice 40", "choice shots"]
        # Threads wait for one another, which takes long where others use the cores too.
        names = list(QUESTIONS) if threads == 1 else ["long 290", *alone[1:3]]
        model = load_hf(str(tiny))
        crowd = answers(model, names)
        assert answers(load_hf(str(tiny)), names[::-1]) == crowd
        for name in set(alone) & set(names):
            assert answers(model, [name]) == {name: crowd[name]}, name
    finally:
        torch.set_num_threads(before)


def test_in_bfloat16_too_a_reply_is_the_same_alone_and_in_a_crowd(tiny: Path) -> None:
    names = ["short 3", "long 290", "sample 1", "choice 3"]
    crowd = answers(load_hf(str(tiny), dtype="bfloat16"), list(QUESTIONS))
    for name in names:
        assert answers(load_hf(str(tiny), dtype="bfloat16"), [name]) == {name: crowd[name]}, name


def test_with_passes_of_one_size_replies_are_the_same(tiny: Path, model: HFModel) -> None:
    """What machines do whose kernels sum differently for different numbers of rows."""
    fixed = load_hf(str(tiny))
    for decoder in fixed._decoders:
        decoder.least = POSITIONS
    names = ["short 3", "long 230", "sample 1", "choice 3"]
    assert answers(fixed, names) == answers(model, names)


def test_more_rows_than_columns_wait_their_turn(tiny: Path, model: HFModel) -> None:
    names = [n for n in QUESTIONS if not n.startswith("choice")]
    narrow = load_hf(str(tiny))
    narrow._decoders[0] = Decoder(narrow.model, narrow.stops, 3, 600, 8)
    assert answers(narrow, names) == answers(model, names)
    asks = [q for q in QUESTIONS.values() if isinstance(q, Ask)]
    longest = max(len(encode_prompt(model.tokenizer, model.render(q))) + q.sampling.max_tokens for q in asks)
    assert narrow._decoders[0]._layers[0].size == -(-longest // PAGE)


def test_choices_go_first_and_then_who_may_write_most(model: HFModel) -> None:
    decoder = Decoder(model.model, model.stops, 3, 600, 8)
    for ticket, (tokens, options) in enumerate(((8, ()), (64, ()), (8, ()), (1, ([1], [2])))):
        decoder.submit(Row(ticket, [1, 2], Sampling(max_tokens=tokens), 0, options=options))
    assert [row.ticket for row in decoder.queue] == [3, 1, 0, 2]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of prompts and options each pass reads."""
    counts: list[int] = []
    forward = Decoder._forward

    def counted(self: Decoder, decoding: list[Row], pieces: list[tuple[Row, Piece]]) -> torch.Tensor:
        counts.append(sum(len(piece.tokens) for _, piece in pieces))
        return forward(self, decoding, pieces)

    monkeypatch.setattr(Decoder, "_forward", counted)
    return counts


def test_a_prompt_sampled_often_is_read_once(tiny: Path, read: list[int]) -> None:
    model = load_hf(str(tiny))
    answers(model, ["sample 0"])
    once = sum(read)
    answers(model, ["sample 1", "sample 2", "sample 3"])
    assert sum(read) == once > 0
    fresh = load_hf(str(tiny))
    answers(fresh, [f"sample {n}" for n in range(4)])
    assert sum(read) == 2 * once


def test_what_requests_begin_with_alike_is_read_once(tiny: Path, read: list[int]) -> None:
    """All but less than a piece of it: under most attacks it is the attack's own words."""
    alone = {}
    for name in ("long 230", "long 290"):
        alone |= answers(load_hf(str(tiny)), [name])
    apart = sum(read)
    read.clear()
    assert answers(load_hf(str(tiny)), ["long 230", "long 290"]) == alone
    model = load_hf(str(tiny))
    ids = [encode_prompt(model.tokenizer, model.render(QUESTIONS[name])) for name in alone]
    alike = next(i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    assert alike > PAGE
    assert 0 <= alike - (apart - sum(read)) < PIECE


HEADED = [
    "short 2",
    "short 5",
    "short 6",
    "sample 1",
    "sample 2",
    "shots 2",
    "choice 40",
    "two choices",
    "choice shots",
]


def headed(tiny: Path) -> HFModel:
    """With a system prompt of several pages and a bit."""
    return load_hf(str(tiny), system="be kind and brief, " * 40)


@pytest.mark.parametrize("grain", [8, 64])
def test_under_a_long_system_prompt_too(tiny: Path, grain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grain 64 is that of machines whose products sum differently for different numbers of rows."""
    monkeypatch.setattr(pages, "_steady", lambda *shape: grain)
    crowd = answers(headed(tiny), HEADED)
    model = headed(tiny)
    assert answers(model, HEADED[::-1]) == crowd
    for name in HEADED:
        assert answers(headed(tiny), [name]) == answers(model, [name]) == {name: crowd[name]}, name
    narrow = headed(tiny)
    narrow._decoders[0] = Decoder(narrow.model, narrow.stops, 3, 1000, 8)
    assert answers(narrow, HEADED) == crowd


def test_a_long_system_prompt_is_held_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = headed(tiny), []
    forward = Decoder._forward

    def watched(self: Decoder, decoding: list[Row], pieces: list[tuple[Row, object]]) -> torch.Tensor:
        logits = forward(self, decoding, pieces)  # type: ignore[arg-type]
        lists = [row.pages for row in self.rows if row.pages]
        held.append((len(lists), sum(map(len, lists)) - len({page for pages in lists for page in pages})))
        assert not set(self._free) & {page for pages in lists for page in pages}
        assert all(self._users[page] == sum(page in pages for pages in lists) for pages in lists for page in pages)
        return logits

    monkeypatch.setattr(Decoder, "_forward", watched)
    answers(model, HEADED)
    whole = len(encode_prompt(model.tokenizer, model.system or "")) // PAGE
    assert whole > 1
    rows, shared = max(held)
    assert (
        rows > 3 and shared >= (rows - 3) * whole
    )  # Two more heads: that of the demonstrations, and a row that still waits.
    assert not any(model._decoders[0]._users.values())


def test_under_a_long_system_prompt_greedy_is_that_of_generate(tiny: Path) -> None:
    model, plain = headed(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    for name in ("short 2", "short 6"):
        question = QUESTIONS[name]
        assert isinstance(question, Ask)
        ids = torch.tensor([encode_prompt(model.tokenizer, model.render(question))])
        out = plain.generate(
            ids, max_new_tokens=question.sampling.max_tokens, eos_token_id=[*model.stops], do_sample=False
        )
        wanted = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        found = answers(model, ["short 1", "short 2", "short 6"])[name]
        assert isinstance(found, Reply) and found.text == wanted


def test_how_many_rows_keep_a_sum_in_its_order_is_tried_here() -> None:
    assert pages._steady(3, (3, 64, PAGE), torch.float32, torch.get_num_threads()) in pages.GRAINS
    generator = torch.Generator().manual_seed(1)
    asked, key, weights, value = (
        torch.randn(shape, generator=generator) for shape in ((21, 3, 3, 64), (4, 3, 64, PAGE), (4, 21, 3, 3, PAGE), (4, 3, PAGE, 64))
    )  # fmt: skip
    scores, found = pages._meet(asked, key), pages._gather(weights, value)
    assert torch.allclose(scores, torch.einsum("rgqd,kgdp->krgqp", asked, key), atol=1e-4)
    for n in (1, 7, 9, 20):
        assert torch.equal(pages._meet(asked[:n], key), scores[:, :n])
        assert torch.equal(pages._gather(weights[:, :n], value), found[:, :n])


def test_packed_layers_do_as_before_where_gradients_are_recorded() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 32, bias=False))
    rows = torch.randn(24, 64)
    before = layer(rows)
    pack_linears(layer, 64)
    after = layer(rows)
    assert torch.equal(after, before)
    after.sum().backward()
    assert layer[0].weight.grad is not None
    with torch.inference_mode():
        assert torch.allclose(layer(rows), before, atol=1e-5)


def test_the_nucleus_holds_what_sorting_everything_finds() -> None:
    """Every token that is drawn lies in the smallest set of likeliest tokens whose mass reaches p, and all of that set are drawn."""
    logits = torch.randn(60, generator=torch.Generator().manual_seed(1)) * 2
    ordered, index = logits.softmax(-1).sort(descending=True)
    nucleus = set(index[: int((ordered.cumsum(-1) < 0.6).sum()) + 1].tolist())
    row = Row(0, [1], Sampling(temperature=1.0, top_p=0.6), 0, generator=torch.Generator().manual_seed(0))
    assert {pick(logits, row) for _ in range(600)} == nucleus


def test_options_that_begin_alike_are_read_once() -> None:
    (piece,) = branches(([1, 2, 3], [1, 2, 4], [1, 5], [6]), 10)
    assert (piece.tokens, piece.positions, piece.above) == ([1, 2], [10, 11], [[10], [10, 11]])
    assert sorted(piece.scored) == [(0, 0, 2), (0, 1, 2), (0, 2, 5), (1, 0, 3), (1, 1, 4)]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_tokens_are_drawn_as_often_as_temperature_and_nucleus_say(top_p: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    wanted = (logits / 0.5).softmax(-1)
    wanted = wanted * (wanted.cumsum(-1) - wanted < top_p)
    row = Row(0, [1], Sampling(temperature=0.5, top_p=top_p), 0, generator=torch.Generator().manual_seed(0))
    drawn = torch.bincount(torch.tensor([pick(logits, row) for _ in range(3000)]), minlength=5) / 3000
    assert (drawn - wanted / wanted.sum()).abs().max() < 0.03
