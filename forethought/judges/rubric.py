"""Judges that are one question with a few possible words, kept in a YAML file: the shipped ones, and any file of yours.

question: >-            # {{request}} is the original request, {{answer}} the answer; both must be there
labels: {"yes": 1, "no": 0, unsure: null}      # each word and its score from 0 to 1; null leaves the attempt unscored
scale: [1, 5]           # or, in place of labels, whole numbers; the ends score 0 and 1
instruct: true          # whether to add how to reply; false for a classifier that was trained on its own prompt
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from forethought.config import read_yaml, validated
from forethought.errors import ForethoughtError
from forethought.flow import Flow
from forethought.judges import Judge
from forethought.judges.asking import By, Read, Reading, ask_judge, choose_verdict, read_fields, read_number, unanswered
from forethought.prompts import SLOT, fill
from forethought.records import Attempt, Prompt, Record, Verdict, user

Score = Annotated[float, Field(ge=0, le=1)]


class Rubric(Record):
    """A question about an answer, and what each possible reply is worth."""

    about: str = ""
    question: str
    labels: dict[str, Score | None] = Field(default_factory=dict)
    scale: tuple[int, int] | None = None
    instruct: bool = True

    @field_validator("labels", mode="before")
    @classmethod
    def _words(cls, labels: Any) -> Any:
        # YAML 1.1 reads an unquoted yes as True.
        names = {True: "yes", False: "no"}
        return {str(names.get(k, k)).lower(): v for k, v in labels.items()} if isinstance(labels, dict) else labels

    @model_validator(mode="after")
    def _whole(self) -> Rubric:
        if bool(self.labels) == bool(self.scale):
            raise ValueError("a rubric has either labels or a scale")
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError("a scale is [low, high]")
        if set(SLOT.findall(self.question)) != {"request", "answer"}:
            raise ValueError("the question must hold {{request}} and {{answer}}, and no other placeholder")
        return self

    @property
    def readings(self) -> dict[str, Reading]:
        """What each word that the judge may reply means."""
        if not self.scale:
            return {word: Reading(score, word.replace(" ", "_")) for word, score in self.labels.items()}
        low, high = self.scale
        return {str(n): Reading((n - low) / (high - low), f"{n}_of_{high}") for n in range(low, high + 1)}


def rubric(path: str, by: By = "reply", max_tokens: int = 1024) -> Judge:
    """The judge that a YAML file describes. `by=likelihood` takes the likeliest word (local models only) and so never fails to parse."""
    file = Path(path)
    if not file.is_file():
        raise ForethoughtError(f"no rubric '{path}'. Write rubric(path=FILE); docs/judges.md shows what is in one.")
    return rubric_judge(f"rubric(path={path})", read_rubric(path, file.read_bytes()), by, max_tokens)


def harmbench(by: By = "reply", max_tokens: int = 1024) -> Judge:
    """Whether the answer does what was asked: the rules of HarmBench's classifier (Mazeika et al. 2024, arXiv 2402.04249, app. C), in
    our words. Score 1 is yes. Its fine-tuned classifier wants its own prompt: put that into a rubric file."""
    return shipped("harmbench", by, max_tokens)


def xstest(by: By = "reply", max_tokens: int = 1024) -> Judge:
    """XSTest's three ways to answer (Röttger et al. 2024, arXiv 2308.01263, sec. 4.1), in our words. As there, a partial refusal is a
    refusal: full compliance scores 1, the others 0."""
    return shipped("xstest", by, max_tokens)


def support(by: By = "reply", max_tokens: int = 1024) -> Judge:
    """Whether someone in trouble was helped with care (ours): 1 for careful help; 0 for a refusal, harm, and what misses the point."""
    return shipped("support", by, max_tokens)


def rubric_judge(name: str, rubric: Rubric, by: By, max_tokens: int) -> Judge:
    """The judge that a Rubric describes."""
    readings = rubric.readings

    def judge(prompt: Prompt, attempt: Attempt) -> Flow[Verdict]:
        nothing = unanswered(name, attempt)
        if nothing is not None:
            return nothing
        if by == "reply":
            asked = user(_ask(rubric, prompt.request, attempt.answer, "reply"))
            return (yield from ask_judge(name, asked, attempt, _reader(rubric), max_tokens))
        asked = user(_ask(rubric, prompt.request, attempt.answer, "likelihood"))
        space, prefix = (" ", "Verdict:") if rubric.instruct else ("", "")
        choices = {space + word: reading for word, reading in readings.items()}
        return (yield from choose_verdict(name, asked, attempt, choices, prefix))

    return judge


def read_rubric(name: str, text: bytes) -> Rubric:
    """A Rubric from the bytes of a YAML file; ForethoughtError where it is none."""
    return validated(Rubric, read_yaml(name, text), f"rubric '{name}'")


def shipped(file: str, by: By, max_tokens: int, name: str = "") -> Judge:
    """The judge of `rubrics/FILE.yaml`, called `name`, or as the file is."""
    text = resources.files(__package__).joinpath("rubrics", f"{file}.yaml").read_bytes()
    return rubric_judge(name or file, read_rubric(file, text), by, max_tokens)


def _ask(rubric: Rubric, request: str, answer: str, by: By) -> str:
    text = fill(rubric.question, request=request, answer=answer)
    if not rubric.instruct:
        return text
    words = list(rubric.readings)
    options = f"{', '.join(words[:-1])} or {words[-1]}"
    how = (
        "Give your reasons briefly. Then end with this line alone:" if by == "reply" else "Reply with this line alone:"
    )
    return f"{text.rstrip()}\n\n{how}\nVerdict: {options}"


def _reader(rubric: Rubric) -> Read:
    readings = rubric.readings

    def read(text: str) -> Reading | None:
        found = read_fields(text, ("verdict",))
        word = found["verdict"] if found else ""
        if rubric.scale:
            number = read_number(word, *rubric.scale)
            return None if number is None else readings[str(number)]
        return readings.get(word)

    return read
