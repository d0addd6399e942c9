"""What comes before the target: the corpus, and the encoder that is pretrained on it, brought, or permuted."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones import imagenet, network
from backbones.network import Network
from backbones.transfer import Certificate, EncoderWeights, load_encoder, state_sha256
from bench.batches import Batches, Decoded, class_weights, fitted, resized_label
from bench.checkpoints import brought
from bench.needs import NeedsLostError, hold
from bench.plan import is_done
from bench.score import confusion_matrix
from bench.targets import Target
from bench.targets.frames import decode_image
from bench.train import Progress, SegmentationLoss, fit, mean_loss, predict
from bench.units import CHECKPOINT, Context, Unit
from pretrain_sources.card import SourceCard
from pretrain_sources.corpus import Corpus, CorpusImage, check_corpus, deranged, random_ranks, read_corpus
from pretrain_sources.corpus.mask_cache import MaskCache
from pretrain_sources.corpus.writer import CorpusWriter
from pretrain_sources.file_state import FileChangedError, read_unchanged
from pretrain_sources.hashing import derive_seed, fingerprint
from pretrain_sources.image_files import IGNORE, decode_label, decode_thermal
from pretrain_sources.pool import choose, evenly
from pretrain_sources.recipe import SamTeacher
from results import metrics
from results.locks import locked
from results.record import Pretraining
from results.store import Store, write_atomic

PROBE_FRAMES = 2  # train frames on which a certificate measures how far the features moved
HELD_OUT = (10, 64)  # every tenth image of a corpus, at most 64
HELD_OUT_BATCHES = 16
KEPT_BYTES = 2**29  # decoded images and labels that a training keeps


def corpus(unit: Unit, context: Context, report: Progress) -> None:
    """Leaves a corpus: label maps, sidecar, contact sheet, manifest. The teacher's pass is shared with other recipes.

    Raises:
        HeldError: another unit is asking this teacher.
    """
    store, recipe = Store(context.store), unit.card.recipe
    assert recipe is not None
    assert context.pool is not None
    images = evenly(choose(context.pool.images, unit.card.subset), unit.protocol.max_frames)
    teacher, settings = unit.inputs["teacher"], recipe.teacher
    if isinstance(settings, SamTeacher):  # the checkpoint must be the one that was planned with
        settings = settings.model_copy(update={"sha256": teacher["sha256"]})
    kept = store.unit_dir("teacher", fingerprint(teacher))
    kept.mkdir(parents=True, exist_ok=True)
    with locked(kept / ".lock"):  # another corpus of the same teacher comes later, and then finds its masks here
        if is_done(store, unit):  # by another run, meanwhile
            return
        masks = MaskCache(settings, context.weights, kept).over(images)
        folder = store.unit_dir("corpus", unit.fingerprint)
        writer = CorpusWriter(folder, context.pool.root, recipe, teacher, keep_images=False)
        writer.write(masks, len(images), report)


def pretrain(unit: Unit, context: Context, report: Progress) -> None:
    """Leaves encoder.safetensors and certificate.json, strictly loaded once, and pretrain.json where a corpus was trained on."""
    held = hold(Store(context.store), unit)
    folder = Store(context.store).unit_dir("pretrain", unit.fingerprint)
    texts: dict[str, bytes] = {}
    if "checkpoint" in unit.inputs:
        weights = brought(unit.card, unit.backbone, context.weights)
    elif "origin" in unit.inputs:
        if unit.origin is None:
            raise ValueError(f"no origin for the weights of {unit}")
        weights = imagenet.fetch(unit.backbone, unit.origin, context.weights)
    elif "permuted" in unit.inputs:
        start = unit.need("pretrain")
        assert start is not None
        weights = _permuted(left_by(start, context), unit)
    else:
        weights, learned, history = _trained(unit, context, report)
        text = "step,loss,lr\n" + "".join(f"{step},{loss:.6g},{lr:.6g}\n" for step, loss, lr in history)
        texts = {"pretrain.json": f"{learned.model_dump_json(indent=1)}\n".encode(), "history.csv": text.encode()}
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


def left_by(unit: Unit, context: Context) -> EncoderWeights:
    """The encoder that a pretrain unit left.

    Raises:
        NeedsLostError: the file is not what its certificate was made of; the unit counts as not done from now on.
    """
    folder = Store(context.store).unit_dir("pretrain", unit.fingerprint)
    path, certificate = folder / "encoder.safetensors", folder / "certificate.json"
    told = json.loads(certificate.read_bytes())["sha256"]
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if state_sha256(tensors) != told:
            raise SafetensorError("its tensors are not those of certificate.json")
    except SafetensorError as error:
        certificate.unlink(missing_ok=True)
        raise NeedsLostError(f"{path} is torn ({error}): run the same command again, which makes it anew") from error
    return EncoderWeights(tensors, tuple(json.loads(facts["mean"])), tuple(json.loads(facts["std"])), facts["origin"])


def learned_by(unit: Unit, context: Context) -> Pretraining | None:
    """What the pretraining on a corpus that a unit's weights come from says of itself; None where there was none."""
    if unit.learner is None:
        return None
    path = Store(context.store).unit_dir("pretrain", unit.learner.fingerprint) / "pretrain.json"
    return Pretraining.model_validate_json(path.read_bytes())


def fresh_network(unit: Unit, replicate: str, num_classes: int) -> Network:
    """Random weights of a replicate: the same for every source, so that sources differ in nothing else."""
    torch.manual_seed(derive_seed(unit.protocol.seed, "init", replicate))
    return network.build(unit.backbone, num_classes)


def load(net: Network, weights: EncoderWeights, target: Target) -> Certificate:
    """Strict loading, judged on the target's first train frames of one size."""
    first, *others = target.splits["train"][:PROBE_FRAMES]
    images = {frame.id: decode_image(frame.image.read_bytes()) for frame in (first, *others)}
    images = {name: image for name, image in images.items() if image.shape == images[first.id].shape}
    probe = torch.from_numpy(np.stack(list(images.values())))[:, None].float() / 255
    return load_encoder(net, weights, probe, list(images))


class Pictures(Sequence[Decoded]):
    """The images of a corpus with their label maps, or with those that a control gives them; decoded when asked for.

    Of the last ones asked for, half a gigabyte is kept.
    """

    def __init__(self, found: Corpus, card: SourceCard, unit: Unit, manifest: Path | None = None) -> None:
        """manifest: of a corpus that a unit made, which is made anew where a label map turns out to be torn."""
        self._images, self._classes, self._size = found.images, found.num_classes, unit.protocol.image_px
        kind, seed = (card.control.kind, card.control.seed) if card.control else (None, 0)
        n = len(found.images)
        self._owner = deranged(n, seed) if kind == "shuffled" else np.arange(n)  # whose label map an image gets
        self._random_seed = seed if kind == "random-rank" else None
        self._manifest = manifest
        self._keep()

    def _keep(self) -> None:
        largest = max(sum(image.class_px) for image in self._images)
        room = KEPT_BYTES // (2 * largest)  # a byte for a pixel of the image, one for its label
        self._decoded = functools.lru_cache(maxsize=max(1, room))(self._decode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoded"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401 - a slice gives a list, as Sequence has it
        return [self[j] for j in range(*i.indices(len(self)))] if isinstance(i, slice) else self._decoded(int(i))

    def class_px(self, i: int) -> NDArray[np.int64]:
        """(K,) label pixels of each class in item i, ignore left out."""
        owner = self._images[self._owner[i]]
        pixels = np.zeros(self._classes, np.int64)
        np.add.at(pixels, self._relabel(owner)[: self._classes], owner.class_px[:-1])
        return pixels

    def _relabel(self, owner: CorpusImage) -> NDArray[np.uint8]:
        return np.arange(256, dtype=np.uint8) if self._random_seed is None else random_ranks(owner, self._random_seed)

    def _decode(self, i: int) -> Decoded:
        member, owner = self._images[i], self._images[self._owner[i]]
        image = decode_thermal(read_unchanged(member.image, member.sha256))
        stored = decode_label(self._label(owner))
        counts = np.bincount(stored.ravel(), minlength=256)
        if (*counts[: self._classes].tolist(), int(counts[IGNORE])) != owner.class_px:
            raise FileChangedError(f"{owner.label} does not hold the labels that its corpus says; make the corpus anew")
        label = self._relabel(owner)[stored]
        if label.shape != image.shape and owner is member:
            raise FileChangedError(f"{owner.label} is not of the size of {member.image}; make the corpus anew")
        if label.shape != image.shape:  # a shuffled label map of an image of another size
            label = resized_label(label, (image.shape[0], image.shape[1]))
        return Decoded(member.id, member.group, *fitted(image, label, self._size))

    def _label(self, owner: CorpusImage) -> bytes:
        try:
            return read_unchanged(owner.label, owner.label_sha256)
        except (OSError, FileChangedError) as error:
            if self._manifest is None:
                raise
            self._manifest.unlink(missing_ok=True)
            again = "run the same command again, which makes the corpus anew"
            raise NeedsLostError(f"{owner.label} is not the label map that was made: {again}") from error


class _Part(Sequence[Decoded]):
    """Some of the pictures."""

    def __init__(self, pictures: Pictures, picks: Sequence[int]) -> None:
        self.pictures, self.picks = pictures, picks
        self.class_px = [pictures.class_px(i) for i in picks]

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, i: Any) -> Any:  # noqa: ANN401
        return [self[j] for j in range(*i.indices(len(self)))] if isinstance(i, slice) else self.pictures[self.picks[i]]

    def batches(self, unit: Unit, num_classes: int, seed: int, steps: int) -> Batches:
        """Batches of crops, as on the target."""
        held = [set(np.flatnonzero(pixels).tolist()) for pixels in self.class_px]
        return Batches(self, unit.protocol, num_classes, seed, steps, held)


def _trained(
    unit: Unit, context: Context, report: Progress
) -> tuple[EncoderWeights, Pretraining, list[tuple[int, float, float]]]:
    """Pretraining on the corpus with the protocol's default schedule, by the same loop as on the target."""
    found, protocol, replicate = _corpus_of(unit, context), unit.protocol, f"r{unit.replicate}"
    classes = found.num_classes
    made = unit.need("corpus")
    folder = Store(context.store).unit_dir("corpus", made.fingerprint) if made else None
    pictures = Pictures(found, unit.card, unit, folder and folder / "manifest.json")
    train, held_out = (_Part(pictures, picks) for picks in _split(found))
    steps = protocol.steps_on(len(train))
    net = fresh_network(unit, replicate, classes)
    torch.manual_seed(derive_seed(protocol.seed, "pretrain init", replicate))
    net.decoder = network.build(
        unit.backbone, classes
    ).decoder  # finetuning begins with another one, whatever its classes
    start = unit.need("pretrain")
    if start is not None:
        load(net, left_by(start, context), context.target)
    loss = SegmentationLoss(protocol.loss, class_weights(np.sum(train.class_px, axis=0), protocol.loss))
    seed = derive_seed(protocol.seed, "pretrain", replicate)
    probe = held_out.batches(unit, classes, derive_seed(protocol.seed, "held out"), HELD_OUT_BATCHES)
    count = min(HELD_OUT_BATCHES, len(held_out))
    before = mean_loss(net, probe, count, loss, protocol) if count else None
    history = fit(
        net,
        train.batches(unit, classes, seed, steps),
        steps,
        loss,
        protocol.default,
        protocol,
        seed=seed,
        report=report,
        checkpoint=Store(context.store).unit_dir("pretrain", unit.fingerprint) / CHECKPOINT,
    )
    learned = Pretraining(
        corpus=found.content_hash,
        pretrain_images=len(train),
        pretrain_steps=steps,
        pretrain_loss=float(np.mean([value for _, value, _ in history[-max(1, steps // 10) :]])),
        heldout_images=len(held_out),
        heldout_loss_before=before,
        heldout_loss=mean_loss(net, probe, count, loss, protocol) if count else None,
        **_pseudo_miou(net, held_out, unit, classes),
    )
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in net.encoder.state_dict().items()}
    mean, std = (tuple(values.flatten().tolist()) for values in (net.mean, net.std))
    origin = f"{unit.card.name}, {steps} steps on corpus {found.content_hash[:12]}"
    return EncoderWeights(tensors, mean, std, origin), learned, history


def _corpus_of(unit: Unit, context: Context) -> Corpus:
    made = unit.need("corpus")
    store, card = Store(context.store), unit.card
    if made is not None:
        assert context.pool is not None
        return read_corpus(store.unit_dir("corpus", made.fingerprint), context.pool.root)
    assert card.corpus is not None
    cache = store.cache_file("corpora.json")
    found, _ = check_corpus(card.corpus.path, num_classes=card.corpus.num_classes, cache=cache)
    chosen = Corpus(found.num_classes, evenly(choose(found.images, card.subset), unit.protocol.max_frames))
    if chosen.content_hash != unit.inputs["corpus"]:
        raise FileChangedError(f"{card.corpus.path} has changed since the run was planned; run the same command again")
    return chosen


def _split(found: Corpus) -> tuple[list[int], list[int]]:
    """(train, held out): a tenth of the images in the order of a hash, at most 64, none of fewer than ten."""
    order = sorted(range(len(found.images)), key=lambda i: fingerprint(["held out", found.images[i].sha256]))
    n = min(len(order) // HELD_OUT[0], HELD_OUT[1])
    return sorted(order[n:]), sorted(order[:n])


def _pseudo_miou(net: Network, held_out: _Part, unit: Unit, classes: int) -> dict[str, float | None]:
    """mIoU on the held-out pseudo-labels: of the network, and of the class that would be the best constant."""
    if not len(held_out):
        return {"heldout_miou": None, "heldout_miou_constant": None}
    total = np.zeros((classes, classes), dtype=np.int64)
    whole = unit.protocol.model_copy(
        update={"window_px": None, "stride_px": None}
    )  # protocols that share this differ there
    for frame, pred in predict(net, held_out, whole, _unheard):
        total += confusion_matrix(pred, frame.label, classes)
    truth = total.sum(1)
    if not truth.sum():
        return {"heldout_miou": None, "heldout_miou_constant": None}
    return {"heldout_miou": metrics.miou(total), "heldout_miou_constant": metrics.constant(truth)[1]}


def _unheard(done: int, total: int, /, **facts: float) -> None:
    """Tells nobody."""


def _permuted(weights: EncoderWeights, unit: Unit) -> EncoderWeights:
    """The values of each tensor permuted within it: their distribution stays, what they learned is gone."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        seed = derive_seed("permuted", unit.inputs["permuted"], unit.replicate or 0, name)
        order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(seed))
        tensors[name] = tensor.flatten()[order].reshape(tensor.shape)
    return EncoderWeights(tensors, weights.mean, weights.std, f"{weights.origin}, permuted")
