"""Is it right: losses against the CPU's, the same numbers after a kill, and what happens when memory runs out."""

import contextlib
import copy
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from setting import Row, Setting, data_of, network_of, row

from backbones.network import Network
from bench.plan.matrix import load_matrix
from bench.plan.plan import Sweep
from bench.run.run import How, run_matrix
from bench.spec import Protocol
from bench.train import devices, loop
from bench.train.loop import History, Progress, Training, fit
from results.record_files import read_records
from results.store import Store

STEPS = 20
# Relative differences of the loss at the first step, and of their mean over all steps. Batch statistics of small batches enlarge
# rounding a thousandfold within ten steps, on two CPUs too; networks with layer norm stay within 1e-6 in fp32.
TOLERANCE = {"fp32": (0.001, 0.03), "bf16": (0.02, 0.05)}


def losses(setting: Setting) -> list[Row]:
    """Compare the losses of 20 steps on the GPU with the CPU's, in both precisions, without dropout."""
    rows = []
    target = setting.target()
    little = {"crop_px": (64, 96) if setting.small else (128, 160), "batch": 4}
    for backbone in setting.families:
        protocol = setting.protocol(**little, device="cpu", precision="fp32", threads=torch.get_num_threads())
        net = network_of(backbone, len(target.spec.classes), without_dropout=True)
        with devices.computing(protocol):
            expected = _trained(copy.deepcopy(net), setting, protocol)
        for precision, tolerance in TOLERANCE.items():
            protocol = setting.protocol(**little, device="cuda", precision=precision)
            with setting.as_gpu(), devices.computing(protocol):
                own = _trained(copy.deepcopy(net), setting, protocol)
            apart = [abs(a - b) / b for (_, a, _), (_, b, _) in zip(own, expected, strict=True)]
            first, mean = apart[0], sum(apart) / STEPS
            what = f"losses of {STEPS} steps, {backbone}, {precision} against the CPU's fp32"
            aim = f"<= {tolerance[0]:.1%}, {tolerance[1]:.0%}"
            met = first <= tolerance[0] and mean <= tolerance[1]
            rows.append(row(what, f"first {first:.0e}, mean {mean:.0e}", aim, met))
    return rows


def repeat(setting: Setting) -> list[Row]:
    """Train twice, the second time with a kill in the middle; weights must be equal, bit for bit."""
    rows = []
    protocol = setting.protocol(**({} if setting.small else {"crop_px": (256, 320)}))
    classes = len(setting.target().spec.classes)
    loop.LOOKED_EVERY_S = loop.KEPT_EVERY_S = 0.0  # so that the first half ends where it is killed
    for backbone in setting.families:
        with setting.as_gpu(), warnings.catch_warnings(record=True) as caught, devices.computing(protocol):
            warnings.simplefilter("always")
            whole = network_of(backbone, classes)
            _trained(whole, setting, protocol, 12)
            checkpoint = setting.out / f"{backbone}.pt"
            for first in (True, False):
                parts = network_of(backbone, classes)
                try:
                    _trained(parts, setting, protocol, 12, _Killer(6) if first else _Killer(99), checkpoint)
                except KilledError:
                    assert first
            checkpoint.unlink()
        same = all(
            torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
        )
        loose = {str(w.message).split()[0] for w in caught if "deterministic implementation" in str(w.message)}
        value = ("yes" if same else "no") + (f"; not repeatable in torch: {', '.join(sorted(loose))}" if loose else "")
        rows.append(row(f"the same weights after a kill at step 6 of 12, {backbone}", value, "yes", same))
    return rows


def memory(setting: Setting) -> list[Row]:
    """Run out of memory in the middle of a matrix: the run becomes a record with its batch, and the next one runs."""
    store = Store(setting.out / "oom-store")
    setting.target()
    limited = setting.device == "cuda"
    if limited:
        torch.cuda.set_per_process_memory_fraction(0.002)  # some 160 MB of 80 GB
    full = contextlib.nullcontext() if limited else mock.patch.object(loop, "_loss_of", _full)
    sweep = Sweep(load_matrix(_matrix(setting)), store, setting.out / "data", setting.out)
    with setting.as_gpu(), full:
        run_matrix(sweep, How("inline"), Silent())
    records, _ = read_records(store)
    reasons = {f"{record.status}: {record.reason}" for record in records}
    met = bool(records) and all(reason.startswith("oom: out of memory at batch 8") for reason in reasons)
    simulated = "" if limited else " (simulated on a CPU)"
    return [
        row(f"out of memory becomes a record{simulated}", "; ".join(sorted(reasons))[:120], "oom with its batch", met)
    ]


def _matrix(setting: Setting) -> str:
    import yaml

    fields = setting.protocol(batch=8, trials=1, replicates=1, finetune_steps=2, pretrain_steps=0).model_dump(
        mode="json"
    )
    (setting.out / "oom-protocol.yaml").write_text(yaml.safe_dump(fields | {"name": "oom-v1"}))
    path = setting.out / "oom.yaml"
    matrix = {"target": "scenes", "protocol": "oom-protocol.yaml", "sources": ["none"], "backbones": ["unet-resnet34"]}
    path.write_text(yaml.safe_dump(matrix))
    return str(path)


def _full(*_: object) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def _trained(
    net: Network,
    setting: Setting,
    protocol: Protocol,
    steps: int = STEPS,
    report: Progress | None = None,
    checkpoint: Path | None = None,
) -> History:
    batches, loss = data_of(setting.target(), protocol, steps)
    training = Training(protocol, protocol.default, loss, steps, seed=0)
    return fit(net, batches, training, report or _Killer(10**9), checkpoint=checkpoint)


class KilledError(Exception):
    """Stands for the death of the process."""


class _Killer:
    """A progress callback that dies at a step."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __call__(self, done: int, total: int, /, **facts: float) -> None:
        if done >= self._at:
            raise KilledError


class Silent:
    """A Show that ignores all events."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
