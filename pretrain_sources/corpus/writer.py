"""Writing a corpus from a teacher's masks on a pool, or from the stored masks of another corpus."""

import hashlib
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from pretrain_sources.corpus.check import Report
from pretrain_sources.corpus.contact_sheet import contact_sheet
from pretrain_sources.corpus.labels import MASK_SCHEMA, EncodedMasks, make_label
from pretrain_sources.corpus.manifest import CorpusError, Manifest, made_manifest
from pretrain_sources.corpus.mask_cache import ImageMasks, Refusal
from pretrain_sources.corpus.tables import content_hash, image_rows, label_path, rows_of
from pretrain_sources.image_files import IGNORE, decode_label, decode_thermal
from pretrain_sources.pool import GROUPS_FILE, PoolImage, images_hash
from pretrain_sources.recipe import Recipe
from pretrain_sources.run_lengths import from_run_lengths
from safe_io.files import clear_leftovers, open_regular, whole, write_whole

MASKS_AT_A_TIME = 20_000  # in memory before they are written
ON_THE_SHEET = 12  # images on the contact sheet
MASKS = pa.schema(
    [
        *(("image", pa.string()), ("mask", pa.int32())),
        *MASK_SCHEMA,
        *(("rank_key", pa.float64()), ("rank", pa.int32()), ("visible_px", pa.int32())),
    ]
)
IMAGES = pa.schema(
    [
        *((name, pa.string()) for name in ("image", "file", "group", "sha256")),
        *((name, pa.int32()) for name in ("height", "width", "masks")),
        ("class_px", pa.list_(pa.int64())),
        *((name, pa.string()) for name in ("label_sha256", "refused", "why")),
    ]
)


@dataclass(frozen=True)
class CorpusWriter:
    """Writes a corpus from a teacher's masks by a recipe, with one image in memory at a time.

    Attributes:
        out: folder of the corpus.
        images: folder that image names are relative to.
        teacher: its identity.
        keep_images: also store the images, as hard links where possible.
        device: that the teacher drew on; None: unknown.
        left_out: ready-made masks that are not used, by reason.
    """

    out: Path
    images: Path
    recipe: Recipe
    teacher: Mapping[str, Any]
    keep_images: bool = True
    device: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def write(self, masks: Iterable[ImageMasks], total: int, report: Report = lambda done, total: None) -> Manifest:
        """Write the corpus, its manifest last. After a kill, writing starts again and yields the same bytes.

        masks: of each image, ordered by name. total: number of images.

        Raises:
            CorpusError: no image got a label map. OSError: `out` cannot be written.
        """
        out = self.out
        rows: list[dict[str, Any]] = []
        with whole(out / "masks.parquet") as aside, pq.ParquetWriter(aside, MASKS, compression="zstd") as writer:

            def report_alive(done: int, total: int) -> None:
                os.utime(aside)  # a block of masks may take a day, the age at which other hosts delete temporary files
                report(done, total)

            for table in _in_blocks(self._labelled(masks, rows, total, report_alive)):
                writer.write_table(table)
        with whole(out / "images.parquet") as aside:
            pq.write_table(pa.Table.from_pylist(rows, schema=IMAGES), aside, compression="zstd")
        manifest = _manifest(rows, self)
        if self.keep_images and (self.images / GROUPS_FILE).is_file():  # keeps the groups of a copy
            _link_or_copy(self.images / GROUPS_FILE, out / "images" / GROUPS_FILE)
        write_whole(out / "contact.png", _sheet(out, self.images, rows, manifest))
        clear_leftovers(out)
        if hasattr(os, "sync"):
            os.sync()  # flush all label maps before the manifest marks the corpus as complete
        write_whole(out / "manifest.json", (manifest.to_json() + "\n").encode())
        return manifest

    def _labelled(
        self, masks: Iterable[ImageMasks], rows: list[dict[str, Any]], total: int, report: Report
    ) -> Iterator[pa.Table]:
        """Write label maps, add a row for each image to `rows`, and yield the masks of each image."""
        for done, one in enumerate(masks, start=1):
            row, table = self._label(one)
            rows.append(row | {"file": one.image.path.relative_to(self.images).as_posix()})
            if self.keep_images and row["refused"] != "unreadable":
                _link_or_copy(one.image.path, self.out / "images" / rows[-1]["file"])
            if table is not None:
                yield table
            report(done, total)

    def _label(self, one: ImageMasks) -> tuple[dict[str, Any], pa.Table | None]:
        """Write the label map of an image; return (row of images.parquet, rows of masks.parquet or None)."""
        image, masks = one.image, one.masks
        row = {
            "image": image.id,
            "group": image.group,
            "sha256": image.sha256,
            "height": one.size[0],
            "width": one.size[1],
            "masks": 0,
            "class_px": None,
            "label_sha256": None,
        }
        if isinstance(masks, Refusal):
            return row | {"refused": masks.kind, "why": masks.why}, None
        n = masks.table.num_rows
        made = make_label(masks, self.recipe, image.sha256)
        if made is None:
            zeros = np.zeros(n, np.int32)
            most = self.recipe.max_area_frac
            why = f"none of {n} masks has {self.recipe.min_area_px} pixels" + (
                f" to {most:.0%} of them" if most < 1 else ""
            )
            nothing = {"rank_key": np.full(n, np.nan), "rank": zeros, "visible_px": zeros}
            return row | {"masks": n, "refused": "no mask", "why": why}, _mask_rows(image.id, masks, nothing)
        data = _png(made.label)
        write_whole(label_path(self.out, image.id), data, sync=False)
        counts = np.bincount(made.label.ravel(), minlength=256)
        row |= {
            "masks": n,
            "class_px": [*counts[: self.recipe.num_classes].tolist(), int(counts[IGNORE])],
            "label_sha256": hashlib.sha256(data).hexdigest(),
            "refused": "",
            "why": "",
        }
        ranks = {"rank_key": made.rank_key, "rank": made.rank, "visible_px": made.visible_px}
        return row, _mask_rows(image.id, masks, ranks)


def stored_masks(corpus: Path, images: Path | None = None) -> Iterator[ImageMasks]:
    """Yield the stored masks of each image of a corpus, without running a teacher.

    Raises:
        CorpusError: the corpus is ready-made or unfinished, or its tables cannot be read.
    """
    made_manifest(corpus)
    root = images or corpus / "images"
    try:
        rows = image_rows(corpus)
        blocks = _by_image(pq.ParquetFile(open_regular(corpus / "masks.parquet")))
        name, table = next(blocks, ("", MASK_SCHEMA.empty_table()))
        for row in rows:
            image = PoolImage(row["image"], root / row["file"], row["group"], row["sha256"])
            size = (row["height"], row["width"])
            if row["image"] == name:
                yield ImageMasks(image, size, EncodedMasks(table, size))
                name, table = next(blocks, ("", MASK_SCHEMA.empty_table()))
            else:
                yield ImageMasks(image, size, Refusal(row["refused"], row["why"]))
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"cannot read the tables of {corpus}: {error}; make the corpus again") from error


def _mask_rows(image: str, masks: EncodedMasks, ranks: Mapping[str, Any]) -> pa.Table:
    n = masks.table.num_rows
    columns = {name: masks.table[name] for name in MASK_SCHEMA.names}
    return pa.table({"image": [image] * n, "mask": np.arange(n, dtype=np.int32), **columns, **ranks}, schema=MASKS)


def _in_blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Concatenate tables, so that a file of many images has few row groups."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= MASKS_AT_A_TIME:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _by_image(file: pq.ParquetFile) -> Iterator[tuple[str, pa.Table]]:
    """Yield (image, its masks) in the order of the file; an image is within one row group."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        lengths = pc.run_end_encode(table["image"].combine_chunks())
        begin = 0
        for name, end in zip(lengths.values.to_pylist(), lengths.run_ends.to_pylist(), strict=True):
            yield name, table.slice(begin, end - begin).select(MASK_SCHEMA.names)
            begin = end


def _manifest(rows: list[dict[str, Any]], writer: CorpusWriter) -> Manifest:
    recipe, good = writer.recipe, [row for row in rows if not row["refused"]]
    refused = Counter(row["refused"] for row in rows if row["refused"])
    if not good:
        reasons = "; ".join(f"{count} {kind}" for kind, count in refused.items())
        raise CorpusError(f"none of {len(rows)} images got a label map: {reasons}, for example {rows[0]['why']}")
    class_px = np.sum([row["class_px"] for row in good], axis=0)
    uncovered = class_px[0] if recipe.uncovered == "zero" else class_px[-1]
    pool = (PoolImage(row["image"], Path(row["file"]), row["group"], row["sha256"]) for row in rows)
    return Manifest(
        num_classes=recipe.num_classes,
        recipe=recipe.labelling(),
        teacher=dict(writer.teacher),
        pool_hash=images_hash(tuple(pool)),
        images=len(good),
        masks=sum(row["masks"] for row in good),
        refused=dict(sorted(refused.items())),
        uncovered_frac=float(uncovered / class_px.sum()),
        class_px=class_px.tolist(),
        content_hash=content_hash(recipe.num_classes, rows_of(rows)),
        device=writer.device,
        left_out=dict(writer.left_out),
    )


def _sheet(out: Path, images: Path, rows: list[dict[str, Any]], manifest: Manifest) -> bytes:
    good = [row for row in rows if not row["refused"]]
    picks = np.unique(np.linspace(0, len(good) - 1, min(ON_THE_SHEET, len(good))).round().astype(int))
    shown = [good[i] for i in picks]
    kept = pq.read_table(
        out / "masks.parquet", filters=[("image", "in", [row["image"] for row in shown]), ("rank", ">", 0)]
    )
    panels = []
    for row in shown:
        masks = kept.filter(pc.equal(kept["image"], row["image"])).sort_by("rank")
        size = (row["height"], row["width"])
        drawn = [from_run_lengths(np.array(runs, np.uint32), size) for runs in masks["rle"].to_pylist()]
        image = decode_thermal((images / row["file"]).read_bytes())
        panels.append((row["image"], image, drawn, decode_label(label_path(out, row["image"]).read_bytes())))
    return contact_sheet(panels, _title(manifest), manifest.num_classes)


def _title(manifest: Manifest) -> str:
    """Return teacher, recipe and uncovered share in one line."""
    teacher, recipe = manifest.teacher, manifest.recipe
    by = {"sam": "model", "transformers": "model", "python": "entry"}.get(teacher["kind"], "kind")
    rule = f"top {recipe['top_k']} by {recipe['rank_by']}, {recipe['overlap']}" + ", binary" * recipe["binary"]
    return f"{teacher[by]}: {rule}; {manifest.images} images, {manifest.uncovered_frac:.0%} of the pixels in no mask"


def _link_or_copy(source: Path, path: Path) -> None:
    """Make a hard link, or a copy if that is impossible; replace an existing file."""
    with whole(path, sync=False) as aside:
        aside.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), aside)
        except OSError:
            shutil.copyfile(source, aside)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
