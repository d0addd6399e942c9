"""Limits of the values in a record, and the types that several of its parts share."""

from typing import Annotated

from pydantic import Field

MOST = 2**31 - 1  # limit for counts: 32-bit integers
MOST_S = 1e9  # seconds: thirty years
MOST_CHARACTERS = 2_000  # limit per text in a record; longer reasons are shortened before writing
MOST_SETTINGS = 2**18  # limit for `settings` as JSON; the longest chain takes 20,000 characters

Fraction = float | None
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
