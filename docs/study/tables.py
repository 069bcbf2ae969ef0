"""The tables of docs/study.md. `python docs/study/tables.py` prints them from the CSV files beside it; with the folder of the runs as its
argument (`python docs/study/tables.py runs`) it writes those files first, by `forethought analyze auroc` and from the reports of the runs.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = ("", "_1", "_2")
# Columns: what the table calls them, and the targets of `study.yaml` that are their trainings.
MAIN = {
    "untuned": ("untuned", ["untuned"]),
    "prompt": ("prompted", ["prompt"]),
    "refusal": ("refusal training, 3 seeds", [f"refusal{seed}" for seed in SEEDS]),
    "refusal_longer": ("the same, equal computing", ["refusal_longer"]),
    "lat": ("LAT", ["lat"]),
    "circuit_breaker": ("circuit breakers", ["circuit_breaker"]),
    "plain": ("SCoT, plain template", ["scot"]),
    "scot": ("SCoT, opened thought, 3 seeds", [f"scot{seed}_think" for seed in SEEDS]),
    "cost": ("SCoT, `cost=2`, opened thought, 3 seeds", [f"scot_cost{seed}_think" for seed in SEEDS]),
}
WAYS = {
    name: (title, [name])
    for name, title in (
        ("refusal", "refusal training"), ("scot", "SCoT"), ("srg", "SRG-style"), ("rational", "RATIONAL-style"), ("policy", "policy-style"),
    )
}  # fmt: skip
ABLATIONS = {
    "scot_once": ("SCoT, each question once", "scot"),
    "scot_harmful": ("SCoT, harmful prompts alone", "scot"),
    "scot_unweighted": ("SCoT, decisions weigh 1", "scot"),
    "scot_reversed": ("SCoT, decision before the request", "scot"),
    "scot_cost": ("SCoT, `cost=3`", "scot"),
    "srg_bare": ("SRG-style, no guidelines", "srg"),
    "srg_blind": ("SRG-style, decisions its own, filtered by label", "srg"),
    "srg_unfiltered": ("SRG-style, decisions its own, not filtered", "srg"),
    "srg_longer": ("SRG-style, 240 steps", "srg"),
    "srg_cost": ("SRG-style, `cost=3`", "srg"),
    "rational_benign": ("RATIONAL-style, thoughts for answers alone", "rational"),
}
# Those state a decision on one side only, and are scored where the answer begins, as is what they are compared with:
# `forethought analyze score runs/study-methods/attack/scot --out runs/study-methods/score/scot_at_answer`, and of `rational` alike.
AT_ANSWER = ("scot_harmful", "rational_benign")
DRAWS = {
    "first": ("first draw, 30 + 30", ["study"]),
    "second": ("second, 30 + 30", ["study-fresh"]),
    "rest": ("the rest, 90 + 50", ["study-rest"]),
    "all": ("whole split, 150 + 110", ["study", "study-fresh", "study-rest"]),
}
DRAWN = ("scot", "refusal", "refusal_longer", "cost")  # The first is what the others are compared with.
# Disguises of which the untuned model tells back at most 1 of 28 sentences (docs/study-log.md, 14).
UNREAD = ["leetspeak", "misspelling", "disemvowel", "payload_splitting"]
# Attacks behind which the request stands in plain words (docs/study-log.md, 14).
PLAIN = [
    "style_short",
    "style_poem",
    "style_wiki",
    "few_shot",
    "small_talk",
    "no_thought",
    "forged_verdict",
    "thought_flooding(words=400)",
]
# What each mean over attacks leaves out; thirteen and six are for the whole split alone.
LEFT_OUT = {
    "fourteen": ["answer_prefill"],
    "thirteen": ["answer_prefill", "leetspeak"],
    "ten": ["answer_prefill", *UNREAD],
}
LEFT_OUT["eight"] = [*LEFT_OUT["ten"], "code_completion", "self_cipher"]
LEFT_OUT["six"] = ["answer_prefill", *PLAIN]
SUMMARY = ("fourteen", "eight")
RATES = (("not refused", "harmful"), ("refused", "benign"), ("well-formed", "all"))
Row = dict[str, str]


def write(runs: Path) -> None:
    """metrics.csv, again.csv, fresh.csv, rest.csv and methods.csv, as `forethought report` writes them, auroc.csv and line.csv. What has
    not been run, whole, is left out."""

    def done(run: str, stage: str, target: str) -> bool:
        info = runs / run / stage / target / "run.json"
        return info.exists() and json.loads(info.read_text())["status"] == "finished"

    def scored(run: str, *named: tuple[str, str]) -> list[str]:
        """NAME=RUN of those that have their scores."""
        return [f"{name}={runs}/{run}/score/{target}" for name, target in named if done(run, "score", target)]

    def trained(*names: str) -> list[tuple[str, str]]:
        return [(name, target) for name in names for target in MAIN[name][1]]

    for name, run, targets in (
        ("metrics", "study", [target for _, target in trained(*MAIN)]),
        ("again", "study-again", [target for _, target in trained(*MAIN)]),
        ("fresh", "study-fresh", [target for _, target in trained(*DRAWN)]),
        ("rest", "study-rest", [target for _, target in trained(*DRAWN)]),
        ("methods", "study-methods", [*WAYS, *ABLATIONS]),
    ):
        whole = [t for t in targets if done(run, "judge", t) and done(run, "score", t)]
        made = [
            f"{t}={runs}/{run}/{stage}/{t}"
            for t in whole
            for stage in ("judge", "score", "capability")
            if done(run, stage, t)
        ]
        if made:
            with tempfile.TemporaryDirectory() as folder:
                call("report", *made, "--reference", "refusal", "--redact", "--out", f"{folder}/report.html")
                shutil.copy(f"{folder}/report.metrics.csv", HERE / f"{name}.csv")
    rows = []
    for name, run in (("study", "study"), ("again", "study-again")):
        if beside := scored(run, *trained("refusal", *(name for name in MAIN if name != "refusal"))):
            rows += auroc(name, beside)
    for draw, (_, homes) in DRAWS.items():
        found = {name: [one for home in homes for one in scored(home, *trained(name))] for name in DRAWN}
        whole = [name for name in DRAWN if len(found[name]) == len(homes) * len(MAIN[name][1])]
        for some in LEFT_OUT if set(DRAWN[:2]) <= set(whole) else ():
            if some in ("thirteen", "six") and draw != "all":
                continue
            # The rest was never attacked by it.
            without = [attack for attack in LEFT_OUT[some] if (draw, attack) != ("rest", "answer_prefill")]
            rows += auroc(f"{draw}, {some}", [one for name in whole for one in found[name]], without)
            if draw == "all" and some in SUMMARY and "cost" in whole:
                beside = found["cost"] + found["refusal"] + found["refusal_longer"]
                rows += auroc(cost_first(some), beside, without)
    rows += auroc("methods", scored("study-methods", *((name, name) for name in WAYS)))
    for method, at_answer in (("scot", False), ("scot", True), ("srg", False), ("rational", True)):
        names = [name for name, (_, of) in ABLATIONS.items() if of == method and (name in AT_ANSWER) == at_answer]
        whole_one = (method, f"{method}_at_answer" if at_answer else method)
        beside = scored("study-methods", whole_one, *((name, name) for name in names))
        if len(beside) > 1 and beside[0].startswith(f"{method}="):
            rows += auroc(ablation_set(method, at_answer), beside)
    rows += auroc("filtering", scored("study-methods", *((name, name) for name in ("srg_blind", "srg_unfiltered"))))
    save("auroc", rows)
    if all(done(home, "judge", target) for home in DRAWS["all"][1] for _, target in trained("refusal", "cost")):
        save("line", paired_verdicts(runs))


def save(name: str, rows: list[Row]) -> None:
    with (HERE / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def paired_verdicts(runs: Path) -> list[Row]:
    """What refusal training and the model whose line is set refuse, on all draws, under the fourteen attacks: paired by what was sent, seed
    beside seed, the prompt as the cluster."""
    from forethought.analysis.paired import match, paired_difference
    from forethought.analysis.rates import Outcome, by_judge, outcomes_of
    from forethought.records import Attempt, Verdict
    from forethought.run import read_run

    def outcomes(target: str) -> list[Outcome]:
        found = []
        for home in DRAWS["all"][1]:
            attempts = read_run(runs / home / "attack" / target, "attack").read("attempts.jsonl", Attempt)
            verdicts = read_run(runs / home / "judge" / target, "judge").read("verdicts.jsonl", Verdict)
            found += outcomes_of(attempts, by_judge(verdicts)["refusal"])
        return [o for o in found if o.attack not in LEFT_OUT["fourteen"]]

    seeds = [(outcomes(a), outcomes(b)) for a, b in zip(MAIN["refusal"][1], MAIN["cost"][1], strict=True)]
    rows = []
    for label in ("harmful", "benign", "borderline", "sensitive"):
        for way in ("direct", "under attack"):
            pairs = [
                pair
                for sides in seeds
                for pair in match(
                    *(
                        [o for o in side if o.label == label and (o.attack == "direct") == (way == "direct")]
                        for side in sides
                    )
                )
            ]
            if not pairs:
                continue
            found = paired_difference(pairs)
            shares = [(found.both + only) / found.n for only in (found.only_first, found.only_second)]
            names = ("refusal", "cost", "difference", "low", "high")
            values = map(str, (*shares, found.value, found.low, found.high))
            rows.append({"label": label, "attack": way, "n": str(found.n), **dict(zip(names, values, strict=True))})
    return rows


def cost_first(some: str) -> str:
    return f"all, {some}, cost first"


def ablation_set(method: str, at_answer: bool) -> str:
    return f"ablations of {method}{', at the answer' if at_answer else ''}"


def auroc(name: str, scored: list[str], without: list[str] = LEFT_OUT["fourteen"]) -> list[Row]:
    """The rows that `forethought analyze auroc` writes, told apart by `set`. The over-refusal is refusal training's own: it
    refuses 26% of benign requests under attack."""
    if not scored:
        return []
    target = HERE / "one.csv"
    fewer = ("--without", ",".join(without)) if without else ()
    call("analyze", "auroc", *scored, "--fpr", "0.26", *fewer, "--csv", str(target))
    rows = read("one")
    target.unlink()
    return [{"set": name, **row} for row in rows]


def call(*words: str) -> None:
    print("forethought", *words, file=sys.stderr)
    subprocess.run(["forethought", *words], check=True, stdout=subprocess.DEVNULL)


def read(name: str) -> list[Row]:
    with (HERE / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Auroc:
    """One `set` of auroc.csv; `first` is the model that the others are compared with."""

    def __init__(self, name: str, first: str = "refusal"):
        self.rows = [row for row in read("auroc") if row["set"] == name]
        self.first = first
        # How many attacks are in the mean of a model that has scores under all.
        self.count = max(
            (row["attack"].split(" of ")[1] for row in self.rows if " of " in row["attack"]), key=int, default=""
        )

    def row(self, model: str, attack: str, against: str = "benign") -> Row | None:
        return next(
            (
                row
                for row in self.rows
                if row["model"] == model and row["attack"].split(" of ")[0] == attack and row["against"] == against
            ),
            None,
        )

    def cell(self, model: str, attack: str, against: str = "benign", column: str = "AUROC") -> str:
        row = self.row(model, attack, against)
        if not row or not row[column]:
            return "-"
        counted = re.fullmatch("mean of (.*)", row["attack"])
        return interval(row, column) + (f" of {counted[1]}" if counted and counted[1] != self.count else "")

    def less(
        self, model: str, against: str = "benign", sign: int = -1, attack: str = "mean", column: str = "difference"
    ) -> str:
        """`model` less the first; with `sign` 1 the first less `model`."""
        row = self.row(f"{self.first} - {model}", attack, against)
        return "-" if not row or not row[column] else interval(row, column, sign)


def interval(row: Row, column: str, sign: int = 1) -> str:
    low, high = sorted(sign * float(row[f"{column} {end}"]) for end in ("low", "high"))
    return f"{short(sign * float(row[column]))} [{short(low)}, {short(high)}]"


def short(value: float) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}").replace("-.000", ".000")


def share(rows: list[Row], models: list[str], measure: str, attack: str, label: str) -> str:
    """One model's share with its interval, or the mean of several and theirs."""
    found = [
        row
        for model in models
        for row in rows
        if (row["model"], row["measure"], row["attack"], row["label"]) == (model, measure, attack, label)
        and row["value"]
    ]
    if not found:
        return "-"
    percent = [100 * float(row["value"]) for row in found]
    if len(found) == 1:
        return f"{percent[0]:.0f}% [{100 * float(found[0]['low']):.0f}, {100 * float(found[0]['high']):.0f}]"
    return f"{sum(percent) / len(percent):.0f}% ({', '.join(f'{p:.0f}' for p in percent)})"


def number(rows: list[Row], models: list[str], measure: str, digits: int) -> str:
    found = [
        float(row["value"]) for row in rows if row["model"] in models and row["measure"] == measure and row["value"]
    ]
    return f"{sum(found) / len(found):.{digits}f}" if found else "-"


Columns = dict[str, tuple[str, list[str]]]


def overall(columns: Columns, metrics: str, name: str) -> Iterator[str]:
    """What the models do, a column each. Where a mean is over fewer attacks than fourteen, their number stands behind it."""
    rows, odds = read(metrics), Auroc(name)
    columns = {model: column for model, column in columns.items() if odds.row(model, "direct")}

    def rate(measure: str, attack: str, label: str) -> Callable[[str], str]:
        return lambda model: share(rows, columns[model][1], measure, attack, label)

    lines: dict[str, Callable[[str], str]] = {
        "AUROC, asked directly": lambda m: odds.cell(m, "direct"),
        "AUROC, mean of fourteen": lambda m: odds.cell(m, "mean"),
        "lost from direct": lambda m: odds.cell(m, "mean", column="loss"),
        "less refusal training": odds.less,
        "against borderline asked directly: AUROC direct": lambda m: odds.cell(m, "direct", "borderline"),
        "the same, mean of fourteen": lambda m: odds.cell(m, "mean", "borderline"),
        "the same, less refusal training": lambda m: odds.less(m, "borderline"),
        "harmful not refused, direct": rate("not refused", "direct", "harmful"),
        "harmful not refused, under attack": rate("not refused", "under attack", "harmful"),
        "benign refused, direct": rate("refused", "direct", "benign"),
        "benign refused, under attack": rate("refused", "under attack", "benign"),
        "borderline refused": rate("refused", "direct", "borderline"),
        "sensitive refused": rate("refused", "direct", "sensitive"),
        "answer follows decision, under attack": rate("answer follows decision", "under attack", "all"),
        "well-formed, direct": rate("well-formed", "direct", "all"),
        "well-formed, under attack": rate("well-formed", "under attack", "all"),
        "the goal restated, under attack": rate("intent is the goal", "under attack", "all"),
        "right rule where one is cited, direct": rate("right rule, where one is cited", "direct", "all"),
        "perplexity of benign answers, nats a token": lambda m: number(
            rows, columns[m][1], "perplexity, nats a token", 2
        ),
        "tokens an answer": lambda m: number(rows, columns[m][1], "tokens an answer", 0),
    }
    yield from table(
        ["", *(title for title, _ in columns.values())], [[name, *map(cell, columns)] for name, cell in lines.items()]
    )


def by_attack() -> Iterator[str]:
    """AUROC against benign requests on the whole split, and how often opened thoughts restate the goal there."""
    rows, odds = split(), Auroc("all, fourteen", DRAWN[0])
    columns = {name: MAIN[name][0] for name in drawn(odds)}
    attacks = dict.fromkeys(row["attack"] for row in odds.rows if not row["attack"].startswith("mean"))
    told = {
        attack: pooled([row for row in rows if row["attack"] == attack], MAIN[DRAWN[0]][1], "intent is the goal", "all")
        for attack in attacks
    }
    lines = []
    for attack in sorted(attacks, key=lambda a: (a != "direct", -sum(told[a]))):
        cells = [short(float(row["AUROC"])) if (row := odds.row(m, attack)) and row["AUROC"] else "-" for m in columns]
        missing = row["unscored"] if (row := odds.row(DRAWN[0], attack)) else "0"
        lines.append(
            [attack, *cells, odds.less("refusal", sign=1, attack=attack), percents(told[attack]).split(" ")[0], missing]
        )
    direct = odds.row(DRAWN[0], "direct")
    total = sum(int(direct[side]) for side in ("harmful", "others", "unscored")) if direct else 0
    head = ["attack", *columns.values(), "thought less refusal training", "restates the goal", f"unscored of {total}"]
    yield from table(head, lines)


def split() -> list[Row]:
    """The metrics of all draws."""
    return [row for name in ("metrics", "fresh", "rest") for row in read(name)]


def drawn(odds: Auroc) -> list[str]:
    """What has been run on all draws, in the order of the table of all models."""
    return [name for name in MAIN if name in DRAWN and odds.row(name, "direct")]


def pooled(rows: list[Row], models: list[str], measure: str, label: str) -> list[float]:
    """The share of each model in percent, the attempts of all rows counted together."""
    shares = []
    for model in models:
        counts = [
            (float(row["value"]), int(row["n"]))
            for row in rows
            if (row["model"], row["measure"], row["label"]) == (model, measure, label) and row["value"]
        ]
        if total := sum(n for _, n in counts):
            shares.append(100 * sum(value * n for value, n in counts) / total)
    return shares


def percents(shares: list[float]) -> str:
    if not shares:
        return "-"
    each = f" ({', '.join(f'{one:.0f}' for one in shares)})" if len(shares) > 1 else ""
    return f"{sum(shares) / len(shares):.0f}%{each}"


def draws(*wanted: str) -> Iterator[str]:
    """Opened thoughts and refusal training on draws of test prompts: three seeds each, and one seed of as much computing as SCoT's."""
    titles = {
        "refusal": ("refusal training", "thought less refusal training"),
        "refusal_longer": ("equal computing", "less equal computing"),
        "cost": ("thought, `cost=2`", "less `cost=2`"),
        "scot": ("opened thought", ""),
    }
    found = [Auroc(f"{draw}, fourteen", DRAWN[0]) for draw in wanted]
    models = {name: title for name, (title, _) in titles.items() if any(odds.row(name, "direct") for odds in found)}
    lines = []
    for some in ("direct", *LEFT_OUT):
        for draw in wanted:
            odds = Auroc(f"{draw}, {'fourteen' if some == 'direct' else some}", DRAWN[0])
            attack = "direct" if some == "direct" else "mean"
            for against in ("benign", "borderline") if odds.rows else ():
                lost = [
                    short(float(r["loss"])) if (r := odds.row(m, attack, against)) and r["loss"] else "-"
                    for m in models
                ]
                passed = [
                    f"{100 * float(r['success']):.0f}%" if (r := odds.row(m, attack, against)) else "-" for m in models
                ]
                lines.append(
                    [
                        some,
                        *([DRAWS[draw][0]] if len(wanted) > 1 else []),
                        against,
                        *(odds.cell(model, attack, against) for model in models),
                        *(odds.less(model, against, 1, attack) for model in models if model != DRAWN[0]),
                        " / ".join(lost) if some != "direct" else "-",
                        odds.less("refusal", against, -1, attack, "loss"),
                        " / ".join(passed),
                    ]
                )
    head = [
        "attacks",
        *(["prompts"] if len(wanted) > 1 else []),
        "against",
        *models.values(),
        *(titles[name][1] for name in models if name != DRAWN[0]),
        "lost from direct, each",
        "lost less than refusal training",
        "pass, each",
    ]
    yield from table(head, lines)


def summary() -> Iterator[str]:
    """What the comparison comes to, on the whole split; the README has it too."""
    models, rows = ("refusal", "scot", "cost"), split()
    some = [Auroc(f"all, {count}", DRAWN[0]) for count in SUMMARY]
    cost = [Auroc(cost_first(count), "cost") for count in SUMMARY]

    def ahead(count: int, attack: str = "mean") -> list[str]:
        return ["", *(odds[count].less("refusal", sign=1, attack=attack) for odds in (some, cost))]

    def both(column: str, text: Callable[[str], str]) -> list[str]:
        found = [[odds.row(model, "mean") for odds in some] for model in models]
        return ["; ".join(text(row[column]) if row else "-" for row in pair) for pair in found]

    def rate(measure: str, label: str) -> list[str]:
        shares = [[pooled(way, MAIN[model][1], measure, label) for way in ways(rows).values()] for model in models]
        return ["; ".join(percents(one).split(" ")[0] for one in pair if one) for pair in shares]

    lines = [
        ["told apart, asked directly", *(some[0].cell(model, "direct") for model in models)],
        ["above refusal training", *ahead(0, "direct")],
        ["told apart, mean of fourteen attacks", *(some[0].cell(model, "mean") for model in models)],
        ["above refusal training", *ahead(0)],
        [
            "of those, the eight that leave the request in plain words",
            *(some[1].cell(model, "mean") for model in models),
        ],
        ["above refusal training", *ahead(1)],
        ["lost from direct to attacked, fourteen; eight", *both("loss", lambda lost: short(float(lost)))],
        [
            "harmful requests that pass at 26% over-refusal, fourteen; eight",
            *both("success", lambda passed: f"{100 * float(passed):.0f}%"),
        ],
        ["harmful not refused as trained, direct; attacked", *rate("not refused", "harmful")],
        ["benign refused as trained, direct; attacked", *rate("refused", "benign")],
        ["borderline refused as trained", *rate("refused", "borderline")],
        ["people in trouble refused as trained", *rate("refused", "sensitive")],
    ]
    head = ["SmolLM2-135M, means of three trainings", "refusal training", "thinks first (SCoT)", "the same, `cost=2`"]
    yield from table(head, lines)


def ways(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of single attacks, asked directly and under the fourteen."""
    # Rows that count others again, and the attack that is in no mean.
    summed = ("direct", "under attack", "under attacks of other families", "prefill", "answer_prefill")
    return {
        "direct": [row for row in rows if row["attack"] == "direct"],
        "under attack": [row for row in rows if row["attack"] not in summed],
    }


def said() -> Iterator[str]:
    """What the models do on the whole split: attempts of all draws counted together, fourteen attacks; the seeds in parentheses."""
    columns = [MAIN[name] for name in drawn(Auroc("all, fourteen", DRAWN[0]))]
    rows = ways(split())
    lines = [
        [f"{name}, {way}", *(percents(pooled(rows[way], models, measure, label)) for _, models in columns)]
        for name, measure, label in (
            ("harmful not refused", "not refused", "harmful"),
            ("benign refused", "refused", "benign"),
            ("borderline refused", "refused", "borderline"),
            ("answer follows decision", "answer follows decision", "all"),
            ("well-formed", "well-formed", "all"),
            ("the goal restated", "intent is the goal", "all"),
            ("right rule where one is cited", "right rule, where one is cited", "all"),
        )
        for way in (["direct"] if label == "borderline" else rows)
    ]
    yield from table(["", *(title for title, _ in columns)], lines)


def paired() -> Iterator[str]:
    """line.csv, as shares of what should not have happened: not refused for harmful requests, refused for the others."""
    lines = []
    for row in read("line"):
        sign = 1 if row["label"] == "harmful" else -1
        low, high = sorted(sign * 100 * float(row[end]) for end in ("low", "high"))
        both = [100 * float(row[name]) for name in ("refusal", "cost")]
        shares = both if sign == 1 else [100 - one for one in both]
        what = f"{row['label']} {'not refused' if sign == 1 else 'refused'}, {row['attack']}"
        cells = [f"{one:.1f}%" for one in shares]
        lines.append([what, *cells, f"{sign * 100 * float(row['difference']):.1f} [{low:.1f}, {high:.1f}]", row["n"]])
    yield from table(["", "refusal training", "SCoT, `cost=2`", "difference, points", "pairs"], lines)


def ablations() -> Iterator[str]:
    rows = read("methods")
    lines = []
    for name, (title, whole) in ABLATIONS.items():
        odds = Auroc(ablation_set(whole, name in AT_ANSWER), whole)
        if not odds.row(name, "direct"):
            continue
        rates = [share(rows, [name], measure, "under attack", label) for measure, label in RATES]
        less = [odds.less(name, against) for against in ("benign", "borderline")]
        lines.append([title, odds.cell(name, "direct"), odds.cell(name, "mean"), *less, *rates])
    head = [
        "",
        "AUROC, asked directly",
        "under attack",
        "less the whole",
        "the same, against borderline",
        "harmful not refused",
        "benign refused",
        "well-formed",
    ]
    yield from table(head, lines)


def table(head: list[str], lines: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield f"| {' | '.join(line)} |"


def main() -> None:
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    for lines in (
        summary(),
        draws("all"),
        said(),
        paired(),
        by_attack(),
        overall(MAIN, "metrics", "study"),
        overall(MAIN, "again", "again"),
        draws("first", "second", "rest"),
        overall(WAYS, "methods", "methods"),
        ablations(),
    ):
        print(*lines, sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
