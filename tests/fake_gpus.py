"""GPUs that compute on the CPU, for tests of what surrounds them."""

import os
from multiprocessing.connection import Connection

import torch

from bench.plan.outcome import Context
from bench.plan.units import Unit
from bench.run import executors
from bench.spec import Protocol
from bench.train import devices

real_work = executors._work


def fake(protocol: Protocol, number: int = 0) -> devices.Device:
    seen = os.environ.get(devices.VISIBLE, str(number))
    return devices.Device(torch.device("cpu"), f"Fake GPU {seen}", int(os.environ.get(devices.NUMBER, number)))


def work(unit: Unit, context: Context, connection: Connection, place: int | None, workers: int) -> None:
    devices.device_of = fake
    real_work(unit, context, connection, place, workers)
