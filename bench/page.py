"""docs/benchmarks.md from the results of the sections: nothing in it is written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.common import RESULTS

PAGE = Path("docs/benchmarks.md")
INTRO = """# Benchmarks

Written by `make bench`; do not edit. Forethought beside what one would use without it: same work, same run, same machine, every contender
in a process of its own. Rates above 1x are in our favour. The code is `bench/`; one section again: `python -m bench {sections}`.
"""


def main() -> None:
    sections = {"server": server, "synth": synth, "decode": decode, "system": system, "attack": attack, "train": train}
    found = {n: json.loads(p.read_text(encoding="utf-8")) for n in sections if (p := RESULTS / f"{n}.json").exists()}
    found = {name: result for name, result in found.items() if not result["quick"]}
    if not found:
        raise SystemExit("bench: no full results. Run `make bench`, or one section: `python -m bench decode`.")
    missing = [name for name in sections if name not in found]
    parts = [INTRO.replace("{sections}", "|".join(sections))]
    for name, result in found.items():
        about = {k: v for k, v in result["machine"].items() if k != "load before"}
        parts.append(sections[name](result))
        parts.append(f"({result['date']}; " + ", ".join(f"{k}: {v}" for k, v in about.items()) + ")\n")
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE}")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(c) for c in line) + " |\n" for line in lines)


def times(a: float, b: float) -> str:
    return f"{a / b:.2f}x"


def beside(own: dict[str, Any], contenders: dict[str, dict[str, Any]]) -> str:
    """A table of replies' tokens: ours, then others by name."""
    rows = [["ours", own["tokens"], own["seconds"], own["rate"], "", own["peak_mib"]]]
    for name, v in contenders.items():
        rows.append([name, v["tokens"], v["seconds"], v["rate"], times(own["rate"], v["rate"]), v["peak_mib"]])
    return table(["", "tokens", "seconds", "tokens/s", "ours is faster", "peak MiB"], rows)


def server(r: dict[str, Any]) -> str:
    out = ["## Synthesis over a server\n"]
    for name in ("100 ms", "at once"):
        part = r[name]
        ours, bare = part["ours"], part["bare"]
        out.append(
            f"A stand-in server that takes {part['latency'] * 1000:.0f} ms an answer, {r['concurrency']} at once; "
            f"{part['prompts']} prompts, one ask each. "
            "`synth` includes the search for near-duplicates, checks, the reply cache, records, statistics and the card.\n"
        )
        rows = [
            ["bare httpx client", bare["rate"], ""],
            ["`synth`, all of it", ours["rate"], times(ours["rate"], bare["rate"])],
            ["`synth`, first ask to last reply", ours["asking"], times(ours["asking"], bare["rate"])],
        ]
        out.append(table(["", "prompts/s", "against bare"], rows))
        held = ", ".join(f"{n}: {m} MiB" for n, m in ours["memory"].items())
        out.append(
            f"Before the first ask {ours['before']} s, after the last reply {ours['after']} s. "
            f"Memory after so many prompts: {held}; peak {ours['peak_mib']} MiB.\n"
        )
    return "\n".join(out)


def synth(r: dict[str, Any]) -> str:
    own, best = r["ours"], r["static best"]["seconds"]
    rows = [["`" + r["method"] + "`", own["seconds"], "", own["peak_mib"]]]
    for key in ("static texts", "static choices"):
        rows += [[f"{key}, {size} rows", v["seconds"], "", v["peak_mib"]] for size, v in r[key].items()]
    rows.append(["best static, texts + choices", best, times(best, own["seconds"]), ""])
    return (
        f"## Synthesis on the embedded model\n\n{own['prompts']} prompts gave {own['examples']} examples by {own['texts']} texts and "
        f"{own['choices']} choices. The same asks, known beforehand, in static batches of plain transformers, sorted:\n\n"
        + table(["", "seconds", "ours is faster", "peak MiB"], rows)
    )


def decode(r: dict[str, Any]) -> str:
    own = r["ours"]
    rows = [["ours", own["tokens"], own["seconds"], own["rate"], "", own["peak_mib"]]]

    def line(name: str, v: dict[str, Any]) -> list[Any]:
        if "skipped" in v:
            return [name, f"not run: {v['skipped']}", "", "", "", ""]
        return [name, v["tokens"], v["seconds"], v["rate"], times(own["rate"], v["rate"]), v["peak_mib"]]

    rows.append(line("ours, bfloat16", r["ours, bfloat16"]))
    for key, share in (("static, as they come", " (a quarter of the asks)"), ("static, sorted", "")):
        rows += [line(f"`generate`, {key}, {size} rows{share}", v) for size, v in r[key].items()]
    rows.append(line(f"`generate`, one by one ({r['one by one']['share']} of the asks)", r["one by one"]))
    rows.append(line("CTranslate2", r["ctranslate2"]))
    top = r["ceiling"]
    most = f"ceiling: {top['gflops']} GFLOP/s of products alone"
    rows.append([most, "", "", top["rate"], times(own["rate"], top["rate"]), ""])
    return (
        f"## Decoding\n\n{r['asks']} asks of mixed lengths ({own['prompt_tokens']} prompt tokens; limits of 8 to 256 tokens), "
        "SmolLM2-135M, float32, greedy:\n\n"
        + table(["", "tokens", "seconds", "tokens/s", "ours is faster", "peak MiB"], rows)
    )


def system(r: dict[str, Any]) -> str:
    own = r["ours"]
    contenders = {"ours, without the system prompt": r["without"]}
    contenders |= {f"`generate`, static, sorted, {n} rows (a quarter of the asks)": v for n, v in r["static"].items()}
    return (
        f"## Decoding under a long system prompt\n\n{r['asks']} asks under a system prompt of {r['words']} words (that of the method "
        "`prompt`), limits of 16 to 64 tokens, SmolLM2-135M, float32, greedy:\n\n" + beside(own, contenders)
    )


def attack(r: dict[str, Any]) -> str:
    own = r["ours"]
    contenders = {"ours, each request read whole": r["whole"]}
    contenders |= {f"`generate`, static, sorted, {n} rows (half of the prompts)": v for n, v in r["static"].items()}
    return (
        f"## Attacks\n\nThe attacks of `study.yaml` (without `answer_prefill`) on {r['prompts']} prompts, "
        f"{own['prompt_tokens']} prompt tokens, replies of at most 64, SmolLM2-135M, float32, greedy. "
        "Under some, requests begin with the attack's own words. The replies of both of ours are the same:\n\n"
        + beside(own, contenders)
    )


def train(r: dict[str, Any]) -> str:
    out = ["## Training\n"]
    for name in ("LoRA", "full"):
        part = r[name]
        own = part["ours"]
        out.append(
            f"{name}, {own['rows']} rows of {own['tokens']} tokens, {own['steps']} steps of {r['batch']} rows, one epoch:\n"
        )
        rows = [
            [k, v["rate"], v.get("loss", ""), "" if k == "ours" else times(own["rate"], v["rate"]), v["peak_mib"]]
            for k, v in part.items()
        ]
        out.append(table(["", "tokens/s", "mean loss", "ours is faster", "peak MiB"], rows))
    for key, title in (("rows", "share of the rows, in quarters"), ("batches", "rows a step")):
        rows = [[k, v["tokens"], v["seconds"], v["rate"], v["peak_mib"]] for k, v in r[key].items()]
        out.append(table([title, "tokens", "seconds", "tokens/s", "peak MiB"], rows))
    return "\n".join(out)
