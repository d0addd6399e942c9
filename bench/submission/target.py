"""The target that a bundle was scored on, from the data at hand."""

from pathlib import Path

from bench import BenchError
from bench.spec import Protocol
from bench.targets import Target, open_target
from bench.targets.mapping import map_target
from results.record import RunRecord


def target_of(record: RunRecord, protocol: Protocol, data: Path) -> Target:
    """The record's target.

    Raises:
        BenchError: the data cannot be used, or are other files than those that the record was scored on.
    """
    target = map_target(open_target(record.target, data), protocol.class_map)
    if target.content_hash != record.target_hash:
        raise BenchError(
            f"{record.target} in {data} is not the {record.target} that the bundle was scored on: its content hash differs"
        )
    return target
