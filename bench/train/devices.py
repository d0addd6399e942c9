"""The device on which a protocol computes, and how it computes there: the same numbers again on the same device.

On a CUDA GPU that means: no TF32, deterministic kernels, and `repeatable` in place of the operations that have none.
"""

import contextlib
import functools
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.utils.deterministic

from bench import BenchError
from bench.spec import Protocol
from bench.train import repeatable
from pretrain_sources.processors import cores

MOST_BESIDE = 8  # processes that load batches for a GPU, or threads that score its predictions
BESIDE = "BENCH_BESIDE_GPU"  # environment variable: their number
NUMBER = "BENCH_GPU"  # environment variable: the number of this process's GPU among those that the run sees
VISIBLE = "CUDA_VISIBLE_DEVICES"
BF16_FROM = 8  # compute capability of Ampere, the first NVIDIA GPUs with bf16; torch emulates it on older ones


class DeviceError(BenchError):
    """This machine cannot compute as the protocol says; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """A processor.

    Attributes:
        torch: for tensors. name: as the maker has it. gpu: number among the GPUs that the run sees; None for a CPU.
    """

    torch: torch.device
    name: str
    gpu: int | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.gpu is not None


def kind_of(protocol: Protocol) -> str:
    """Return 'cuda' or 'cpu': the device of the protocol; for 'any' a GPU where there is one."""
    return "cuda" if protocol.device == "cuda" or (protocol.device == "any" and torch.cuda.is_available()) else "cpu"


def device_of(protocol: Protocol, number: int = 0) -> Device:
    """Return the device of a protocol. number: of a GPU, among those that this process sees.

    Raises:
        DeviceError: it needs a GPU, or bf16, and this machine has none.
    """
    if kind_of(protocol) == "cpu":
        return Device(torch.device("cpu"), _cpu_name())
    if not torch.cuda.is_available():
        raise DeviceError(
            f"protocol {protocol.name} needs a CUDA GPU and this machine has none; try it on a CPU with --smoke"
        )
    name, (major, minor) = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
    if protocol.precision == "bf16" and major < BF16_FROM and torch.version.hip is None:
        raise DeviceError(
            f"protocol {protocol.name} computes in bf16, which the {name} (compute capability {major}.{minor}) only "
            f"emulates; use a GPU of compute capability {BF16_FROM}.0 or later, or a protocol with precision: fp32"
        )
    return Device(torch.device("cuda", number), name, int(os.environ.get(NUMBER, number)))


def autocast(protocol: Protocol, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a network computes at the precision of the protocol."""
    return torch.autocast(device.type, torch.bfloat16) if protocol.precision == "bf16" else contextlib.nullcontext()


@contextlib.contextmanager
def computing(protocol: Protocol) -> Iterator[None]:
    """Compute as the protocol says, with its threads; on a GPU without TF32 and repeatably.

    Raises:
        DeviceError: this machine cannot.
    """
    torch.set_num_threads(protocol.threads)
    if not device_of(protocol).is_gpu:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that takes time
    try:
        with repeatable.operations(), warnings.catch_warnings():
            warnings.filterwarnings("once", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def gpus() -> list[str]:
    """Return the names of the GPUs that torch sees."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def take_gpu(number: int, workers: int) -> None:
    """Make this GPU the only one that the process sees, one of so many on this machine. Call it before CUDA starts."""
    seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    os.environ[VISIBLE] = seen[number] if seen else str(number)
    os.environ |= {NUMBER: str(number), BESIDE: str(max(1, min(MOST_BESIDE, cores() // workers)))}


def loading_processes(device: Device) -> int:
    """Return the number of loader processes: 0 on a CPU, where the protocol fixes threads. It does not affect results."""
    return threads_beside() if device.is_gpu else 0


def threads_beside() -> int:
    """Return the number of processes or threads that may serve this process's GPU."""
    return int(os.environ.get(BESIDE, min(MOST_BESIDE, cores())))


@functools.cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine() or "cpu"
    )
