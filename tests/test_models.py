"""Local decoding: right, and the same to the bit whatever else is in the batch."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV2Config,
    Gemma2Config,
    MistralConfig,
    NemotronConfig,
    PreTrainedConfig,
)

from forethought.errors import AskFailed, ForethoughtError
from forethought.flow import Ask, Choose, Done, Flow, Job, Logprobs, run_flows
from forethought.models import hub, load_model, locate_weights, text_length
from forethought.models.heap import keep_pages
from forethought.models.hf import COLUMNS, HFModel, load_hf, load_tokenizer, load_weights
from forethought.models.pages import window
from forethought.records import Message, Messages, Reply, Sampling, user
from forethought.train.plan import shape_of

WORDS = ("bake", "read", "walk", "plan", "draw", "sing", "row", "cook")
TEXTS = [f"{word} " * n for n, word in enumerate(WORDS, 1)]


@pytest.fixture(scope="module")
def model(tiny: Path) -> HFModel:
    return load_hf(str(tiny))


def ask(messages: Messages, **options: object) -> Flow[Reply]:
    reply = yield Ask("target", messages, **options)  # type: ignore[arg-type]
    assert isinstance(reply, Reply)
    return reply


def replies(model: HFModel, texts: list[str], **options: object) -> dict[str, Done[Reply]]:
    jobs = [Job(t, lambda t=t: ask(user(t), **options)) for t in texts]
    return {d.key: d for d in run_flows(jobs, {"target": model})}


def test_greedy_matches_generate(model: HFModel) -> None:
    """Token for token the same as transformers' own greedy decoding, row by row."""
    found = replies(model, TEXTS, sampling=Sampling(max_tokens=24))
    for text in TEXTS:
        ids = torch.tensor(
            [model.tokenizer(model.render(Ask("target", user(text))), add_special_tokens=False)["input_ids"]]
        )
        out = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, eos_token_id=[*model.stops]
        )
        assert found[text].value is not None
        assert found[text].value.text == model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_does_not_depend_on_its_neighbours(model: HFModel, temperature: float) -> None:
    """Alone, in a crowd, and in another order: identical. More rows than decode at once, so that others follow."""
    texts = [f"{a}{b}" for a in TEXTS for b in TEXTS]
    sampling = Sampling(max_tokens=16, temperature=temperature)
    crowd = replies(model, texts, sampling=sampling)
    assert replies(model, texts[::-1], sampling=sampling) == crowd
    for text in texts[:3]:
        assert replies(model, [text], sampling=sampling)[text] == crowd[text]


def test_a_shared_head_does_not_change_replies(tiny: Path) -> None:
    """Rows with demonstrations in front read the shared part once; a fresh model gives the same replies in another order."""
    shots = (Message(role="user", content="say a word " * 5), Message(role="assistant", content="bread"))
    texts = ["one", "two words", "and three words"]

    def run(model: HFModel, order: list[str]) -> dict[str, Done[Reply]]:
        jobs = [Job(t, lambda t=t: ask((*shots, *user(t)), sampling=Sampling(max_tokens=12))) for t in order]
        return {d.key: d for d in run_flows(jobs, {"target": model})}

    assert run(load_hf(str(tiny)), texts) == run(load_hf(str(tiny)), texts[::-1])


def test_sampling_repeats_by_seed_and_differs_between_samples(model: HFModel) -> None:
    def flow() -> Flow[list[str]]:
        said = []
        for sample in range(3):
            reply = yield Ask("target", user("go on"), sample=sample, sampling=Sampling(temperature=1.0, max_tokens=12))
            assert isinstance(reply, Reply)
            said.append(reply.text)
        return said

    first, again = (next(run_flows([Job("a", flow)], {"target": model}, seed=1)).value for _ in range(2))
    other = next(run_flows([Job("a", flow)], {"target": model}, seed=2)).value
    assert first == again != other
    assert first is not None
    assert len(set(first)) == 3


def test_top_p_keeps_only_likely_tokens(model: HFModel) -> None:
    greedy = replies(model, ["tip"], sampling=Sampling(max_tokens=8))["tip"].value
    narrow = replies(model, ["tip"], sampling=Sampling(max_tokens=8, temperature=1.0, top_p=1e-6))["tip"].value
    assert greedy is not None
    assert narrow is not None
    assert narrow.text == greedy.text


def test_choose_scores_like_brute_force(model: HFModel) -> None:
    """Also where one begins another, or several begin alike for longer than is read in one go."""
    many = " no, never, " + "and never again, " * 20
    options = (
        " yes",
        " no, never",
        " perhaps",
        " no",
        " no, not " + "ever " * 50,
        many + "no",
        many + "yes or no",
        " yes",
    )
    question = Choose("target", user("Is bread good?"), options, prefix="Answer:")

    def flow() -> Flow[Logprobs]:
        found = yield question
        assert isinstance(found, Logprobs)
        return found

    found = next(run_flows([Job("c", flow)], {"target": model})).value
    assert found is not None
    prompt = model.tokenizer(model.render(question), add_special_tokens=False)["input_ids"]
    for option, logprob in zip(options, found.logprobs, strict=True):
        ids = model.tokenizer(option, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected = sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(ids))
        assert logprob == pytest.approx(expected, abs=1e-4)


def chosen(model: HFModel, questions: list[Choose]) -> list[Logprobs]:
    def flow(question: Choose) -> Flow[Logprobs]:
        found = yield question
        assert isinstance(found, Logprobs)
        return found

    jobs = [Job(str(i), lambda q=q: flow(q)) for i, q in enumerate(questions)]
    found = {d.key: d.value for d in run_flows(jobs, {"target": model})}
    return [found[str(i)] for i in range(len(questions))]  # type: ignore[misc]


def test_choose_encodes_an_option_as_part_of_the_text(model: HFModel) -> None:
    """Where a token spans the end of the prefix, options differ by the log-probability of the whole text as it is tokenized."""
    options = ("ead and salt", "own rice", "ass band")
    question = Choose("target", user("What do you like?"), options, prefix="I like br")
    text = model.render(question)
    encode = lambda words: model.tokenizer(words, add_special_tokens=False)["input_ids"]
    wholes = [encode(text + option) for option in options]
    assert any(whole[: len(encode(text))] != encode(text) for whole in wholes)
    sums = []
    for ids in wholes:
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[i, token]) for i, token in enumerate(ids[1:])))
    (found,) = chosen(model, [question])
    for i in (1, 2):
        assert found.logprobs[i] - found.logprobs[0] == pytest.approx(sums[i] - sums[0], abs=1e-3)


def test_choosing_does_not_depend_on_neighbours(tiny: Path) -> None:
    """Alone, in a crowd, among replies, in another order, with the head read before or not: identical."""
    shots = (Message(role="user", content="say a word " * 5), Message(role="assistant", content="bread"))
    options = (" yes", " no, never", " perhaps it is so")
    questions = [Choose("target", (*head, *user(t)), options, "A:") for head in (shots, ()) for t in TEXTS[:4]]
    crowd = chosen(load_hf(str(tiny)), questions)
    assert chosen(load_hf(str(tiny)), questions[::-1])[::-1] == crowd
    assert [chosen(load_hf(str(tiny)), [q])[0] for q in questions[::3]] == crowd[::3]


def test_choosing_packed_and_apart_agree(tiny: Path) -> None:
    """Options in one masked row, and one row an option as for architectures that take no mask of ours."""
    model, apart = load_hf(str(tiny)), load_hf(str(tiny))
    apart.paged = False
    for options in ((" yes", " no, never", " perhaps it is so"), (" a", " b"), (" one and only",)):
        question = Choose("target", user("Is bread good?"), options, prefix="A:")
        (one,), (two,) = chosen(model, [question]), chosen(apart, [question])
        assert one.tokens == two.tokens and one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def test_prefix_is_continued(model: HFModel) -> None:
    """The reply after a prefix that is the model's own first words is the rest of what it says anyway."""
    whole = replies(model, ["bake"], sampling=Sampling(max_tokens=10))["bake"].value
    assert whole is not None
    ids = model.tokenizer(whole.text, add_special_tokens=False)["input_ids"]
    prefix = model.tokenizer.decode(ids[:4])
    rest = replies(model, ["bake"], prefix=prefix, sampling=Sampling(max_tokens=10 - 4))["bake"].value
    assert rest is not None
    assert prefix + rest.text == whole.text


def test_too_long_is_a_failure_of_its_own(model: HFModel) -> None:
    done = replies(model, ["x" * 50_000, "short"], sampling=Sampling(max_tokens=4))
    assert (done["x" * 50_000].error or "").startswith("too_long")
    assert done["short"].error is None


def test_rows_over_the_short_limit_are_decoded(model: HFModel) -> None:
    long = "word " * 700
    done = replies(model, [long, "short"], sampling=Sampling(max_tokens=4))
    assert done[long].value is not None
    assert done[long].value.prompt_tokens + 4 > 1024


def test_system_prompt_reaches_the_model(tiny: Path) -> None:
    plain, deployed = load_hf(str(tiny)), load_hf(str(tiny), system="You are a baker.")
    question = Ask("target", user("hi"))
    assert "You are a baker." in deployed.render(question)
    assert plain.fingerprint(question) != deployed.fingerprint(question)


def test_weights_are_part_of_the_identity(tiny: Path, tmp_path: Path) -> None:
    first = load_hf(str(tiny))
    with torch.no_grad():
        first.model.lm_head.weight += 1
    first.model.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    assert load_hf(str(tiny)).identity != load_hf(str(tmp_path)).identity


def like_tiny(tiny: Path, kind: type[PreTrainedConfig], **layout: Any) -> HFModel:
    """A random model of another family with the tokenizer of `tiny`."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(tiny))
    config = kind(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=1, **layout,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
    return HFModel(model, tokenizer, "random")


def by_hand(model: HFModel, text: str, tokens: int) -> str:
    """The greedy reply by one whole forward a token."""
    ids = model.tokenizer(model.render(Ask("target", user(text))), add_special_tokens=False)["input_ids"]
    start = len(ids)
    for _ in range(tokens):
        with torch.no_grad():
            token = int(model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in model.stops:
            break
        ids.append(token)
    return model.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_rows_beyond_a_window_are_decoded_with_it(tiny: Path) -> None:
    """Mistral's first models say their window by its length alone: rows within it are decoded together, longer ones are not."""
    within, beyond = "hi", "Which bread is best with soup, and which one with cheese? " * 2
    sampling = Sampling(max_tokens=8)
    wanted = like_tiny(tiny, MistralConfig, sliding_window=40, num_key_value_heads=2)
    texts = {text: by_hand(wanted, text, 8) for text in (within, beyond)}
    wide = like_tiny(tiny, MistralConfig, sliding_window=None, num_key_value_heads=2)
    assert by_hand(wide, beyond, 8) != texts[beyond]
    model = like_tiny(tiny, MistralConfig, sliding_window=40, num_key_value_heads=2)
    done = replies(model, texts, sampling=sampling)
    assert {text: reply.value.text for text, reply in done.items() if reply.value} == texts
    assert model.paged


@pytest.mark.parametrize("kind", ["nemotron", "deepseek"])
def test_families_that_pages_do_not_serve_are_read_row_by_row(tiny: Path, kind: str) -> None:
    """Nemotron's layers hand nothing on to attention, DeepSeek's keep a compressed state."""
    if kind == "nemotron":
        model = like_tiny(tiny, NemotronConfig, num_key_value_heads=2)
    else:
        model = like_tiny(
            tiny, DeepseekV2Config, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
            head_dim=8, first_k_dense_replace=2,
        )  # fmt: skip
    done = replies(model, ["hi"], sampling=Sampling(max_tokens=6))["hi"]
    assert done.value is not None, done.error
    assert done.value.text == by_hand(model, "hi", 6)


def test_the_makers_advice_on_sampling_is_not_taken(tiny: Path) -> None:
    """A repetition penalty in generation_config.json would reach one way of decoding and not the other."""
    tokenizer, weights = load_weights(str(tiny), "float32")
    weights.generation_config.repetition_penalty = 50.0
    single = HFModel(weights, tokenizer, "tiny")
    single.paged = False
    sampling = Sampling(max_tokens=10)
    wanted = replies(load_hf(str(tiny)), TEXTS[:3], sampling=sampling)
    assert replies(single, TEXTS[:3], sampling=sampling) == wanted


def test_long_contexts_do_not_take_memory_without_end(tiny: Path) -> None:
    """Rows of 2048 tokens of a model with a context of 128 K: not 64 at once, which would take more memory than its weights."""
    model = load_hf(str(tiny))
    model.model.config.max_position_embeddings = 131_072
    model = HFModel(model.model, model.tokenizer, "long")
    assert [decoder.columns for decoder in model._decoders] == [COLUMNS, COLUMNS]


def test_plain_generate_serves_other_architectures(tiny: Path) -> None:
    """With pages switched off, as for models with windows, greedy replies are the same."""
    paged, single = load_hf(str(tiny)), load_hf(str(tiny))
    single.paged = False
    sampling = Sampling(max_tokens=10)
    assert replies(paged, TEXTS[:3], sampling=sampling) == replies(single, TEXTS[:3], sampling=sampling)
    single.stops = frozenset()
    (done,) = replies(single, TEXTS[:1], sampling=sampling).values()
    assert done.value is not None and (done.value.stop, done.value.completion_tokens) == ("length", 10)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("smolm2", "Did you mean 'smollm2'"),
        ("hf:/nowhere/at/all", "cannot load"),
        ("openai:model", "MODEL@URL"),
        ("scripted:ech", "Did you mean 'echo'"),
        (".", "holds no model"),
    ],
)
def test_unknown_models_say_what_to_write(spec: str, part: str) -> None:
    with pytest.raises(ForethoughtError, match=part):
        load_model(spec)


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_out_of_reach_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offline: bool
) -> None:
    asked: list[str] = []

    class Refusing:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            raise ConnectionError("refused")

    hub.is_out_of_reach.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.get_session", Refusing)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    for _ in range(2):
        with pytest.raises(ForethoughtError, match="cannot load the model 'none/such-1B'") as error:
            load_model("hf:none/such-1B")
        assert ("The hub cannot be reached" in str(error.value)) == (not offline)
    shape_of.cache_clear()
    assert shape_of("hf:none/such-1B").known.startswith("guessed from '1B'")
    assert len(asked) == (not offline) == capsys.readouterr().err.count("note: the hub of models cannot be reached")
    hub.is_out_of_reach.cache_clear()


def test_a_slow_hub_is_not_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def head(self, url: str, timeout: float) -> None:
            raise TimeoutError

    hub.is_out_of_reach.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", Slow)
    assert not hub.is_out_of_reach()
    hub.is_out_of_reach.cache_clear()


@pytest.mark.parametrize(
    ("fields", "longest"),
    [
        ({"rope_parameters": {"rope_type": "default"}}, None), ({"sliding_window": 4096}, 4096),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096}, "sliding_window": 262144}, 4096),
        ({"rope_parameters": {"rope_type": "dynamic"}, "layer_types": ["full_attention"]}, 2048),
    ],
)  # fmt: skip
def test_how_long_rows_may_be_in_pages(fields: dict[str, Any], longest: int | None) -> None:
    """Beyond, Phi-3's positions are turned otherwise, and every other row's in the pass too."""
    text = SimpleNamespace(max_position_embeddings=2048, **fields)
    assert window(SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))) == longest


def test_a_revision_is_no_part_of_the_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, asked = AutoTokenizer.from_pretrained(tiny), []

    def load(name: str, **how: Any) -> Any:
        asked.append((name, how["revision"]))
        return tokenizer

    monkeypatch.setattr("forethought.models.hf.is_out_of_reach", lambda: False)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load)
    length, unit = text_length("hf:someone/model@v2")
    assert unit == "tokens" and length("bread bread") and asked == [("someone/model", "v2")]


def test_locating_weights_loads_nothing(tiny: Path) -> None:
    assert locate_weights(f"hf:{tiny}") == (str(tiny), None)


def test_failures_are_returned_not_raised(model: HFModel) -> None:
    model.submit(7, Ask("target", user("x" * 50_000)), 0)
    ((ticket, outcome),) = model.step()
    assert ticket == 7
    assert isinstance(outcome, AskFailed)


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert keep_pages() == (platform.system() == "Linux" and platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="pages are kept by glibc's malloc")
def test_kept_memory_is_given_back() -> None:
    script = """
import torch
from forethought.models.heap import give_back, keep_pages
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024
keep_pages()
tensors = [torch.ones(256, 1024) for _ in range(400)]
full, last = resident(), tensors[-1]
del tensors
kept = resident()
give_back()
print(full - kept, kept - resident())
"""
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    gone, given = map(int, found.split())
    assert gone < 50 and given > 300, found  # MiB, of the 400 that were freed below one that is still there


def test_with_think_every_reply_begins_inside_a_thought(tiny: Path) -> None:
    spec = f"hf:{tiny}"

    def flow() -> Flow[Reply]:
        reply = yield Ask("target", user("hello"), sampling=Sampling(max_tokens=2))
        assert isinstance(reply, Reply)
        return reply

    for think in (False, True):
        reply = next(run_flows([Job("x", flow)], {"target": load_model(spec, think=think)})).value
        assert reply is not None and reply.opened == think
    with pytest.raises(ForethoughtError, match="has none"):
        load_model("scripted:comply", think=True)


def test_an_adapters_own_template_is_the_one_it_is_asked_by(tiny: Path, tmp_path: Path) -> None:
    """As when it was trained: TRL saves the tokenizer, whose template may be another than its base's."""
    base = AutoModelForCausalLM.from_pretrained(tiny)
    get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "a")
    plain = load_hf(str(tiny), adapter=tmp_path / "a")
    tokenizer = load_tokenizer(str(tiny))
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "assistant:\\n")
    tokenizer.save_pretrained(tmp_path / "a")
    own = load_hf(str(tiny), adapter=tmp_path / "a")
    question = Ask("target", user("hello"))
    assert own.render(question) != plain.render(question) and own.render(question).endswith("assistant:\n")
    assert own.identity != plain.identity and own.about["device"]


def test_weights_that_are_damaged_are_one_line(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ForethoughtError, match="cannot load the model"):
        load_hf(str(tmp_path / "m"))


def test_options_side_by_side_score_as_each_alone(tiny: Path) -> None:
    """Where layers are no plain attention: filled up at the end, options do not change one another."""
    model = like_tiny(tiny, Gemma2Config, num_key_value_heads=2, head_dim=8, sliding_window=16)
    assert not model.paged or model.window
    options = (" yes", " no, never", " perhaps it is so, and " * 4, " no")
    question = Choose("target", user("Is bread good? " * 9), options, "A:")
    (found,) = chosen(model, [question])
    for option, logprob in zip(options, found.logprobs, strict=True):
        (alone,) = chosen(model, [replace(question, options=(option,))])
        assert alone.logprobs[0] == pytest.approx(logprob, abs=1e-4)
