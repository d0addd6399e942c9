"""The work of units: corpus -> pretrain -> tune -> final, a function for each kind; `execute` turns errors into outcomes."""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from backbones import imagenet
from backbones.network import Network
from backbones.spec import BackboneError
from backbones.transfer import Certificate, LoadError, state_sha256
from bench import DivergedError
from bench.plan.cost import work_of
from bench.plan.outcome import Context, Outcome, held_by
from bench.plan.records import final_loss, known_fields, now
from bench.plan.trials import tuning_of
from bench.plan.unit import Kind
from bench.plan.unit_folder import CHECKPOINT, NETWORK, TRIALS_FILE, TUNING_FILE, folder_of, tuning_for
from bench.plan.units import FinalUnit, TuneUnit, Unit
from bench.score import confusion_matrix, weighted_fmeasure
from bench.spec import Protocol
from bench.spec.parts import Schedule
from bench.targets import Target
from bench.train import costs, devices, provenance, tune
from bench.train.batches import Batches, Decoded, choose, class_pixels, class_weights, open_split
from bench.train.kept import About, to_bytes
from bench.train.loop import Beside, History, Progress, Training, fit, history_csv, predict
from bench.train.loss import SegmentationLoss
from bench.train.needs import NeedsLostError, hold
from bench.train.pretrain import corpus, pretrain
from bench.train.watch import ValCurve
from bench.train.weights import fresh_network, learned_by, left_by, load
from pretrain_sources.corpus import CorpusError
from pretrain_sources.file_state import FileChangedError
from pretrain_sources.hashing import derive_seed
from pretrain_sources.image_files import Pixels
from pretrain_sources.pool import PoolError
from pretrain_sources.teachers import TeacherError
from results import metrics, prediction_samples
from results.cost import Cost
from results.evidence import Evidence, sha256
from results.locks import HeldError, LocksError
from results.record import FAILED_STATUSES, TEST, Further, Provenance, RunRecord
from results.record_files import write_record
from results.store import Store, StoreError, cannot_write, is_unwritable, write_atomic

Score = tuple[NDArray[np.int64], NDArray[np.float64]]  # (K, K) confusion matrix and (K,) weighted F-measure of a frame
Sample = dict[str, tuple[Pixels, Pixels, Pixels]]  # image, truth and prediction, by image id


def execute(unit: Unit, context: Context, report: Progress) -> Outcome:
    """Run a unit and leave its result in the store. Only an interrupt raises."""
    try:
        held = hold(Store(context.store), unit)
        with devices.computing(unit.protocol):
            outcome = _attempt(unit, context, report)
        if outcome.status in FAILED_STATUSES and not outcome.fatal and not outcome.again:
            held.check()  # deleted needs may have caused the failure
    except NeedsLostError as error:
        return Outcome("failed", str(error), again=True)
    except devices.DeviceError as error:
        return Outcome("skipped", str(error))
    return outcome


def _attempt(unit: Unit, context: Context, report: Progress) -> Outcome:
    try:
        _STAGES[unit.kind](unit, context, report)
    except NeedsLostError:
        raise
    except HeldError as error:
        return held_by(error)
    except LocksError as error:
        return Outcome("failed", str(error), fatal=True)
    except LoadError as error:
        return Outcome("load_failed", str(error), (("certificate.json", _json(error.certificate.to_json())),))
    except DivergedError as error:
        return Outcome("diverged", str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _out_of_memory(unit, error)
    except imagenet.UnreachableError as error:
        return Outcome("skipped", str(error))
    except StoreError as error:
        return Outcome("failed", str(error), fatal=True)
    except (BackboneError, CorpusError, TeacherError, PoolError, FileChangedError) as error:
        return Outcome("failed", str(error))
    except OSError as error:
        if is_unwritable(error):
            return Outcome("failed", str(cannot_write(Path(error.filename or context.store), error)), fatal=True)
        return _bug(error)
    except Exception as error:  # the one place where a bug in a unit becomes a record
        return _out_of_memory(unit, error) if "DefaultCPUAllocator" in str(error) else _bug(error)
    return Outcome("ok")


def _out_of_memory(unit: Unit, error: Exception) -> Outcome:
    return Outcome("oom", f"out of memory at batch {unit.protocol.batch}: {[*str(error).splitlines(), ''][0]}")


def _bug(error: Exception) -> Outcome:
    why = f"{type(error).__name__}: {error} (traceback: error.txt beside the record)"
    return Outcome("failed", why, (("error.txt", traceback.format_exc()),))


def tune_schedule(unit: TuneUnit, context: Context, report: Progress) -> None:
    """Write tune.json: the schedule with the best validation mIoU, on separate replicates that are never reported."""
    held = hold(Store(context.store), unit)
    folder = folder_of(Store(context.store), unit)
    protocol, classes = unit.protocol, len(context.target.spec.classes)
    train = open_split(context.target, "train", protocol, unit.cell.train_frac)
    judged = open_split(context.target, protocol.select_on, protocol)
    each = unit.steps + len(judged)

    def score(training: int, schedule: Schedule) -> float:
        begin, whole, seeds = training * each, work_of(unit, context.target), tune.seed_name(protocol, training)
        net, _, _ = _finetuned(unit, seeds, schedule, train, context, _shifted(report, begin, whole))
        total = np.zeros((classes, classes), dtype=np.int64)
        for frame, pred in predict(net, judged, protocol, _shifted(report, begin + unit.steps, whole)):
            total += confusion_matrix(pred, frame.label, classes)
        value = metrics.miou(total)
        report(begin + each, whole, val_miou=value)
        return value

    tuning = tuning_of(tune.tune(protocol, folder / TRIALS_FILE, score))
    held.check()
    write_atomic(folder / TUNING_FILE, (tuning.model_dump_json(indent=1) + "\n").encode())


def final(unit: FinalUnit, context: Context, report: Progress) -> None:
    """Finetune with the chosen schedule, score on every test split, and write the record."""
    started, clock, meter = now(), time.monotonic(), costs.Meter(unit.protocol)
    store = Store(context.store)
    held = hold(store, unit)
    tuning, files = tuning_for(store, unit)
    work = work_of(unit, context.target)
    train = open_split(context.target, "train", unit.protocol, unit.cell.train_frac)
    schedule = Schedule.model_validate(tuning.schedule)
    curve = ValCurve(context.target, unit.protocol, unit.steps)
    beside: Beside = {"checkpoint": folder_of(store, unit) / CHECKPOINT, "watch": curve}
    net, history, certificate = _finetuned(
        unit, f"r{unit.replicate}", schedule, train, context, _shifted(report, 0, work), **beside
    )
    train_s = time.monotonic() - clock - curve.seconds
    evidence, further, seen = score_on_all(net, unit, context.target, _shifted(report, unit.steps, work))
    times = {"train_s": round(train_s, 1), "score_s": round(time.monotonic() - clock - train_s, 1)}
    spent: dict[str, Any] = {"final_processor_s": meter.processor_s, "peak_memory_bytes": meter.peak_memory_bytes}
    spent |= costs.of_network(net, train, unit.protocol) | costs.behind(unit, store, context.target)
    measured: dict[str, Any] = {
        "status": "ok",
        "normalisation": {"mean": net.mean.flatten().tolist(), "std": net.std.flatten().tolist()},
        "weights_sha256": certificate.sha256 if certificate else None,
        "scores": metrics.all_scores(evidence),
        "tuning": tuning,
        "pretraining": learned_by(unit, context),
        "provenance": _provenance(
            unit, context, history, started=started, val_frames=len(curve.frames) or None, **times
        ),
        "cost": Cost(**spent),
        "evidence_sha256": sha256(evidence.to_bytes()),
        "further": {name: further_scores(one) for name, one in further.items()} or None,
        "network_sha256": state_sha256(net.state_dict()),
        "finished": now(),
    }
    held.check()
    _keep_sample(store, unit, seen)
    record = RunRecord(**known_fields(unit, context.target.spec) | measured)
    if context.keep:
        write_atomic(folder_of(store, unit) / NETWORK, to_bytes(net, About.of(record, context.target.coding.images)))
    extra = {"history.csv": history_csv(history, curve.points), **files}
    extra |= {"certificate.json": _json(certificate.to_json())} if certificate else {}
    write_record(store, record, evidence, extra, further)


def _provenance(unit: FinalUnit, context: Context, history: History, **facts: Any) -> Provenance:  # noqa: ANN401
    """Return where and how a run was made. facts: the fields that only the run itself knows."""
    device = devices.device_of(unit.protocol)
    return Provenance(
        version=metadata.version("satir-bench"),
        commit=context.commit,
        packages=provenance.package_versions(),
        device=device.name,
        gpu=device.gpu,
        threads=unit.protocol.threads,
        precision=unit.protocol.precision,
        final_loss=final_loss([loss for _, loss, _ in history]),
        **facts,
    )


def further_scores(evidence: Evidence) -> Further:
    """Return the entry of a record for evidence on a further test split."""
    return Further(scores=metrics.all_scores(evidence), evidence_sha256=sha256(evidence.to_bytes()))


def score_on_all(
    net: Network, unit: FinalUnit, target: Target, report: Progress
) -> tuple[Evidence, dict[str, Evidence], Sample]:
    """Score a finetuned network on every test split; return (evidence on `test`, further split -> evidence, sample of `test`)."""
    evidence, seen = score_on(TEST, net, unit, target, report)
    further, done = dict[str, Evidence](), len(evidence.image_ids)
    for split in target.further:
        further[split], _ = score_on(split, net, unit, target, _shifted(report, done, done))
        done += len(further[split].image_ids)
    return evidence, further, seen


def score_on(split: str, net: Network, unit: FinalUnit, target: Target, report: Progress) -> tuple[Evidence, Sample]:
    """Score a finetuned network on a test split; return (evidence, a fixed sample of predictions).

    Only this function reads test splits (except for protocols that select on `test`).
    """
    frames = open_split(target, split, unit.protocol)
    sample, seen = prediction_samples.sample_ids([frame.id for frame in frames]), {}

    def kept() -> Iterator[tuple[Decoded, Pixels]]:
        for frame, pred in predict(net, frames, unit.protocol, report):
            if frame.id in sample:
                image = np.asarray(Image.fromarray(frame.image).resize(frame.label.shape[::-1]))
                seen[frame.id] = (image, frame.label, pred)
            yield frame, pred

    pairs = list(scored(kept(), len(target.spec.classes), unit.protocol))
    ids, groups = np.array([f.id for f in frames]), np.array([f.group for f in frames])
    return Evidence(ids, groups, np.stack([c for c, _ in pairs]), np.stack([w for _, w in pairs])), seen


def scored(predicted: Iterable[tuple[Decoded, Pixels]], classes: int, protocol: Protocol) -> Iterator[Score]:
    """Score predictions, in order; on a GPU in threads beside it, which then predicts the next frames."""

    def score(frame: Decoded, pred: Pixels) -> Score:
        weighted = weighted_fmeasure(pred, frame.label, classes, beta_squared=protocol.beta_squared)
        return confusion_matrix(pred, frame.label, classes), weighted

    if not devices.device_of(protocol).is_gpu:
        yield from (score(frame, pred) for frame, pred in predicted)
        return
    with ThreadPoolExecutor(devices.threads_beside()) as threads:
        yield from [score.result() for score in [threads.submit(score, *pair) for pair in predicted]]


def _keep_sample(store: Store, unit: FinalUnit, seen: Sample) -> None:
    images, labels = prediction_samples.truth_files(store, unit.target_hash, unit.protocol.identity_hash)
    for number, path in enumerate((images, labels, prediction_samples.predictions_file(store, unit.fingerprint))):
        if not prediction_samples.read(path):
            prediction_samples.write(path, {name: pictures[number] for name, pictures in seen.items()})


def _finetuned(
    unit: TuneUnit | FinalUnit,
    replicate: str,
    schedule: Schedule,
    train: Sequence[Decoded],
    context: Context,
    report: Progress,
    **beside: Unpack[Beside],
) -> tuple[Network, History, Certificate | None]:
    """Finetune one replicate on train alone; return (network, history, certificate or None for random weights)."""
    net = fresh_network(unit, replicate, len(context.target.spec.classes))
    start = unit.pretrained
    certificate = (
        None if start is None else load(net, left_by(start, context), context.target, unit.protocol.normalisation)
    )
    frames = choose(context.target, "train", unit.protocol, unit.cell.train_frac)
    weights = class_weights(class_pixels(context.target, frames), unit.protocol.loss)
    seed = derive_seed(unit.protocol.seed, "finetune", replicate)
    batches = Batches(train, unit.protocol, len(context.target.spec.classes), seed, unit.steps)
    loss = SegmentationLoss(unit.protocol.loss, weights)
    training = Training(unit.protocol, schedule, loss, unit.steps, seed, frozen=unit.protocol.transfer != "finetune")
    history = fit(net, batches, training, report, **beside)
    return net, history, certificate


def _shifted(report: Progress, begin: int, whole: int) -> Progress:
    """Return a progress callback for one phase of a unit."""

    def shifted(done: int, total: int, /, **facts: float) -> None:
        report(begin + done, whole, **facts)

    return shifted


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


_STAGES: dict[Kind, Callable[..., None]] = {  # each takes (unit of that kind, Context, Progress)
    "corpus": corpus,
    "pretrain": pretrain,
    "tune": tune_schedule,
    "final": final,
}
