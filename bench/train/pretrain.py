"""The stages before the target: making a corpus, and pretraining, loading or permuting an encoder."""

import json
import math

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones import imagenet, network
from backbones.network import Network
from backbones.transfer import EncoderWeights
from bench import DivergedError
from bench.plan.card_weights import brought
from bench.plan.outcome import Context
from bench.plan.records import final_loss
from bench.plan.unit_folder import CHECKPOINT, folder_of, is_done
from bench.plan.units import (
    CorpusUnit,
    FromCheckpoint,
    FromImageNet,
    Learned,
    Permuted,
    PretrainUnit,
    ReadyLabels,
    Reconstructed,
)
from bench.score import confusion_matrix
from bench.spec import Protocol
from bench.train.batches import class_weights
from bench.train.corpus_images import CorpusImages, Part
from bench.train.devices import kind_of
from bench.train.lesson import Lesson, split
from bench.train.loop import Batch, History, Progress, Training, fit, history_csv, mean_loss, predict
from bench.train.loss import Objective, SegmentationLoss
from bench.train.needs import hold
from bench.train.simmim import masked_images
from bench.train.weights import fresh_network, left_by, load
from pretrain_sources import teachers
from pretrain_sources.corpus import Corpus, check_corpus, read_corpus
from pretrain_sources.corpus.ready_masks import open_masks
from pretrain_sources.corpus.writer import CorpusWriter
from pretrain_sources.file_state import FileChangedError
from pretrain_sources.hashing import derive_seed, fingerprint
from pretrain_sources.pool import choose, evenly
from results import metrics
from results.locks import locked
from results.record import Pretraining
from results.store import Store, write_atomic

HELD_OUT_BATCHES = 16


def corpus(unit: CorpusUnit, context: Context, report: Progress) -> None:
    """Make a corpus: label maps, tables, contact sheet, manifest. The teacher's masks are shared with other recipes.

    Raises:
        HeldError: another unit is running this teacher.
    """
    store, recipe = Store(context.store), unit.card.recipe
    assert recipe is not None
    assert context.pool is not None
    images = evenly(choose(context.pool.images, unit.card.subset), unit.protocol.max_frames)
    teacher = dict(unit.teacher)
    settings = teachers.pinned(recipe.teacher, teacher)
    kept = store.unit_dir("teacher", fingerprint(teacher))
    kept.mkdir(parents=True, exist_ok=True)
    with locked(kept / ".lock"):  # one corpus at a time for each teacher, so that the next one reuses its masks
        if is_done(store, unit):  # by another run
            return
        masks = open_masks(settings, context.weights, kept, kind_of(unit.protocol), context.pool.images)
        folder, used = folder_of(store, unit), masks.device_used
        writer = CorpusWriter(folder, context.pool.root, recipe, teacher, False, used, masks.left_out)
        writer.write(masks.over(images), len(images), report)


def pretrain(unit: PretrainUnit, context: Context, report: Progress) -> None:
    """Write encoder.safetensors and certificate.json after one strict load, and pretrain.json if trained here."""
    held = hold(Store(context.store), unit)
    folder = folder_of(Store(context.store), unit)
    texts: dict[str, bytes] = {}
    match unit.weights:
        case FromCheckpoint():
            weights = brought(unit.card, unit.backbone, context.weights)
        case FromImageNet(origin):
            if origin is None:
                raise ValueError(f"no origin for the weights of {unit}")
            weights = imagenet.fetch(unit.backbone, origin, context.weights)
        case Permuted(start, seed):
            weights = _permuted(left_by(start, context), seed, unit.replicate or 0)
        case Learned() | Reconstructed():
            weights, learned, history = _trained(unit, context, report)
            texts["pretrain.json"] = f"{learned.model_dump_json(indent=1)}\n".encode()
            texts["history.csv"] = history_csv(history).encode()
    net = fresh_network(unit, "pretrain", len(context.target.spec.classes))
    certificate = load(net, weights, context.target)
    facts = {"mean": json.dumps(weights.mean), "std": json.dumps(weights.std), "origin": weights.origin}
    tensors = {name: tensor.contiguous() for name, tensor in weights.tensors.items()}
    data = safetensors.torch.save(tensors, metadata=facts)
    held.check()
    for name, content in {**texts, "encoder.safetensors": data}.items():
        write_atomic(folder / name, content)
    sizes = {"encoder_bytes": len(data), "file_bytes": {name: len(content) for name, content in texts.items()}}
    passed = json.dumps(certificate.to_json() | sizes, indent=1, allow_nan=False)
    write_atomic(folder / "certificate.json", f"{passed}\n".encode())


def _trained(unit: PretrainUnit, context: Context, report: Progress) -> tuple[EncoderWeights, Pretraining, History]:
    """Pretrain with the protocol's default schedule, by the same loop as on the target."""
    assert isinstance(unit.weights, Learned | Reconstructed)
    lesson, start = _lesson(unit, unit.weights, context), unit.weights.start
    protocol, replicate = unit.protocol, f"r{unit.replicate}"
    steps = protocol.steps_on(lesson.images)
    net = fresh_network(unit, replicate, lesson.classes)
    torch.manual_seed(derive_seed(protocol.seed, "pretrain init", replicate))
    # heads from a seed of their own: finetuning begins with another decoder even with equal classes
    lesson.fit_heads(net)
    if start is not None:
        load(net, left_by(start, context), context.target, protocol.normalisation)
    seed = derive_seed(protocol.seed, "pretrain", replicate)
    count = min(HELD_OUT_BATCHES, lesson.held_out)
    probe = lesson.probe(derive_seed(protocol.seed, "held out"), HELD_OUT_BATCHES)
    before = _held_out_loss(net, probe, count, lesson.loss, protocol)
    training = Training(protocol, protocol.default, lesson.loss, steps, seed)
    checkpoint = folder_of(Store(context.store), unit) / CHECKPOINT
    history = fit(net, lesson.batches(seed, steps), training, report, checkpoint=checkpoint)
    summary = Pretraining(
        corpus=lesson.content_hash,
        pretrain_images=lesson.images,
        pretrain_steps=steps,
        pretrain_loss=final_loss([value for _, value, _ in history]),
        heldout_images=lesson.held_out,
        heldout_loss_before=before,
        heldout_loss=_held_out_loss(net, probe, count, lesson.loss, protocol),
        **lesson.measured(net, probe, count),
    )
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in net.encoder.state_dict().items()}
    mean, std = (tuple(values.flatten().tolist()) for values in (net.mean, net.std))
    origin = f"{unit.card.name}, {steps} steps on {lesson.name} {lesson.content_hash[:12]}"
    return EncoderWeights(tensors, mean, std, origin), summary, history


def _lesson(unit: PretrainUnit, weights: Learned | Reconstructed, context: Context) -> Lesson:
    if isinstance(weights, Learned):
        return _pseudo_labels(unit, weights, context)
    assert context.pool is not None
    chosen = evenly(choose(context.pool.images, unit.card.subset), unit.protocol.max_frames)
    cache = Store(context.store).cache_file("pool-images.json")
    return masked_images(chosen, weights.simmim, unit.protocol, cache)


def _pseudo_labels(unit: PretrainUnit, learned: Learned, context: Context) -> Lesson:
    """Return the lesson of predicting the label maps of a corpus."""
    data, protocol, labels = _corpus_of(unit, learned.labels, context), unit.protocol, learned.labels
    made_here = folder_of(Store(context.store), labels) / "manifest.json" if isinstance(labels, CorpusUnit) else None
    images, classes = CorpusImages(data, learned, protocol.image_px, made_here), data.num_classes
    train, held_out = (Part(images, picks) for picks in split([image.sha256 for image in data.images]))

    def fit_heads(net: Network) -> None:
        net.decoder = network.build(unit.backbone, classes).decoder

    def measured(net: Network, probe: Dataset[Batch], count: int) -> dict[str, float | None]:
        return _pseudo_miou(net, held_out, protocol, classes)

    return Lesson(
        name="corpus",
        content_hash=data.content_hash,
        images=len(train),
        held_out=len(held_out),
        classes=classes,
        batches=lambda seed, steps: train.batches(protocol, classes, seed, steps),
        probe=lambda seed, steps: held_out.batches(protocol, classes, seed, steps),
        loss=SegmentationLoss(protocol.loss, class_weights(np.sum(train.class_px, axis=0), protocol.loss)),
        fit_heads=fit_heads,
        measured=measured,
    )


def _corpus_of(unit: PretrainUnit, labels: CorpusUnit | ReadyLabels, context: Context) -> Corpus:
    store, card = Store(context.store), unit.card
    if isinstance(labels, CorpusUnit):
        assert context.pool is not None
        return read_corpus(folder_of(store, labels), context.pool.root)
    assert card.corpus is not None
    cache = store.cache_file("corpora.json")
    current, _ = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes, cache=cache)
    chosen = Corpus(current.num_classes, evenly(choose(current.images, card.subset), unit.protocol.max_frames))
    if chosen.content_hash != labels.content_hash:
        raise FileChangedError(f"{card.corpus.path} has changed since the run was planned; run the same command again")
    return chosen


def _held_out_loss(
    net: Network, probe: Dataset[Batch], count: int, loss: Objective, protocol: Protocol
) -> float | None:
    """Return the mean loss over the first `count` batches; None without any.

    Raises:
        DivergedError: it is not finite.
    """
    value = mean_loss(net, probe, count, loss, protocol) if count else None
    if value is not None and not math.isfinite(value):
        raise DivergedError(f"the loss on held-out images is {value}")
    return value


def _pseudo_miou(net: Network, held_out: Part, protocol: Protocol, classes: int) -> dict[str, float | None]:
    """Compute mIoU on the held-out pseudo-labels: of the network, and of the best constant class."""
    if not len(held_out):
        return {"heldout_miou": None, "heldout_miou_constant": None}
    total = np.zeros((classes, classes), dtype=np.int64)
    whole = protocol.model_copy(
        update={"window_px": None, "stride_px": None}
    )  # protocols that share pretrainings may differ here
    for frame, pred in predict(net, held_out, whole, _ignore_progress):
        total += confusion_matrix(pred, frame.label, classes)
    truth = total.sum(1)
    if not truth.sum():
        return {"heldout_miou": None, "heldout_miou_constant": None}
    return {"heldout_miou": metrics.miou(total), "heldout_miou_constant": metrics.constant(truth)[1]}


def _ignore_progress(done: int, total: int, /, **facts: float) -> None:
    """Discard progress."""


def _permuted(weights: EncoderWeights, seed: int, replicate: int) -> EncoderWeights:
    """Permute the values within each tensor: the distribution stays, the learned structure is destroyed."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        drawn = torch.Generator().manual_seed(derive_seed("permuted", seed, replicate, name))
        order = torch.randperm(tensor.numel(), generator=drawn)
        tensors[name] = tensor.flatten()[order].reshape(tensor.shape)
    return EncoderWeights(tensors, weights.mean, weights.std, f"{weights.origin}, permuted")
