"""`bench predict`: a kept network predicts a folder of images as it predicted the test images of its run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from conftest import Bench
from kept_runs import SETTINGS, fault, frames_of, keep, network_of, runs_of, target_of
from own_backbone import Code
from PIL import Image

from bench import BenchError
from bench.export.folder import drawn_over, predict_folder
from bench.export.networks import find_network
from bench.score import confusion_matrix
from bench.targets.frames import decode_mask
from bench.train.kept import KEY, About, load_network
from results.charts import class_colours
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.record_files import write_record
from results.store import Store


@pytest.fixture(scope="module")
def store(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two replicates with sizes, windows and a class map of their own; read only."""
    return keep(tmp_path_factory.mktemp("kept"), scenes, "--keep-weights", **SETTINGS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two grey images, one of them in a subfolder, and one of another size."""
    folder = tmp_path / "thermal"
    (folder / "flight 2").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (60, 80)), ("flight 2/b.bmp", (60, 80)), ("c.jpg", (45, 51))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


def png(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# -- the predictions -------------------------------------------------------------------------------------------------------


def check_against_evidence(store: Store, scenes: Path, tmp_path: Path, bench: Bench) -> None:
    for record in runs_of(store):
        evidence, target = read_evidence(store, record), target_of(scenes, record)
        frames = frames_of(target, evidence.image_ids.tolist())
        folder, out = tmp_path / f"test-{record.replicate}", tmp_path / f"predicted-{record.replicate}"
        folder.mkdir()
        for frame in frames:
            shutil.copy(frame.image, folder)
        done = bench("predict", record.run[:12], folder, "--out", out, "--store", store.root)
        assert (done.code, done.err) == (0, "")
        for frame, expected in zip(frames, evidence.confusion, strict=True):
            truth = decode_mask(frame.label.read_bytes(), target.coding)
            truth = truth if target.relabel is None else target.relabel[truth]
            predicted = png(out / "labels" / f"{frame.image.stem}.png")
            assert (confusion_matrix(predicted, truth, len(record.classes)) == expected).all()
        assert np.count_nonzero(evidence.confusion.sum((0, 1))) > 1, "several classes are predicted"


def test_the_test_split_gives_the_confusion_matrices_of_the_evidence(
    store: Store, scenes: Path, tmp_path: Path, bench: Bench
) -> None:
    check_against_evidence(store, scenes, tmp_path, bench)
    first, second = (read_evidence(store, record).confusion for record in runs_of(store))
    assert (first != second).any(), "each run has a network of its own"


def test_so_it_does_at_the_size_of_the_frames(scenes: Path, tmp_path: Path, bench: Bench) -> None:
    check_against_evidence(keep(tmp_path, scenes, "--keep-weights", replicates=1), scenes, tmp_path, bench)


@pytest.mark.parametrize("left_out", [{"image_px": None}, {"window_px": None, "stride_px": None}], ids=str)
def test_size_and_windows_change_the_label_maps(
    left_out: dict[str, None], store: Store, scenes: Path, tmp_path: Path
) -> None:
    path, about = find_network("none x tiny", store)
    network, protocol = load_network(path, about), about.protocol.model_copy(update=left_out)
    frame = target_of(scenes, runs_of(store)[0]).splits["test"][0]
    (tmp_path / "frames").mkdir()
    shutil.copy(frame.image, tmp_path / "frames")
    for name, facts in (("whole", about), ("other", about.model_copy(update={"protocol": protocol}))):
        predict_folder(network, facts, tmp_path / "frames", tmp_path / name)
    whole, other = (png(tmp_path / name / "labels" / f"{frame.image.stem}.png") for name in ("whole", "other"))
    assert (whole != other).any()


def test_a_folder_gets_label_maps_at_the_size_of_its_images(
    store: Store, images: Path, tmp_path: Path, bench: Bench
) -> None:
    out = tmp_path / "out"
    done = bench("predict", "none x tiny", images, "--out", out, "--overlay", "--store", store.root)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out}: 3 label maps with 3 classes of scenes, by none x tiny r0\n"
    labels = {path.relative_to(out / "labels").as_posix(): png(path) for path in (out / "labels").rglob("*.png")}
    assert {name: label.shape for name, label in labels.items()} == {
        "a.png": (60, 80),
        "c.png": (45, 51),
        "flight 2/b.png": (60, 80),
    }
    assert all(label.dtype == np.uint8 and label.max() < 3 for label in labels.values())
    colours = class_colours(3)
    shown = png(out / "overlays" / "flight 2" / "b.png")
    assert (shown == drawn_over(png(images / "flight 2/b.bmp"), labels["flight 2/b.png"], colours)).all()
    legend = png(out / "legend.png")
    columns = [int(np.argwhere((legend == colour).all(2))[:, 1].min()) for colour in (*colours, (0, 0, 0))]
    assert columns[:3] == sorted(set(columns[:3])), "the classes in their colours, in their order"
    assert columns[0] < columns[3] < columns[1], "and each with its name in black"
    about = json.loads((out / "predictions.json").read_text())
    assert about["run"] == runs_of(store)[0].run
    assert [(one["index"], one["name"]) for one in about["classes"]] == [(0, "rest"), (1, "room"), (2, "street")]
    assert [one["colour"] for one in about["classes"]] == [f"#{bytes(colour).hex()}" for colour in colours]
    assert (about["images"], about["left_out"]) == (3, {})


def test_an_overlay_colours_the_classes_and_not_the_background() -> None:
    image, labels = np.full((1, 3), 100, np.uint8), np.array([[0, 1, 2]], np.uint8)
    shown = drawn_over(image, labels, np.array([[9, 9, 9], [200, 0, 50], [100, 100, 100]], np.uint8))
    assert shown.tolist() == [[[100, 100, 100], [150, 50, 75], [100, 100, 100]]]


def test_repeating_a_call_writes_the_same_files(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    call = ("predict", "none x tiny r1", images, "--out", tmp_path / "out", "--store", store.root)
    assert bench(*call).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "out" / "labels" / "a.png").unlink()
    assert bench(*call).code == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


# -- names of networks -----------------------------------------------------------------------------------------------------


def test_a_run_has_several_names(store: Store) -> None:
    record = runs_of(store)[1]
    folder, file = store.folder_of(record), network_of(store, 1)
    names = (record.run, record.run[:6], folder.name, str(folder), "none x tiny r1", str(file))
    assert {find_network(name, store)[1].run for name in names} == {record.run}
    assert find_network("none x tiny", store)[1].replicate == 0


def test_a_network_says_itself_what_it_is(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    record = runs_of(store)[0]
    alone = shutil.copy(network_of(store), tmp_path / "mine.safetensors")
    call = ("predict", alone, images, "--out", tmp_path / "out", "--store", tmp_path / "none")
    assert bench(*call).out.endswith("by none x tiny r0\n")
    assert find_network(str(alone), Store(tmp_path))[1] == About.of(record, None)


def test_an_older_network_is_known_by_the_record_around_it(store: Store, tmp_path: Path) -> None:
    older = Store(shutil.copytree(store.root, tmp_path / "store"))
    path = network_of(older)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    assert find_network(str(path), Store(tmp_path))[1] == About.of(runs_of(store)[0], None)
    run = runs_of(store)[0].run
    bundle = tmp_path / "mine-networks" / f"{run}.safetensors"
    bundle.parent.mkdir()
    shutil.copy(path, bundle)
    shutil.copytree(store.root, tmp_path / "mine" / "runs")
    assert find_network(str(bundle), Store(tmp_path))[1].run == run


def test_a_run_without_a_network_says_how_to_get_one(scenes: Path, images: Path, tmp_path: Path, bench: Bench) -> None:
    store = keep(tmp_path, scenes, replicates=1)
    why = fault(bench, "predict", "none x tiny", images, "--out", tmp_path / "out", "--store", store.root)
    assert f"the network of run {runs_of(store)[0].run[:12]} (none x tiny r0, scenes, test-v1) was not kept" in why
    assert "make it with `bench run ... --keep-weights`" in why
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_run_or_several(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    def why(name: object, root: Path = store.root) -> str:
        return fault(bench, "predict", name, images, "--out", tmp_path / "out", "--store", root)

    listed = "; ".join(f"run {r.run[:12]} (none x tiny r{r.replicate}, scenes, test-v1)" for r in runs_of(store))
    unknown = why("imagenet x tiny")
    assert "no run 'imagenet x tiny' in" in unknown
    assert listed in unknown
    assert "no store at" in why("none x tiny", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no run" in why("none x tiny", tmp_path / "empty")
    both = Store(shutil.copytree(store.root, tmp_path / "both"))
    other = runs_of(store)[0].model_copy(update={"run": "f" * 64, "protocol": "other-v1"})
    write_record(both, other, read_evidence(store, runs_of(store)[0]))
    assert "'none x tiny' is 2 runs" in why("none x tiny", both.root)
    failed = {"status": "failed", "reason": "a bug", "scores": None, "evidence_sha256": None, "further": None}
    write_record(both, other.model_copy(update=failed | {"run": "e" * 64, "source": "imagenet"}))
    assert "(imagenet x tiny r0, scenes, other-v1) has no network: it ended as failed, a bug" in why(
        "eeeeee", both.root
    )
    assert "cannot read" in why(tmp_path / "missing.safetensors")


def test_records_of_another_version(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    other = Store(shutil.copytree(store.root, tmp_path / "store"))
    first, second = runs_of(other)

    def change(record: RunRecord, **fields: Any) -> None:
        path = other.folder_of(record) / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def why(name: object) -> str:
        return fault(bench, "predict", name, images, "--out", tmp_path / "out", "--store", other.root)

    protocol = {name: value for name, value in first.settings["protocol"].items() if name != "finetune_steps"}
    change(first, settings=first.settings | {"protocol": protocol})
    expected = f"run {first.run[:12]} was made by another version of satir-bench: finetune_steps: Field required"
    assert expected in why("none x tiny")
    change(second, schema_version=0)
    damaged = (
        f"1 record cannot be read, the next `bench run` repeats such runs: {other.folder_of(second)}/record.json: "
    )
    assert f"{damaged}schema_version: Input should be 1" in why("none x tiny r1")
    assert damaged in why(other.folder_of(second))
    shutil.rmtree(other.folder_of(first))
    assert f"{other.root} has no run that can be read: start one with" in why("none x tiny r1")


def test_networks_that_cannot_be_used(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    def why(path: Path) -> str:
        return fault(bench, "predict", path, images, "--out", tmp_path / "out", "--store", store.root)

    whole = network_of(store)
    torn, text, bare, other, strange = (tmp_path / f"{i}.safetensors" for i in range(5))
    torn.write_bytes(whole.read_bytes()[:-100])
    assert "is not a network that was kept" in why(torn)
    text.write_text("not a network")
    assert "is not a network that was kept" in why(text)
    tensors = safetensors.torch.load_file(whole)
    safetensors.torch.save_file(tensors, bare)
    assert "does not say which run it is of" in why(bare)
    about = About.of(runs_of(store)[0], None)
    facts = {KEY: about.model_dump_json()}
    safetensors.torch.save_file(tensors | {"mean": tensors["mean"] + 1}, other, facts)
    assert f"is not the network that run {about.run[:12]} was scored with" in why(other)
    for backbone, expected in (("no-such", "there is no backbone"), ("os:system", "give --backbone os:system")):
        changed = about.model_copy(update={"backbone": backbone})
        safetensors.torch.save_file(tensors, strange, {KEY: changed.model_dump_json()})
        assert expected in why(strange)
    safetensors.torch.save_file(tensors, strange, {KEY: '{"run": "0"}'})
    assert "was kept by another version of satir-bench" in why(strange)


def test_a_network_of_other_tensors_is_refused(store: Store, tmp_path: Path) -> None:
    path, about = tmp_path / "less.safetensors", About.of(runs_of(store)[0], None)
    tensors = safetensors.torch.load_file(network_of(store))
    del tensors["mean"]
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(BenchError, match=r"is not a network of tiny: .*mean"):
        load_network(path, about.model_copy(update={"network_sha256": None}))


# -- folders that cannot be used ---------------------------------------------------------------------------------------------


@pytest.fixture
def why(store: Store, images: Path, tmp_path: Path, bench: Bench) -> Any:
    """Return the one line of a call on a folder, by default that of the images, that fails."""

    def call(folder: Path = images, out: Path = tmp_path / "out") -> str:
        return fault(bench, "predict", "none x tiny", folder, "--out", out, "--store", store.root)

    return call


def test_folders_without_images(why: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    assert f"no images in {tmp_path / 'empty'}: it must hold .jpg," in why(tmp_path / "empty")
    assert f"no folder {tmp_path / 'nowhere'}" in why(tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_16_bits_for_a_run_on_8_bits(why: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for i in range(2):
        Image.fromarray(np.full((40, 50), 30_000 + i, np.uint16)).save(tmp_path / "deep" / f"{i}.png")
    text = why(tmp_path / "deep")
    assert "can be used: 2 left out: 16-bit or float image (mode I;16), and the run learned from 8-bit images" in text
    assert "save it with 8 bits" in text


def test_a_run_on_16_bits_scales_them_as_its_target_does(store: Store, tmp_path: Path) -> None:
    from pretrain_sources.image_files import ImageCoding

    path, about = find_network("none x tiny", store)
    network, rng = load_network(path, about), np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    for name, pixels in (("grey", grey), ("deep", 20_000 + 10 * grey.astype(np.uint16))):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    coded = about.model_copy(update={"images": ImageCoding(limits=(20_000, 22_550))})
    predict_folder(network, about, tmp_path / "grey", tmp_path / "of-grey")
    predict_folder(network, coded, tmp_path / "deep", tmp_path / "of-deep")
    assert (png(tmp_path / "of-grey/labels/a.png") == png(tmp_path / "of-deep/labels/a.png")).all()


def test_images_that_cannot_be_used_are_left_out_and_named(
    store: Store, images: Path, tmp_path: Path, bench: Bench
) -> None:
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:60])
    (images / "empty.png").touch()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8) + np.array([9, 99, 0], np.uint8)).save(images / "false.png")
    done = bench("predict", "none x tiny", images, "--out", tmp_path / "out", "--store", store.root)
    assert done.code == 2
    assert "  1 images are coloured (false colours?) and are converted to grey (first: false.png)\n" in done.err
    assert "  1 left out: the file is empty (first: empty.png)\n" in done.err
    assert "(first: broken.png)" in done.err
    assert "4 label maps" in done.out
    assert sorted(path.name for path in (tmp_path / "out" / "labels").glob("*")) == [
        "a.png",
        "c.png",
        "false.png",
        "flight 2",
    ]
    assert json.loads((tmp_path / "out/predictions.json").read_text())["left_out"].keys() == {"broken.png", "empty.png"}


def test_two_images_of_one_stem(why: Any, images: Path) -> None:
    shutil.copy(images / "a.png", images / "a.bmp")
    assert f"{images}: a.bmp and a.png would give one label map" in why()


def test_output_folders_that_are_refused(why: Any, images: Path, tmp_path: Path) -> None:
    before = sorted(images.rglob("*"))
    (tmp_path / "link").symlink_to(images)
    for inside in (images, images / "out", tmp_path / "link"):
        assert f"--out {inside} is the folder of the images or inside it" in why(out=inside)
    assert sorted(images.rglob("*")) == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "truth.png").touch()
    assert "already holds something else" in why(out=tmp_path / "taken")
    (tmp_path / "taken" / "predictions.json").write_text("[1]")
    assert "already holds something else" in why(out=tmp_path / "taken")
    assert "is a file: choose a folder" in why(out=tmp_path / "taken" / "truth.png")
    assert f"cannot write {tmp_path / 'taken/truth.png/out'}" in why(out=tmp_path / "taken" / "truth.png" / "out")


def test_an_output_that_is_not_finite_is_no_label_map(store: Store, images: Path, tmp_path: Path, bench: Bench) -> None:
    about = About.of(runs_of(store)[0], None).model_copy(update={"network_sha256": None})
    tensors = safetensors.torch.load_file(network_of(store))
    tensors = {name: tensor * np.inf if name.startswith("decoder") else tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, tmp_path / "inf.safetensors", {KEY: about.model_dump_json()})
    words = ("predict", tmp_path / "inf.safetensors", images, "--out", tmp_path / "out", "--store", store.root)
    assert "the network's output for a.png is not finite" in fault(bench, *words)


def test_a_gpu_protocol_is_predicted_on_a_cpu_with_a_note(
    store: Store, images: Path, tmp_path: Path, bench: Bench
) -> None:
    about = About.of(runs_of(store)[0], None)
    protocol = about.protocol.model_copy(update={"device": "cuda", "precision": "bf16"})
    facts = {KEY: about.model_copy(update={"protocol": protocol}).model_dump_json()}
    safetensors.torch.save_file(safetensors.torch.load_file(network_of(store)), tmp_path / "gpu.safetensors", facts)
    words = ("predict", tmp_path / "gpu.safetensors", images, "--out", tmp_path / "out")
    done = bench(*words)
    assert done.code == 0
    assert done.err == "  the run was on a GPU in bf16, this is a CPU in fp32: a few pixels may differ\n"


def test_a_backbone_of_one_s_own_is_imported_only_where_it_is_named(
    scenes: Path, images: Path, tmp_path: Path, bench: Bench, code: Code
) -> None:
    code.write("own_net")
    name = "own_net:build"
    store = keep(tmp_path, scenes, "--keep-weights", replicates=1, backbones=(name,))
    words = ("predict", f"none x {name}", images, "--out", tmp_path / "out", "--store", store.root)
    assert f"give --backbone {name}" in fault(bench, *words)
    assert bench(*words, "--backbone", name).code == 0
