"""The target that a bundle was scored on, from the local data."""

from pathlib import Path

from bench import BenchError
from bench.spec import Protocol
from bench.targets import Target, open_target
from bench.targets.card import TargetCard
from bench.targets.mapping import map_target
from results.record import RunRecord


def target_of(record: RunRecord, protocol: Protocol, data: Path, card: TargetCard) -> Target:
    """Open the record's target. card: its own.

    Raises:
        BenchError: the data cannot be used, or are not the files that the record was scored on.
    """
    target = map_target(open_target(card, data), protocol.class_map)
    if target.content_hash != record.target_hash:
        raise BenchError(
            f"{record.target} in {data} has other files than the bundle was scored on: its content hash differs"
        )
    return target
