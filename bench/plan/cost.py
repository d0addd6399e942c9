"""What a unit costs: about how many steps of work it is, and whose pace tells how long such a step takes."""

from bench.plan.units import CorpusUnit, PretrainUnit, TuneUnit, Unit
from bench.targets import Target
from pretrain_sources.hashing import fingerprint


def work_of(unit: Unit, target: Target) -> int:
    """About how many training steps it is worth; predicting and scoring a frame costs about one, and so does a mask pass."""
    if isinstance(unit, CorpusUnit):
        return unit.images
    if isinstance(unit, PretrainUnit):
        return unit.steps or 1
    most = unit.protocol.max_frames
    frames = {split: min(len(found), most or len(found)) for split, found in target.splits.items()}
    if isinstance(unit, TuneUnit):
        return unit.protocol.trials * (unit.steps + frames[unit.protocol.select_on])
    return unit.steps + frames["test"]


def paced_by(unit: Unit) -> str:
    """Key for averaging run times, besides the kind: the teacher that a corpus asks (its fingerprint), else the backbone."""
    return fingerprint(unit.teacher) if isinstance(unit, CorpusUnit) else unit.backbone.name
