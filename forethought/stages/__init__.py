"""One function a command: each reads finished runs and writes a new one. The wiring, and nothing else."""

from forethought.stages.applicable import not_for
from forethought.stages.attacking import attack
from forethought.stages.calibrating import calibrate_judges
from forethought.stages.capability import capability, harness
from forethought.stages.diverging import diverge, read_looks, recompute
from forethought.stages.importing import import_attempts
from forethought.stages.intervening import causal
from forethought.stages.judging import judge
from forethought.stages.scoring import score
from forethought.stages.shared import LOADED, unload, weights_of
from forethought.stages.synthesis import import_data, synth
from forethought.stages.training import merge, read_examples, train

__all__ = [
    "LOADED",
    "attack",
    "calibrate_judges",
    "capability",
    "causal",
    "diverge",
    "harness",
    "import_attempts",
    "import_data",
    "judge",
    "merge",
    "not_for",
    "read_examples",
    "read_looks",
    "recompute",
    "score",
    "synth",
    "train",
    "unload",
    "weights_of",
]
