"""What a run costs: size and speed of its network, its memory, and the time of all that it was made from."""

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones.network import Network
from bench.plan.cost import work_of
from bench.plan.unit_folder import SPENT, folder_of
from bench.plan.units import FinalUnit, PretrainUnit, Unit
from bench.spec import Protocol
from bench.targets import Target
from bench.train import devices
from bench.train.batches import Decoded
from bench.train.loop import predict
from results.store import Store

TIMED = 8  # images, after one that is not counted
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux


class Meter:
    """Measures a stage from here on: time, processor time and peak memory of this process, or of its GPU."""

    def __init__(self, protocol: Protocol) -> None:
        self._device = devices.device_of(protocol)
        self._began, self._processor = time.monotonic(), time.process_time()
        self._resets = True
        if self._device.torch.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device.torch)
            return
        try:
            RESET.write_text("5")  # the peak begins anew: proc(5)
        except OSError:
            self._resets = False

    @property
    def processor_s(self) -> float:
        """Processor seconds so far: CPU time of all threads, or on a GPU the time since the beginning."""
        since = time.monotonic() - self._began if self._device.is_gpu else time.process_time() - self._processor
        return round(since, 2)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory so far; None where the system does not tell."""
        if self._device.torch.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device.torch))
        if not self._resets:
            return None
        with contextlib.suppress(OSError, ValueError):
            lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
            return int(lines.get("VmHWM", "").removesuffix("kB")) * 1024
        return None


def of_network(net: Network, frames: Sequence[Decoded], protocol: Protocol) -> dict[str, Any]:
    """Measure size and speed of a network on images as they are at test. frames: some, of which the first few are used."""

    def predicted(frame: Decoded) -> float:
        began = time.perf_counter()
        for _ in predict(net, [frame], protocol, lambda *_, **__: None):
            pass  # the class indices are on the CPU by now, so a GPU has ended
        return time.perf_counter() - began

    with FlopCounterMode(display=False) as counter:
        predicted(frames[0])
    seconds = [predicted(frame) for frame in frames[: TIMED + 1]]
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "flops": counter.get_total_flops(),
        "images_per_s": round(1 / statistics.median(seconds[1:] or seconds), 3),
    }


def behind(unit: FinalUnit, store: Store, target: Target) -> dict[str, float | None]:
    """Return the seconds and processor seconds of the stages that a final was made from, by field of a record's cost."""
    found: dict[str, float | None] = {}
    for stage in ("corpus", "pretrain", "tune"):
        made = [need for need in _needs(unit) if need.kind == stage and not _is_loaded(need)]
        times = [_times(need, store, target) for need in made]
        for place, field in enumerate((f"{stage}_s", f"{stage}_processor_s")):
            values = [None if one is None else one[place] for one in times]
            known = [value for value in values if value is not None]
            found[field] = round(sum(known), 2) if len(known) == len(values) else None
    return found


def _is_loaded(unit: Unit) -> bool:
    """Return whether a pretraining is none: its weights exist and are only read."""
    return isinstance(unit, PretrainUnit) and not unit.steps


def _needs(unit: Unit) -> Iterator[Unit]:
    """Yield all that a unit is made from, each once."""
    seen, waiting = set[str](), list(unit.needs)
    while waiting:
        need = waiting.pop()
        if need.fingerprint not in seen:
            seen.add(need.fingerprint)
            yield need
            waiting += need.needs


def _times(unit: Unit, store: Store, target: Target) -> tuple[float, float | None] | None:
    """Return (seconds, processor seconds) of a shared unit; of one that was resumed, as its last part lets expect."""
    try:
        spent = json.loads((folder_of(store, unit) / SPENT).read_bytes())
        share = work_of(unit, target) / spent["work"] if spent["work"] else 1.0
        processor = spent.get("processor_s")
        whole = max(1.0, share)
        return spent["seconds"] * whole, None if processor is None else processor * whole
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
