"""Read the evidence of runs, checked against the record or table row that was made from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.evidence import MOST_BYTES, Evidence, sha256
from results.record import TEST, RunRecord, evidence_name
from results.record_files import find_record
from results.store import Store, StoreError
from safe_io.files import read_regular


def read_evidence(store: Store, record: RunRecord, split: str = TEST) -> Evidence:
    """Read the evidence of a run on a test split and check it against its record.

    Raises:
        StoreError: the evidence is missing, damaged, or does not match the record.
    """
    path = store.folder_of(record) / evidence_name(split)
    try:
        data = read_regular(path, MOST_BYTES, links=True)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if sha256(data) != record.evidence_digest(split):
        raise StoreError(
            f"{path} does not match the checksum in its record.json: restore the file, or run the replicate again"
        )
    try:
        return Evidence.from_bytes(data)
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error


@dataclass(frozen=True)
class EvidenceKey:
    """Identifies the evidence behind a table row; used as cache key.

    Attributes:
        root: root of the store with the run. folder: folder of the run. sha256: of the evidence when the table was read.
            split: test split that the evidence is of.
    """

    root: Path
    folder: Path
    run: str
    sha256: str
    split: str = TEST

    @classmethod
    def of_row(cls, store: Store, row: Mapping[Any, Any]) -> "EvidenceKey":
        """Return the key for a row of the table of `store`; the run may be in a submission next to it."""
        owner = store.of_row(row)
        folder, split = owner.folder_of_row(row), str(row.get("test_split", TEST))
        return cls(owner.root, folder, str(row["run"]), str(row["evidence_sha256"]), split)

    def read(self) -> Evidence:
        """Read the evidence.

        Raises:
            StoreError: the record or evidence has changed since the table was read.
        """
        store = Store(self.root)
        record = find_record(store, self.folder, self.run)
        if record is None or record.evidence_digest(self.split) != self.sha256:
            raise StoreError(f"the record in {self.folder} has changed since the table was read: run the command again")
        return read_evidence(store, record, self.split)
