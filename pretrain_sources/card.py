"""The card that describes a pretraining source. Importing this loads no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SourceCard(BaseModel):
    """Where an encoder's weights come from. Frozen; its canonical JSON is part of the identity of every run made with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="the source's true name")
    kind: Literal["random", "imagenet"] = Field(
        description="random initialisation, or ImageNet weights of the backbone at hand"
    )
    long: bool = Field(default=False, description="finetuned for as many extra steps as a pretraining stage has")
    description: str = Field(description="one sentence for the board")

    def identity(self) -> dict[str, object]:
        """What shapes a result: all but the text for people."""
        return self.model_dump(exclude={"description"})
