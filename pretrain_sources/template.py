"""Template and JSON Schema of a card, made from the model that validates it. `bench submit init` writes both."""

import json
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel

from pretrain_sources.card import Checkpoint, ReadyCorpus, SourceCard
from pretrain_sources.simmim import SimMIM

Kind = Literal["checkpoint", "corpus", "recipe", "simmim"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TO_DO = "TODO"  # in a card that was not filled in
SCHEMA = "card.schema.json"

# example values for each kind; the comments come from the model
_OWN: dict[str, dict[str, Any]] = {
    "checkpoint": {
        "checkpoints": [{"backbones": ["*-efficientnet-lite1"], "path": "weights.safetensors", "rename": {}}]
    },
    "corpus": {"start": "random", "corpus": {"path": "corpus", "num_classes": None}},
    "recipe": {
        "start": "random",
        "recipe": {"teacher": {"kind": "felzenszwalb"}, "top_k": 9, "rank_by": "predicted_iou"},
    },
    "simmim": {"start": "random", "simmim": {"patch_px": 32, "mask_ratio": 0.6}},
}
_MODELS: dict[str, type[BaseModel]] = {"checkpoints": Checkpoint, "corpus": ReadyCorpus, "simmim": SimMIM}
_PROVENANCE = ("licence", "contact", "paper", "training_data")


def template(name: str, kind: Kind) -> str:
    """Return a card of this kind to fill in, with a comment above each key."""
    values = {"name": name, "description": f"{TO_DO}: one sentence about the source"} | _OWN[kind]
    values |= dict.fromkeys(_PROVENANCE) | {"training_data": "unknown"}
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        f"# {TO_DO}: fill in, then run `bench submit check` on this folder",
    ]
    for key, value in values.items():
        lines += ["", *_comment(SourceCard, key), *_entry(key, value)]
    return "\n".join(lines) + "\n"


def schema() -> str:
    """Return the JSON Schema of a card, for editors."""
    return json.dumps(SourceCard.model_json_schema(), indent=1) + "\n"


def _comment(model: type[BaseModel], key: str, indent: str = "") -> list[str]:
    text = model.model_fields[key].description
    return [f"{indent}# {text}"] if text else []


def _entry(key: str, value: Any) -> list[str]:  # noqa: ANN401
    model = _MODELS.get(key)
    if model is None:
        return [_line(key, value)]
    inner, mark = (value[0], "- ") if isinstance(value, list) else (value, "")
    lines = [f"{key}:"]
    for number, (name, each) in enumerate(inner.items()):
        lines += _comment(model, name, " " * (2 + len(mark) * (number > 0)))
        first = mark if number == 0 else " " * len(mark)
        lines.append(f"  {first}{_line(name, each)}")
    return lines


def _line(key: str, value: Any) -> str:  # noqa: ANN401
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, allow_unicode=True, width=10**6)
    return f"{key}: {text.removesuffix('...' + chr(10)).strip()}"
