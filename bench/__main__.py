"""`python -m bench [server|synth|decode|system|attack|train|all] [--quick]`: each in a process of its own, then docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

SECTIONS = ("server", "synth", "decode", "system", "attack", "train")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("section", nargs="?", default="all", choices=(*SECTIONS, "all", "page"))
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works; writes no page")
    arguments = parser.parse_args()
    if arguments.section == "page":
        importlib.import_module("bench.page").main()
    elif arguments.section != "all":
        importlib.import_module(f"bench.{arguments.section}").main(arguments.quick)
    else:
        for section in SECTIONS:
            subprocess.run(
                [sys.executable, "-m", "bench", section, *(["--quick"] if arguments.quick else [])], check=True
            )
        if not arguments.quick:
            importlib.import_module("bench.page").main()


if __name__ == "__main__":
    main()
