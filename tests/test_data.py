"""The starter set and the loaders."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets.exceptions import DatasetNotFoundError
from httpx import Request, Response
from huggingface_hub.errors import GatedRepoError

from forethought.cli.common import read_prompts
from forethought.config import DataConfig
from forethought.data import check_trainable, draw, load_prompts, parse_data
from forethought.data.public import is_about_minors
from forethought.errors import ForethoughtError
from forethought.policy import load_policy
from forethought.records import LABELS, Label, Prompt, make_prompt

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
STARTER = load_prompts(DataConfig())
MINORS = re.compile(
    r"\b(?:child|children|kids?|minors?|teens?|teenagers?|underage|school ?girls?|school ?boys?|babys?|infants?|toddlers?)\b",
    re.IGNORECASE,
)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def test_starter_size_labels_and_ids() -> None:
    assert len(STARTER) >= 1500
    assert len({p.id for p in STARTER}) == len({p.text for p in STARTER}) == len(STARTER)
    assert {p.label for p in STARTER} == set(LABELS)
    assert {p.split for p in STARTER} == {"train", "extra", "validation", "test"}
    assert all(p.topic and p.source == "starter" and len(p.text) <= 400 for p in STARTER)
    assert all(p.category for p in STARTER if p.label != "benign")
    assert all(p.text == p.text.strip() for p in STARTER)


def test_starter_covers_the_default_policy() -> None:
    policy = load_policy("default")
    have = {p.category for p in STARTER}
    counts = Counter((p.category, p.label, p.split) for p in STARTER)
    for category in policy.categories:
        assert category.id in have, category.id
        for label in ("harmful", "borderline") if category.respond == "refuse" else ():
            for split in ("train", "test"):
                assert counts[category.id, label, split] > 0, (category.id, label, split)
    known = {c.id for c in policy.categories}
    assert all(p.category in known for p in STARTER if p.label == "harmful")


def test_starter_pairs_are_whole() -> None:
    pairs = defaultdict(list)
    for p in STARTER:
        if p.pair:
            pairs[p.pair].append(p)
    assert len(pairs) > 300
    for name, two in pairs.items():
        assert len(two) == 2, name
        assert two[0].label != two[1].label, name
        assert two[0].split == two[1].split and two[0].topic == two[1].topic, name


def test_starter_topics_do_not_straddle_splits() -> None:
    splits = defaultdict(set)
    for p in STARTER:
        splits[p.topic].add("train" if p.split == "extra" else p.split)
    assert [t for t, s in splits.items() if len(s) > 1] == []


def test_starter_has_no_near_duplicate_across_splits() -> None:
    sets = [(p, words(p.text)) for p in STARTER]
    by_word = defaultdict(list)
    for i, (_, w) in enumerate(sets):
        for word in w:
            by_word[word].append(i)
    found = []
    for i, (p, w) in enumerate(sets):
        # Two sets with Jaccard >= 0.6 share a word among the rarest 40% (and one) of the first.
        rare = sorted(w, key=lambda x: len(by_word[x]))[: int(len(w) * 0.4) + 1]
        for j in {j for word in rare for j in by_word[word] if j != i}:
            q, v = sets[j]
            if p.split != q.split and len(w & v) >= 0.6 * len(w | v):
                found.append((p.text, q.text))
    assert found == []


def test_starter_says_nothing_of_minors_in_sexual_or_harmful_prompts() -> None:
    assert [p.text for p in STARTER if p.category == "sexual" and MINORS.search(p.text)] == []
    assert [p.text for p in STARTER if p.label == "harmful" and MINORS.search(p.text)] == []


# Drawing


def test_draw_is_deterministic_and_bounded() -> None:
    take: dict[Label, int] = {"harmful": 24, "borderline": 32, "benign": 5}
    first = draw(STARTER, take, 0)
    assert draw(list(reversed(STARTER)), take, 0) == first
    assert Counter(p.label for p in first) == take
    assert {p.id for p in draw(STARTER, take, 1)} != {p.id for p in first}
    assert {p.label for p in draw(STARTER, {"benign": 3, "harmful": 0}, 0)} == {"benign"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "take",
    [
        {"harmful": 24, "borderline": 32, "benign": 24, "sensitive": 16},
        {"harmful": 80, "borderline": 80, "benign": 40, "sensitive": 20},
        {"harmful": 7, "borderline": 3},
    ],
)
def test_draw_keeps_pairs_together(seed: int, take: dict[Label, int]) -> None:
    drawn = draw(STARTER, take, seed)
    assert Counter(p.label for p in drawn) == take
    labels = {p.id: p.label for p in STARTER}
    whole = Counter(p.pair for p in STARTER if p.pair and labels[p.id] in take)
    assert [p for p, n in Counter(p.pair for p in drawn if p.pair).items() if n != whole[p]] == []


def test_draw_breaks_a_pair_only_to_fill_a_label() -> None:
    prompts = [make_prompt(f"{label} {i}", label, "t", pair=str(i)) for i in range(6) for label in LABELS[:2]]
    drawn = draw(prompts, {"harmful": 2, "benign": 5}, 0)
    assert Counter(p.label for p in drawn) == {"harmful": 2, "benign": 5}
    assert len({p.pair for p in drawn}) == 5
    assert len(draw(prompts, {"harmful": 100, "benign": 100}, 0)) == 12


def test_split_and_take() -> None:
    test = load_prompts(DataConfig(split="test", take={"harmful": 3}))
    assert len(test) == 3 and {p.split for p in test} == {"test"}


def test_a_second_draw_shares_no_prompt_with_the_first() -> None:
    numbers: dict[Label, int] = {"harmful": 30, "benign": 30, "borderline": 20}
    first = load_prompts(DataConfig(split="test", take=numbers))
    second = load_prompts(DataConfig(split="test", take=numbers, skip=numbers))
    assert Counter(p.label for p in second) == numbers
    assert not {p.id for p in first} & {p.id for p in second}


# Files


def load(path: Path, text: str | bytes, **config: Any) -> list[Prompt]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_prompts(DataConfig(source=path.suffix[1:], path=str(path), **config))


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"text": "{x} 👩‍🚀 كيف", "label": "harmful", "category": "crime", "extra": [1]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "label": "benign"},
        {"text": "\x00 \u2028 x", "label": "benign", "id": 7, "source": "theirs"},
    ]
    found = load(tmp_path / "a.jsonl", "\n\n".join(json.dumps(r) for r in rows))
    assert [p.text for p in found] == ["{x} 👩‍🚀 كيف", "u", "\x00 \u2028 x"]
    assert found[1].messages[0].role == "system" and found[2].id == "7" and found[2].source == "theirs"
    assert found[0].source == "a.jsonl" and found[0].id == make_prompt("{x} 👩‍🚀 كيف", "benign", "x").id


def test_csv_with_comments_and_odd_columns(tmp_path: Path) -> None:
    text = '\ufeff# from somewhere\n# else\n,My Goal,kind\n0,"one, {two}\nthree",harmful\n1,four,benign\n'
    found = load(tmp_path / "a.csv", text, columns={"text": "My Goal", "label": "kind", "id": ""})
    assert [(p.id, p.text, p.label) for p in found] == [("0", "one, {two}\nthree", "harmful"), ("1", "four", "benign")]
    assert len(load(tmp_path / "b.csv", "text,label\na,benign\nb,benign,\n")) == 2


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"q": ["a", "b"], "label": ["benign", "harmful"], "n": [1, None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    config = DataConfig(source="parquet", path=str(tmp_path / "a.parquet"), columns={"text": "q", "topic": "n"})
    assert [(p.text, p.label, p.topic) for p in load_prompts(config)] == [
        ("a", "benign", "1"),
        ("b", "harmful", None),
    ]


def test_values_win_over_columns(tmp_path: Path) -> None:
    found = load(tmp_path / "a.csv", "text,label\na,?\n", values={"label": "harmful", "category": "crime"})
    assert (found[0].label, found[0].category) == ("harmful", "crime")


@pytest.mark.parametrize(
    ("name", "text", "config", "said"),
    [
        ("a.jsonl", '{"text": "a", "label": "benign"}\n{"text": ', {}, "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", '{"text": "a", "label": "benign"}\n\n[1]', {}, "line 3: expected a JSON object, got list"),
        ("a.jsonl", b'\n{"text": "\xff"}', {}, "a.jsonl, line 2: not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": "bad"}', {}, "row 1, column 'label': label 'bad' is none of harmful"),
        ("a.jsonl", '{"text": "a", "label": ["x"]}', {}, "row 1, column 'label'"),
        ("a.jsonl", '{"text": "a"}', {}, "values.label=harmful"),
        ("a.jsonl", '{"text": "", "label": "benign"}', {}, "row 1: column 'text' is empty. Map it"),
        ("a.jsonl", '{"txet": "a", "label": "benign"}', {}, "row 1: no column 'text'. Did you mean 'txet'?"),
        ("a.jsonl", '{"text": {"a": 1}, "label": "benign"}', {}, "row 1: column 'text' holds dict, not text"),
        ("a.jsonl", '{"text": "\\ud800", "label": "benign"}', {}, "a.jsonl, row 1"),
        ("a.jsonl", '{"messages": "hi", "label": "benign"}', {}, "a.jsonl, row 1"),
        ("a.jsonl", '{"messages": [{"role": "x", "content": ""}], "label": "benign"}', {}, "a.jsonl, row 1"),
        ("a.jsonl", "", {}, "no prompts in"),
        ("a.jsonl", '{"text": "a", "label": "benign"}', {"split": "test"}, "of split 'test'"),
        ("a.csv", "Goal\nx", {"columns": {"text": "Gaol"}}, "a.csv, row 1: no column 'Gaol'. Did you mean 'Goal'?"),
        ("a.csv", "text,label\na,benign\nb,c,benign\n", {}, "a.csv, row 2: more values than columns"),
        ("a.csv", "text,label\na\n", {}, "row 1, column 'label': label None"),
        ("a.csv", 'text,label\n"a,benign\nb,benign\n', {}, "a.csv: not valid CSV"),
        ("a.csv", b"text,label\n\xe9,benign\n", {}, "a.csv: not UTF-8"),
        ("a.csv", "# only a comment\n", {}, "no prompts in"),
        ("a.csv", "text,label\na,benign\n", {"columns": {"txt": "text"}}, "no field 'txt'. Did you mean 'text'?"),
        ("a.csv", "text,label\na,benign\na,harmful\n", {}, "'a' is labelled both benign and harmful"),
        ("a.csv", "id,text,label\n1,a,benign\n2,a,harmful\n", {}, "'a' is labelled both benign and harmful"),
        ("a.csv", "id,text,label\n1,a,benign\n1,b,benign\n", {}, "the id '1' is on two prompts, 'a' and 'b'"),
        ("a.parquet", "not parquet", {}, "is not a Parquet file"),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, text: str | bytes, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ForethoughtError) as error:
        load(tmp_path / name, text, **config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_equal_rows_are_kept_once(tmp_path: Path) -> None:
    assert len(load(tmp_path / "a.csv", "text,label\na,benign\nb,benign\na,benign\n")) == 2


def test_missing_files_and_sources(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("x")
    for config, said in (
        ({"source": "csv", "path": str(tmp_path / "promts.csv")}, "Did you mean 'prompts.csv'?"),
        ({"source": "csv", "path": str(tmp_path / "none" / "x.csv")}, "no file"),
        ({"source": "csv"}, "needs path=FILE"),
        ({"source": "hub"}, "needs path=owner/name"),
        ({"source": "jsnl"}, "unknown data source 'jsnl'. Did you mean 'jsonl'?"),
    ):
        with pytest.raises(ForethoughtError, match=re.escape(said)):
            load_prompts(DataConfig.model_validate(config))


def test_parse_data() -> None:
    assert parse_data("starter") == DataConfig()
    assert parse_data("starter:test").split == "test"
    assert parse_data("a/b.csv") == DataConfig(source="csv", path="a/b.csv")
    with pytest.raises(ForethoughtError, match="Did you mean 'test'"):
        parse_data("starter:tset")
    with pytest.raises(ForethoughtError, match="cannot tell"):
        parse_data("a.xlsx")


# The hub


def hub(monkeypatch: pytest.MonkeyPatch, given: Any, path: str = "owner/name:sub@dev") -> tuple[list[Prompt], Any]:
    asked = []

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        if isinstance(given, Exception):
            raise given
        return datasets.Dataset.from_list(given)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = DataConfig(source="hub", path=path, columns={"text": "q"}, values={"label": "harmful"})
    return load_prompts(config), asked[0]


def test_several_sources_are_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Goal\nOne\nTwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "Three", "label": "benign"}\n{"text": "One", "label": "harmful"}\n')
    both = f"{tmp_path}/a.csv(text=Goal, label=harmful),{tmp_path}/b.jsonl"
    assert [p.text for p in read_prompts(both, None, None, None, 0)] == ["One", "Two", "Three"]
    drawn = read_prompts(both, "harmful=1", None, None, 0)  # One of each source.
    assert [p.source for p in drawn] == ["a.csv", "b.jsonl"] or [p.text for p in drawn] == ["One"]
    (tmp_path / "b.jsonl").write_text('{"text": "One", "label": "benign"}\n')
    with pytest.raises(ForethoughtError, match="labelled both"):
        read_prompts(both, None, None, None, 0)


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = hub(monkeypatch, [{"q": "a"}, {"q": "b"}])
    assert [p.text for p in found] == ["a", "b"] and found[0].source == "owner/name"
    assert asked == (("owner/name", "sub"), {"split": "dev"})
    assert hub(monkeypatch, [{"q": "a"}], "owner/name")[1] == (("owner/name", None), {"split": "train"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub.\nMore."),
            "accept its terms on the hub's page of 'owner/name' and run `hf auth login`",
        ),
        (DatasetNotFoundError(), "DatasetNotFoundError"),
        (ConnectionError("offline"), "cannot load 'owner/name' from the hub: offline"),
        (ConnectionError(), "ConnectionError"),
        (ValueError("Unknown split 'dev'.\nShould be one of"), "Unknown split"),
        ([{"q": "a"}, {"q": None}], "owner/name, row 2: column 'q' is empty"),
        ([{"x": "a"}], "owner/name, row 1: no column 'q'"),
    ],
)
def test_what_is_wrong_with_the_hub(monkeypatch: pytest.MonkeyPatch, given: Any, said: str) -> None:
    with pytest.raises(ForethoughtError) as error:
        hub(monkeypatch, given)
    assert said in str(error.value) and "\n" not in str(error.value)


# Published sets, where they are at hand


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("file", "columns", "count"),
    [
        ("train/circuit_breaker_prompts.csv", {"text": "Goal"}, 995),
        ("eval/xstest_prompts.csv", {"text": "prompt", "category": "type"}, 448),
        ("eval/advbench_harmful_behaviors.csv", {"text": "goal"}, 514),
        ("eval/jbb_benign_behaviors.csv", {"text": "Goal"}, 98),
        ("train/coconot_pref.jsonl", {"text": "prompt"}, 920),
    ],
)
def test_published_sets(file: str, columns: dict[str, str], count: int) -> None:
    path = SHARED / file
    config = DataConfig(source=path.suffix[1:], path=str(path), columns=columns, values={"label": "harmful"})
    found = load_prompts(config)
    assert count * 0.99 <= len({p.text for p in found}) <= len(found) <= count


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("name", "file", "labels"),
    [
        # XSTest's harmful rows are its unsafe contrasts.
        ("xstest", "xstest_prompts.csv", {"borderline": 249, "harmful": 199}),
        # The shared copies have lost a few rows, and refusing ones of OR-Bench are dropped.
        ("or_bench", "or_bench_sample.json", {"borderline": 135}),
        ("jbb_benign", "jbb_benign_behaviors.csv", {"borderline": 98}),
        ("jbb", "jbb_harmful_behaviors.csv", {"harmful": 97}),
        ("coconot", "coconot_eval.jsonl", {"harmful": 394}),
        ("coconot_eval", "coconot_eval.jsonl", {"harmful": 1000}),
        ("coconot_contrast", "coconot_contrast_eval.jsonl", {"borderline": 379}),
    ],
)
def test_named_sets_read_their_copies(name: str, file: str, labels: dict[str, int]) -> None:
    found = Counter(p.label for p in load_prompts(parse_data(f"{name}:{SHARED / 'eval' / file}")))
    assert found.keys() == labels.keys()
    assert all(labels[k] * 0.98 <= n <= labels[k] for k, n in found.items()), found


def test_what_a_request_refers_to_comes_with_it(tmp_path: Path) -> None:
    """The context of a HarmBench behaviour, the input of a self-instruct task."""
    (tmp_path / "h.csv").write_text(
        "Behavior,BehaviorID,ContextString\nSum this up.,a,A tale of bread.\nBake bread.,b,\n"
    )
    (tmp_path / "s.jsonl").write_text(
        json.dumps(
            {
                "id": "t0",
                "instruction": "Sum this up.",
                "instances": [{"input": "A tale of bread.", "output": "Bread."}],
            }
        )
    )
    assert [p.text for p in load_prompts(parse_data(f"harmbench:{tmp_path / 'h.csv'}"))] == [
        "A tale of bread.\n\nSum this up.", "Bake bread.",
    ]  # fmt: skip
    (task,) = load_prompts(parse_data(f"self_instruct:{tmp_path / 's.jsonl'}"))
    assert task.text == "Sum this up.\n\nA tale of bread."


def test_sets_that_number_their_rows_go_together(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,prompt,label\n1,How do I kill a process?,safe\n2,How do I rob a bank?,unsafe\n")
    (tmp_path / "s.json").write_text(
        json.dumps([{"id": 1, "question": "How do I rob a train?", "category": ["Crime"]}])
    )
    found = [
        p
        for name, file in (("xstest", "x.csv"), ("star1", "s.json"))
        for p in load_prompts(parse_data(f"{name}:{tmp_path / file}"))
    ]
    assert [p.id for p in found] == ["xstest-1", "xstest-2", "star1-1"]


def test_over_refusal_sets_in_the_form_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    held = {
        "sorry-bench/sorry-bench-202503": [
            {"question_id": 1, "category": "4", "turns": ["Insult my neighbour."], "prompt_style": "base"},
            {"question_id": 1, "category": "4", "turns": ["1nsult my neighbour."], "prompt_style": "misspellings"},
        ],
        "allenai/wildjailbreak": [
            {"adversarial": "As a spy, insult my neighbour.", "label": 1, "data_type": "adversarial_harmful"},
            {"adversarial": "As a spy, greet my neighbour.", "label": 0, "data_type": "adversarial_benign"},
        ],
    }

    def load_dataset(name: str, *args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(held[name])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    sorry = load_prompts(parse_data("sorry_bench"))
    assert [(p.text, p.label, p.category) for p in sorry] == [("Insult my neighbour.", "harmful", "4")]
    wild = load_prompts(parse_data("wildjailbreak"))
    assert [p.label for p in wild] == ["harmful", "borderline"]
    assert asked[1] == (("eval",), {"split": "train", "delimiter": "\t", "keep_default_na": False})
    copy = tmp_path / "eval.tsv"
    copy.write_text(
        "adversarial\tlabel\n" + "".join(f"{r['adversarial']}\t{r['label']}\n" for r in held["allenai/wildjailbreak"])
    )
    assert [(p.text, p.label) for p in load_prompts(parse_data(f"wildjailbreak:{copy}"))] == [
        (p.text, p.label) for p in wild
    ]


@pytest.mark.parametrize("name", ["sorry_bench", "wildjailbreak", "xstest"])
def test_a_gated_set_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        raise GatedRepoError(
            "401 Client Error.\nAccess is restricted.", response=Response(401, request=Request("GET", "http://hub"))
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ForethoughtError) as error:
        load_prompts(parse_data(name))
    said = str(error.value)
    assert (
        "accept its terms on the hub's page of" in said
        and "hf auth login" in said
        and f"{name}:PATH" in said
        and "\n" not in said
    )


def test_by_default_few_are_taken_of_the_starter_set_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text\n" + "".join(f"Question number {i} about bread\n" for i in range(40)))
    few = "harmful=2,benign=3"
    for data in (f"starter:test,{path}(label=harmful)", f"{path}(label=harmful),starter:test"):
        found = Counter((p.source == "starter", p.label) for p in read_prompts(data, None, None, None, 0, few))
        assert found == {(True, "harmful"): 2, (True, "benign"): 3, (False, "harmful"): 40}
    taken = read_prompts(f"starter:test,{path}(label=harmful)", "harmful=5", None, None, 0, few)
    assert Counter(p.source == "starter" for p in taken) == {True: 5, False: 5}


def test_a_set_of_the_hub_has_a_name() -> None:
    assert parse_data("hub:owner/name:part@test") == DataConfig(source="hub", path="owner/name:part@test")


def test_a_conversation_that_ends_with_its_answer_is_no_prompt(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "How do I bake bread?"}, {"role": "assistant", "content": "Like this."}]
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"messages": turns, "label": "benign"}) + "\n")
    with pytest.raises(ForethoughtError, match=r"row 1: the last message is not the user's"):
        load_prompts(DataConfig(source="jsonl", path=str(path)))


def test_what_models_are_evaluated_by_is_not_trained_on() -> None:
    with pytest.raises(ForethoughtError, match="'xstest' is a set to evaluate by"):
        check_trainable(DataConfig(source="starter", more=(DataConfig(source="xstest"),)))
    check_trainable(DataConfig(source="csv", path="xstest.csv"))


def test_rows_about_minors_are_seen_in_lists_and_behind_line_breaks_and_by_age() -> None:
    for value in (["a", "teen", {"b": "nude"}], "x\nTeen y\nNude", {"turns": ["a 14-year-old", "erotic"]}):
        assert is_about_minors(value)
    assert not is_about_minors({"a": "a teen who bakes", "n": 3}) and not is_about_minors(
        "a nude by Rubens, 40 years old"
    )
