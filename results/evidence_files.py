"""The evidence of a store's runs: read only as what a record, or a row of a table, was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.evidence import MOST_BYTES, Evidence, sha256
from results.record import RunRecord
from results.record_files import find_record
from results.store import Store, StoreError
from safe_io.files import read_regular


def read_evidence(store: Store, record: RunRecord) -> Evidence:
    """The evidence of a run, checked against its record.

    Raises:
        StoreError: it is missing, damaged, or is not what the record was made from.
    """
    path = store.folder_of(record) / "evidence.npz"
    try:
        data = read_regular(path, MOST_BYTES, links=True)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if sha256(data) != record.evidence_sha256:
        raise StoreError(f"{path} is not the evidence that record.json beside it was made from: its checksum differs")
    try:
        return Evidence.from_bytes(data)
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error


@dataclass(frozen=True)
class EvidenceKey:
    """Which evidence a row of a table was made from; a key for what is computed from it.

    Attributes:
        root: of the store that holds the run. folder: of the run. sha256: of the evidence when the table was read.
    """

    root: Path
    folder: Path
    run: str
    sha256: str

    @classmethod
    def of_row(cls, store: Store, row: Mapping[Any, Any]) -> "EvidenceKey":
        """The evidence of a row of the table of `store`, which may lie in a submission beside it."""
        held = store.of_row(row)
        return cls(held.root, held.folder_of_row(row), str(row["run"]), str(row["evidence_sha256"]))

    def read(self) -> Evidence:
        """The evidence, as it was when the table was read.

        Raises:
            StoreError: record or evidence is not that any more.
        """
        store = Store(self.root)
        record = find_record(store, self.folder, self.run)
        if record is None or record.evidence_sha256 != self.sha256:
            raise StoreError(f"the record in {self.folder} has changed since the table was read: ask again")
        return read_evidence(store, record)
