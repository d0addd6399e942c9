"""The contract of a backbone: each way to break it is found, named by its clause, and explained."""

import re

import pytest
import torch

from backbones import contract
from backbones.registry import find_backbone
from backbones.spec import BackboneError, BackboneSpec

BREACHES = [
    (
        "raises",
        "builds",
        r"broken_backbones:raises\(5\) failed: SystemExit: no 5 classes \(.*broken_backbones.py, l",
    ),
    ("only_one", "builds", r"returned Encoder: return \(encoder, decoder\)"),
    ("not_modules", "builds", r"returned type, Decoder: return \(encoder, decoder\)"),
    ("lazy", "builds", "encoder.fine.0.weight has no shape before the first image: replace lazy modules"),
    ("no_parameters", "parameters", "the encoder has no parameters"),
    ("fails_on_images", "features", r"it failed on an image: RuntimeError: .*\(.*broken_backbones.py, line \d+\)"),
    ("one_tensor", "features", r"the encoder returns one tensor, float32 of shape \(2, 12, 8, 12\): return a list"),
    ("a_dictionary", "features", "the encoder returns an object of type dict: return a list"),
    ("no_features", "features", "the encoder returns nothing: return a list"),
    ("an_empty_list", "features", "the encoder returns an empty list: return a list"),
    ("none_among_them", "features", "contains nothing: return tensors only"),
    ("tokens_only", "features", "begin with maps"),
    ("tokens_first", "features", "begin with maps"),
    ("without_batch", "features", r"\(1, 8, 16, 24\) for a batch of 2 images"),
    ("coarse_first", "features", "order them from fine to coarse"),
    ("as_a_list", "logits", "the decoder returns an object of type list: return one float tensor"),
    (
        "classes_only",
        "logits",
        r"the decoder returns one tensor, float32 of shape \(2, 5\): return one float tensor",
    ),
    ("labels", "logits", r"the decoder returns one tensor, int64 of shape \(2, 1, 8, 12\)"),
    ("one_class_more", "logits", r"shape \(2, 6, 8, 12\) for 2 images and num_classes 5: .* begin with \(2, 5\)"),
    ("another_batch", "logits", r"shape \(1, 5, 8, 12\) for 2 images"),
    ("too_large", "logits", r"shape \(2, 5, 128, 192\) for images of \(64, 96\): they must not be larger"),
    ("transposed", "logits", r"shape \(2, 5, 12, 8\) for images of \(64, 96\): height and width are exchanged"),
    ("not_finite", "logits", "are not finite"),
    ("one_colour", "logits", "equal at every place"),
    ("in_place", "input", r"replace operations in place, such as nn.ReLU\(inplace=True\)"),
    ("a_constant_map", "image", "feature 0 is the same for two images"),
    ("blind", "decoder", "the same logits for two images"),
    ("random_in_eval", "eval", "in eval mode it gives other logits"),
    ("growing", "tensors", "a forward pass adds, removes or resizes encoder.grid: create every tensor in __init__"),
    ("tied", "tensors", "encoder.coarse.weight and encoder.again.weight are one tensor"),
    ("unused", "gradient", "no gradient reaches encoder.classifier.weight, encoder.classifier.bias: use them"),
    ("frozen", "gradient", "frozen: encoder.fine.0.weight, .* and 3 more"),
    ("drawn_by_numpy", "random", "torch.manual_seed does not determine encoder.coarse.weight"),
    (
        "pretrained",
        "random",
        "100% of the encoder's weights are the same after another seed: .* without pretrained",
    ),
    ("sized_by_classes", "transfer", r"fine.2.weight, fine.3.weight of the encoder depends on num_classes"),
    ("constant_buffer", "transfer", "mask has no variance: .*persistent=False"),
]


def broken(function: str) -> dict[str, str]:
    """The broken clauses of a backbone in broken_backbones.py."""
    spec = find_backbone(f"broken_backbones:{function}")
    return {clause.name: why for clause, why in contract.problems(spec) if why is not None}


@pytest.mark.parametrize("function", ["good", "zeros_at_first"])
def test_a_backbone_that_keeps_the_contract(function: str) -> None:
    assert broken(function) == {}


@pytest.mark.parametrize(("function", "clause", "message"), BREACHES)
def test_each_breach_is_found(function: str, clause: str, message: str) -> None:
    found = broken(function)
    assert next(iter(found)) == clause, found
    assert re.search(message, found[clause]), found[clause]
    also = {"growing": {"random", "transfer"}, "no_parameters": {"random", "transfer"}}  # what follows from it
    assert set(found) - {clause} <= also.get(function, set())
    assert not [why for why in found.values() if "\n" in why]


def test_every_clause_can_be_broken() -> None:
    assert {clause for _, clause, _ in BREACHES} == {clause.name for clause in contract.CLAUSES}


def test_the_refusal_names_the_first_broken_clause() -> None:
    with pytest.raises(
        BackboneError, match=r"breaks the contract's clause 'gradient': frozen: .*check broken_backbones:fr"
    ):
        contract.require(find_backbone("broken_backbones:frozen"))


def test_trying_a_backbone_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    assert broken("good") == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_the_spec_of_ones_own_has_what_its_function_and_module_say() -> None:
    good, other = (find_backbone(f"broken_backbones:{name}") for name in ("good", "frozen"))
    described = "broken_backbones:good version 1"
    assert good == BackboneSpec(
        "broken_backbones:good", "own", described, "own", mean=(0.0, 0.5, 1.0), std=(1.0, 0.25, 0.5)
    )
    assert (other.mean, other.std) == (BackboneSpec.mean, BackboneSpec.std)
    assert good.weights_folder == "broken_backbones.good"
