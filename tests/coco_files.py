"""COCO files and folders of amg.py for tests, of a pool of images of 20 x 24 pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (20, 24)
HEADER = "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,crop_box_x0"
Change = Callable[[dict[str, Any]], object]


def square(image: int, side: int, **fields: object) -> dict[str, Any]:
    """An annotation of a square in the upper left corner, as a polygon."""
    return {"image_id": image, "segmentation": [[0, 0, side, 0, side, side, 0, side]], **fields}


def content(names: tuple[str, ...] = ("frame_00.png", "frame_01.png")) -> dict[str, Any]:
    """Two squares for each image, the larger one with the better score."""
    images = [{"id": i, "file_name": name, "height": 20, "width": 24} for i, name in enumerate(names)]
    pairs = [(square(i, 4, score=0.5), square(i, 8, score=0.75)) for i in range(len(names))]
    rows = [{"id": n, "category_id": 3, **row} for n, row in enumerate(one for pair in pairs for one in pair)]
    return {"images": images, "annotations": rows}


def write(path: Path, change: Change = lambda made: None, **fields: Any) -> Path:
    made = content(**fields)
    change(made)
    path.write_text(json.dumps(made))
    return path


def amg_folder(root: Path, names: tuple[str, ...] = ("frame_00", "frame_01"), size: tuple[int, int] = SIZE) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        rows = [HEADER]
        for i, side in enumerate((4, 8)):
            mask = np.zeros(size, np.uint8)
            mask[:side, :side] = 255
            Image.fromarray(mask).save(root / name / f"{i}.png")
            rows.append(f"{i},{side * side},0,0,{side},{side},2.0,2.0,{0.5 + i / 4},0.9,0")
        (root / name / "metadata.csv").write_text("\n".join(rows))
    return root
