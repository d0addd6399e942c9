"""Cost of units: estimated steps of work, and the key for averaging run times."""

from bench.plan.units import CorpusUnit, PretrainUnit, Reconstructed, TuneUnit, Unit
from bench.spec import Protocol
from bench.targets import Target
from pretrain_sources.hashing import fingerprint
from results.record import TEST


def work_of(unit: Unit, target: Target) -> int:
    """Estimate the work in training steps; predicting and scoring a frame counts as one, and so does a mask pass."""
    if isinstance(unit, CorpusUnit):
        return unit.images
    if isinstance(unit, PretrainUnit):
        return unit.steps or 1
    frames = frames_of(unit.protocol, target)
    if isinstance(unit, TuneUnit):
        return unit.protocol.trials * unit.protocol.tune_replicates * (unit.steps + frames[unit.protocol.select_on])
    return unit.steps + sum(frames[split] for split in (TEST, *target.further))


def frames_of(protocol: Protocol, target: Target) -> dict[str, int]:
    """Return split -> number of its frames that the protocol uses."""
    most = protocol.max_frames
    return {split: min(len(members), most or len(members)) for split, members in target.splits.items()}


def paced_by(unit: Unit) -> str:
    """Key for averaging run times, besides the kind: the fingerprint of a corpus's teacher, else the backbone.

    A step without labels has a lighter head, so it has a key of its own.
    """
    if isinstance(unit, CorpusUnit):
        return fingerprint(unit.teacher)
    masks = isinstance(unit, PretrainUnit) and isinstance(unit.weights, Reconstructed)
    return f"{unit.backbone.name}, simmim" if masks else unit.backbone.name
