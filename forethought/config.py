"""Strict configuration: experiment files, `key=value` overrides, and errors that name the key at fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from forethought.errors import ForethoughtError, nearest
from forethought.records import Label, Record, Sampling
from forethought.registry import read_value

M = TypeVar("M", bound=BaseModel)
Dtype = Literal["float32", "bfloat16"]


class DataConfig(Record):
    """Where prompts come from. `take` draws at most that many of each label, the same ones for the same seed, from what a `take` of
    `skip` leaves: a second draw that shares no prompt with the first. `more` holds further sources whose prompts come after these."""

    source: str = "starter"
    path: str | None = None
    split: Literal["train", "extra", "validation", "test"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    values: dict[str, str] = Field(default_factory=dict)
    take: dict[Label, Annotated[int, Field(ge=0)]] | None = None
    skip: dict[Label, Annotated[int, Field(ge=0)]] | None = None
    more: tuple[DataConfig, ...] = ()


class ModelConfig(Record):
    """A model and how it is deployed. `name` is `smollm2`, `hf:ID`, `openai:MODEL@URL`, `scripted:FILE`, or a training run.
    A server gets at most `concurrency` requests at once, which is no part of what a run is: it may go on with another number. With `think`
    the chat template opens the thought, so that it cannot be talked out of thinking: a local model's is made to, a server's does so.
    `trained` is the training run that a served or merged model comes from, for the report to know what it was trained on."""

    name: str
    system: str | None = None
    dtype: Dtype = "float32"
    concurrency: int = Field(default=32, ge=1, exclude=True)
    think: bool = False
    trained: str | None = None


class Budget(Record):
    """What a paid server may cost, in `tokens` (prompt and reply together) or `money`; prices are per million tokens, in your currency."""

    tokens: int | None = Field(default=None, ge=1)
    money: float | None = Field(default=None, gt=0)
    price_in: float = Field(default=0.0, ge=0)
    price_out: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _caps_something(self) -> Budget:
        unpriced = self.money is not None and not self.price_in + self.price_out
        if unpriced or (self.tokens is None and self.money is None):
            raise ValueError(
                "a budget caps tokens, or money with prices: tokens=200000, or money=5,price_in=0.5,price_out=1.5"
            )
        return self


class SynthConfig(Record):
    """A data set to synthesize. `method` is a line of `forethought synth --list`, options in brackets.

    `teacher` writes the reasoning (default: the model that is trained), `helper` rewrites questions and rates answers (default: the
    teacher), `guard` says whether an answer is safe (default: nobody). `dtype` is that of local models.

    `import:FORM` takes ready examples from the file `path` instead; `label` is for rows of it that have none.
    """

    method: str
    prompts: str = "train"
    path: str | None = None
    label: Label | None = None
    dtype: Dtype = "float32"
    teacher: str | None = None
    guard: str | None = None
    helper: str | None = None
    budget: Budget | None = None

    @model_validator(mode="after")
    def _made_or_read(self) -> SynthConfig:
        if self.form is None and (self.path or self.label):
            raise ValueError("path and label are for method: import:FORM, which takes ready examples from a file")
        if self.form is not None and not self.path:
            raise ValueError(f"{self.method} needs path, the file that holds the examples")
        asked = [name for name in ("teacher", "guard", "helper", "budget") if getattr(self, name)]
        if self.form is not None and asked:
            raise ValueError(f"{self.method} asks no model: leave {asked[0]} out")
        return self

    @property
    def form(self) -> str | None:
        """The form of ready examples; None where examples are made."""
        kind, _, form = self.method.partition(":")
        return form if kind == "import" else None


# What a method's paper sets, where the configuration leaves it open. DPO's are ours, and so are R2D2's steps (its paper: 2,000).
METHOD_DEFAULTS: dict[str, dict[str, float]] = {
    "circuit_breaker": {"steps": 150, "learning_rate": 1e-4},
    "lat": {"steps": 100, "learning_rate": 2e-5},
    "r2d2": {"steps": 500, "learning_rate": 2e-5},
    "dpo": {"epochs": 1, "learning_rate": 5e-5},
}


class TrainConfig(Record):
    """A model to train on the synthesis `data`, only on prompts that those in `match` kept too.

    `method` is a line of `forethought train --list`, its options in brackets; `init` an earlier training run to start from. `steps`
    wins over `epochs`. `batch_size` is rows an optimizer step (pairs, where a method learns from pairs), over all processes, and
    `rows_per_forward` how many of them one process reads at once. `pairing` puts a row that is to be refused beside every other
    one, the shorter side repeated. `lora_rank` 0 trains all weights; `validation` is the share of rows (whole topics) held out for
    the validation loss; `warmup` is a share of the steps; tokens that state the decision weigh `decision_weight` in the loss (on small
    data the decision is a few tokens among many and gets lost). It and `pairing` are for what learns rows as they are (sft, refusal);
    other methods refuse them. `seed` is the run's own where trainings of one experiment differ in it.
    """

    data: str | None = None
    match: tuple[str, ...] = ()
    method: str = "sft"
    init: str | None = None
    epochs: float = Field(default=2, gt=0)
    steps: int | None = Field(default=None, ge=1)
    decision_weight: float = Field(default=1.0, gt=0)
    pairing: bool = False
    learning_rate: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=16, ge=1)
    rows_per_forward: int = Field(default=8, ge=1)
    lora_rank: int = Field(default=32, ge=0)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    warmup: float = Field(default=0.03, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=1024, ge=1)
    validation: float = Field(default=0.05, ge=0, lt=1)
    save_steps: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    dtype: Dtype = "float32"
    seed: int | None = None

    @model_validator(mode="after")
    def _heeded(self) -> TrainConfig:
        method = self.method.partition("(")[0].strip()
        if method == "lat" and self.gradient_checkpointing:
            raise ValueError(
                "lat cannot recompute a forward after its perturbation is gone. Leave gradient_checkpointing off; lower rows_per_forward"
            )
        if method in METHOD_DEFAULTS and (self.pairing or self.decision_weight != 1):
            name = "pairing" if self.pairing else "decision_weight"
            raise ValueError(f"{method} has a loss of its own, in which {name} has no part: leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_method(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        own = METHOD_DEFAULTS.get(str(raw.get("method", "")).partition("(")[0].strip(), {})
        given = {"epochs", "steps"} if {"epochs", "steps"} & raw.keys() else set()
        return {key: value for key, value in own.items() if key not in given} | raw


class AttackConfig(Record):
    """Which attacks to run on which prompts. Attacks apply to `labels`; prompts of other labels are asked directly.

    `attacker` writes for the attacks that need one: a model, or `target` for the target itself without its system prompt. `helper` grades
    inside attacks (default: the attacker). `samples` replies are drawn to everything that is sent, so the temperature must be above 0
    for more than one. `few` names attacks that are made on so many prompts of a label only, the same ones for every model: those that
    cost much. A local attacker or helper computes in `dtype`. `budget` caps what the servers of one target's attacks cost, and is
    no part of what a run is.
    """

    prompts: str = "test"
    attacks: tuple[str, ...] = ("direct",)
    attacker: str | None = None
    helper: str | None = None
    labels: tuple[Label, ...] = ("harmful", "benign")
    sampling: Sampling = Sampling()
    samples: int = Field(default=1, ge=1)
    few: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    dtype: Dtype = Field(default="float32", exclude=True)
    budget: Budget | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _samples_differ(self) -> AttackConfig:
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are one reply: set a temperature, such as 1.0")
        if unknown := [name for name in self.few if name not in self.attacks or name == "direct"]:
            raise ValueError(f"few names '{unknown[0]}', which is none of the attacks here, or the direct request")
        return self

    @property
    def on_few(self) -> str:
        """The attacks made on few prompts, as the end of a sentence on how many there are."""
        return "".join(f", {attack} on {n} of each label" for attack, n in self.few.items())


class JudgeConfig(Record):
    """Which judges speak on every attempt. `model` is behind those that ask one; `models` names another for some (`judge: model`).
    Local ones compute in `dtype`. `budget` caps what servers cost for one target."""

    judges: tuple[str, ...] = ("refusal",)
    model: str | None = None
    models: dict[str, str] = Field(default_factory=dict)
    dtype: Dtype = "float32"
    budget: Budget | None = None


class ScoreConfig(Record):
    """Log-odds of refusing for every attempt: AUROC in the report. `samples` thoughts a request, drawn at `temperature` if
    more than one; `at` the decision, models that think are looked at where their thought decides. Both are for targets that think: of
    others the answer's beginning is scored, once."""

    at: Literal["answer", "decision"] = "answer"
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_place(self) -> ScoreConfig:
        if self.at == "decision" and self.samples > 1:
            raise ValueError("at the decision every way to decide is scored: leave samples out")
        return self


class CausalConfig(Record):
    """Answers written anew after changed thoughts, of targets that think: `take` attempts an attack and label, by judges that ask no
    model."""

    take: int = Field(default=24, ge=1)
    judges: tuple[str, ...] = ("refusal",)
    max_tokens: int | None = Field(default=None, ge=1)


class DivergenceConfig(Record):
    """Hidden states of every attempt, of `take` requests a label (None: all)."""

    take: int | None = Field(default=None, ge=1)


class AnalyzeConfig(Record):
    """Analyses of every target beyond scores; each is made where its section is given, `{}` for its defaults."""

    causal: CausalConfig | None = None
    divergence: DivergenceConfig | None = None


class CapabilityConfig(Record):
    """Tasks that show what a model can still do: lines of `forethought capability --list`, with `take` questions of each."""

    tasks: tuple[str, ...]
    take: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=512, ge=1)


class Experiment(Record):
    """A whole pipeline: data, then synthesis, training, attacks on every target, judging (and scores, analyses and capability, where their
    sections are given), one report that compares every target with the first.

    `evaluation` names data sets that must never be trained on, besides that of the attacks; where training data holds them in any
    form, `leaks` says whether to stop or to drop those rows. `launch` names an `accelerate` configuration (`multi_gpu`, `fsdp`,
    `deepspeed_zero3`, or a file) that trains in several processes. Each model behind a server gets at most `concurrency` requests at
    once, where a target names no number of its own.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    about: str = ""
    seed: int = 0
    model: str = "smollm2"
    policy: str = "default"
    data: dict[str, DataConfig]
    evaluation: tuple[str, ...] = ()
    leaks: Literal["stop", "drop"] = "stop"
    launch: str | None = None
    concurrency: int = Field(default=32, ge=1)
    synth: dict[str, SynthConfig] = Field(default_factory=dict)
    train: dict[str, TrainConfig] = Field(default_factory=dict)
    targets: dict[str, ModelConfig]
    attack: AttackConfig = AttackConfig()
    judge: JudgeConfig = JudgeConfig()
    score: ScoreConfig | None = None
    analyze: AnalyzeConfig = AnalyzeConfig()
    capability: CapabilityConfig | None = None


def find_experiment(name: str) -> Path:
    """The file of that path, or the shipped experiment of that name."""
    return _find("experiment", name, "")


def find_launch(name: str) -> Path:
    """The file of that path, or the shipped `accelerate` configuration of that name."""
    return _find("accelerate configuration", name, "accelerate")


def _find(kind: str, name: str, folder: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    package = Path(__file__).parent
    folders = [f / folder for f in (package / "experiments", package.parent / "experiments") if f.is_dir()]
    shipped = {p.stem: p for f in folders for p in sorted(f.glob("*.yaml"))}
    if name not in shipped:
        raise ForethoughtError(f"no {kind} '{name}': neither a file nor a shipped one.{nearest(name, shipped)}")
    return shipped[name]


def load_experiment(path: str | Path, overrides: list[str]) -> Experiment:
    """Read an experiment file and apply `a.b=value` overrides. Raises ForethoughtError for any unknown key or bad value."""
    path = Path(path)
    raw = read_yaml(path, path.read_bytes())
    if not isinstance(raw, dict):
        raise ForethoughtError(f"'{path}' is not an experiment: it must be a YAML mapping.")
    for override in overrides:
        apply_override(raw, override)
    return validated(Experiment, raw, f"'{path}'")


class _NoKeyTwice(yaml.SafeLoader):
    """YAML's safe loader, to which a key that comes twice is an error: else the first is dropped without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' comes twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(name: str | Path, text: bytes) -> Any:
    """What YAML makes of a file's bytes; ForethoughtError where it is not YAML, or not UTF-8."""
    try:
        return yaml.load(text.decode("utf-8"), Loader=_NoKeyTwice)
    except (yaml.YAMLError, ValueError) as error:  # The second: not UTF-8, or a date that there is not.
        raise ForethoughtError(f"'{name}' is not valid YAML: {' '.join(str(error).split())}") from error


def only(experiment: Experiment, targets: Sequence[str]) -> Experiment:
    """The experiment with these targets alone, in this order, and the trainings and syntheses that they are made from.

    Raises ForethoughtError for a target that there is not.
    """
    for name in targets:
        if name not in experiment.targets:
            raise ForethoughtError(f"no target '{name}' in this experiment.{nearest(name, experiment.targets)}")
    kept = {name: experiment.targets[name] for name in targets}
    named = [name for t in kept.values() for name in (t.name, t.trained)]
    wanted = list(filter(None, (*named, experiment.attack.attacker, experiment.attack.helper)))
    trained: set[str] = set()
    while wanted:
        name = wanted.pop()
        if (config := experiment.train.get(name)) and name not in trained:
            trained.add(name)
            wanted += [config.init] if config.init else []
    train = {name: config for name, config in experiment.train.items() if name in trained}
    made = {source for config in train.values() for source in (config.data, *config.match)}
    synth = {name: config for name, config in experiment.synth.items() if name in made}
    return experiment.model_copy(update={"targets": kept, "train": train, "synth": synth})


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key of a nested mapping in place: `train.scot.epochs=1`. Values are read as YAML."""
    key, eq, value = override.partition("=")
    if not eq or not key:
        raise ForethoughtError(f"cannot read override '{override}'. Write key=value, for example seed=1.")
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ForethoughtError(f"cannot override '{key}': '{parent}' holds a value, not keys.")
        node = child
    node[last] = read_value(value)


def validated(kind: type[M], raw: Any, where: str = "") -> M:
    """`raw` as a record of `kind`; ForethoughtError, behind `where`, names the first field at fault."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        said = describe_validation(error, kind)
        raise ForethoughtError(f"{where}: {said}" if where else said) from error


def describe_validation(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong, in one line: where, what value, and the nearest known key if the key is unknown."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}'.{nearest(str(first['loc'][-1]), _keys_at(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"'{where}' is missing."
    got = repr(first["input"])
    return f"'{where or 'the whole'}': {first['msg']} (got {got if len(got) <= 80 else got[:77] + '...'})."


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model found by walking `loc` through nested fields; list and mapping keys are stepped over."""
    current = model
    for part in loc:
        if isinstance(part, str) and part in current.model_fields:
            annotation: Any = current.model_fields[part].annotation
            nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
            if nested:
                current = nested[0]
    return list(current.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
