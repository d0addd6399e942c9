"""A kept network as an ONNX file: grey values of any size go in, logits and classes come out; normalisation is inside."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.network import Network
from bench import BenchError
from bench.export import exportable
from bench.train.kept import About
from safe_io.files import aside_of, write_whole

LEAST = 0.9999  # share of pixels with the class that torch finds
INPUT, OUTPUTS = "image", ("logits", "labels")
EXAMPLE = (2, 1, 70, 101)  # (N, 1, H, W): neither square nor a multiple of any stride
TRIED = ((1, 1, 240, 320), (2, 1, 97, 131))
HOW = "classes of 8-bit grey values; resize images to image_px, and cut windows of window_px, where they are set"

Images = NDArray[np.uint8]  # (N, 1, H, W)


class _Graph(nn.Module):
    """From grey values (N, 1, H, W) uint8 to logits (N, K, H, W) and classes (N, H, W) uint8."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.network(image.float() / 255)
        return logits, logits.argmax(1).to(torch.uint8)


def write_onnx(network: Network, about: About, path: Path) -> float:
    """Write the ONNX file of a network; return the share of pixels to which onnxruntime gives the class that torch does.

    Raises:
        BenchError: the file cannot be written, torch cannot export this network, or onnxruntime disagrees with torch.
    """
    refuse_unwritable(path)
    data = to_onnx(network, about)
    agrees = agreement(network, data, made_images())
    if agrees < LEAST:
        raise BenchError(
            f"{path} was not written: onnxruntime finds another class than torch on {1 - agrees:.2%} of the pixels; "
            f"the backbone {about.backbone} cannot be exported with these versions"
        )
    write_whole(path, data)
    return agrees


def to_onnx(network: Network, about: About) -> bytes:
    """Return the content of the ONNX file. Any number of images, height and width; always in fp32.

    Raises:
        BenchError: torch cannot export this network.
    """
    free = torch.export.Dim.DYNAMIC
    example = torch.zeros(EXAMPLE, dtype=torch.uint8)
    try:
        with torch.no_grad(), _quietly(), exportable.operations():
            made = torch.onnx.export(
                _Graph(network).eval(),
                (example,),
                input_names=[INPUT],
                output_names=OUTPUTS,
                dynamic_shapes={INPUT: {0: free, 2: free, 3: free}},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise BenchError(f"torch cannot export the backbone {about.backbone} to ONNX: {why}") from error
    assert made is not None
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code, with paths of this machine
    made.model.graph.metadata_props.clear()
    made.model.metadata_props.update(metadata_of(about))
    made.model.doc_string = HOW
    return _with_names(made.model_proto)


def _with_names(model: onnx.ModelProto) -> bytes:
    """Return the content of a file whose inputs and outputs have named sides, in place of formulas over symbols."""
    del model.graph.value_info[:]  # the same formulas, of what is between them
    for value in (*model.graph.input, *model.graph.output):
        sides = value.type.tensor_type.shape.dim
        for side, name in ((sides[0], "images"), (sides[-2], "height"), (sides[-1], "width")):
            side.dim_param = name
    return bytes(model.SerializeToString())


def metadata_of(about: About) -> dict[str, str]:
    """Return what the file says about the network; lists and sizes as JSON."""
    protocol = about.protocol
    facts = about.model_dump(include={"run", "source", "backbone", "replicate", "target", "classes", "network_sha256"})
    facts |= {"protocol": protocol.name, "made_by": "satir-bench"}
    facts |= {"image_px": protocol.image_px, "window_px": protocol.window_px, "stride_px": protocol.stride_px}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def agreement(network: Network, data: bytes, images: Sequence[Images]) -> float:
    """Return the share of pixels to which onnxruntime gives the class that torch gives on a CPU. data: the ONNX file.

    Raises:
        BenchError: onnxruntime cannot run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    graph, equal, pixels = _Graph(network).eval(), 0, 0
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for some in images:
            (labels,) = session.run(OUTPUTS[1:], {INPUT: some})
            with torch.inference_mode():
                expected = graph(torch.tensor(some))[1].numpy()
            equal += int((labels == expected).sum())
            pixels += expected.size
    except Exception as error:  # it has a class of exception for each kind of failure, with no common base
        why = " ".join(str(error).split())[:200]
        raise BenchError(f"onnxruntime cannot run the exported network: {why}") from error
    return equal / pixels


def made_images() -> list[Images]:
    """Return images of two sizes: patches of random grey values with noise."""
    rng = np.random.default_rng(0)
    made = []
    for count, _, height, width in TRIED:
        patches = rng.integers(0, 206, (count, 1, -(-height // 24), -(-width // 24)))
        grey = patches.repeat(24, axis=2).repeat(24, axis=3)[..., :height, :width]
        made.append((grey + rng.integers(0, 50, grey.shape)).astype(np.uint8))
    return made


def refuse_unwritable(path: Path) -> None:
    """Find out before the export, which can take minutes.

    Raises:
        BenchError: the file cannot be written.
    """
    if path.is_dir():
        raise BenchError(f"--onnx {path} is a folder: name a file, such as {path / 'network.onnx'}")
    aside = aside_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise BenchError(f"--onnx {path} cannot be written: {error.strerror}; choose another file") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch's remarks on its own progress off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
