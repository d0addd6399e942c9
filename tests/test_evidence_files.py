from pathlib import Path

import pytest
from examples import evidence, record

from results.evidence_files import EvidenceKey, read_evidence
from results.record_files import write_record
from results.store import Store, StoreError


def test_evidence_of_another_run_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="evidence_sha256"):
        write_record(store, record(), evidence(seed=7))
    folder = write_record(store, record(), evidence())
    (folder / "evidence.npz").write_bytes(evidence(seed=7).to_bytes())
    with pytest.raises(StoreError, match="does not match the checksum"):
        read_evidence(store, record())


def test_evidence_that_changed_after_the_table_was_read_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = write_record(store, record(), evidence())
    key = EvidenceKey(tmp_path, folder, record().run, str(record().evidence_sha256))
    assert key.read().to_bytes() == evidence().to_bytes()
    write_record(store, record(0, seed=7), evidence(seed=7))
    with pytest.raises(StoreError, match="changed since the table was read"):
        key.read()
