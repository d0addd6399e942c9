"""Export of a corpus's masks as a COCO file, which the teacher `coco` reads back bit for bit."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pretrain_sources.corpus.manifest import CorpusError, made_manifest
from pretrain_sources.corpus.mask_cache import ImageMasks, Refusal
from pretrain_sources.corpus.writer import stored_masks
from pretrain_sources.teachers.coco import ORACLE_MARK
from safe_io.files import whole

CATEGORIES = [{"id": 1, "name": "mask"}]
ORACLE_INFO = {"description": "Masks of the pool's images that people annotated: an upper bound.", ORACLE_MARK: True}


def export_coco(corpus: Path, path: Path) -> tuple[int, int]:
    """Write all stored masks with both scores, in the teacher's order; return (images, masks). Prompts are not written.

    Images without masks are listed. The masks of an oracle keep its mark. One image is in memory at a time.

    Raises:
        CorpusError: the corpus is ready-made or unfinished, or has negative scores. OSError: the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    count = 0
    with whole(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for number, one in enumerate(stored_masks(corpus), start=1):
            name = one.image.path.relative_to(corpus / "images").as_posix()
            images.append({"id": number, "file_name": name, "height": one.size[0], "width": one.size[1]})
            for row in _annotations(one, number):
                count += 1
                file.write(("\n" if count == 1 else ",\n") + json.dumps({"id": count} | row, allow_nan=False))
        info = ORACLE_INFO if made_manifest(corpus).teacher.get("oracle") else {}
        last = {"categories": CATEGORIES, "images": images} | ({"info": info} if info else {})
        file.write(
            "],\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in last.items()) + "}\n"
        )
    return len(images), count


def annotation(size: tuple[int, int], runs: list[int], image: int) -> dict[str, Any]:
    """Return an annotation of a mask (H, W) without its id. runs: its run lengths in COCO's order. image: id of its image."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    fields = {"image_id": image, "category_id": 1, "iscrowd": 0, "area": int(coco_mask.area(rle))}
    box = coco_mask.toBbox(rle).tolist()
    return fields | {"bbox": box, "segmentation": {"size": list(size), "counts": rle["counts"].decode("ascii")}}


def _annotations(one: ImageMasks, number: int) -> list[dict[str, Any]]:
    if isinstance(one.masks, Refusal):
        return []
    table: pa.Table = one.masks.table
    rows = table.select(["predicted_iou", "stability", "rle"]).to_pylist()
    if any(row["predicted_iou"] < 0 or row["stability"] < 0 for row in rows):
        raise CorpusError(
            f"a mask of {one.image.id} has a negative score, which cannot be read back: nothing was written"
        )
    return [
        annotation(one.size, row["rle"], number) | {"score": row["predicted_iou"], "stability_score": row["stability"]}
        for row in rows
    ]
