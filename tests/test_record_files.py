from pathlib import Path

from examples import evidence, record

from results.evidence_files import read_evidence
from results.record_files import read_records, write_record
from results.store import Store


def test_record_and_evidence_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_record(store, record(), evidence(), {"history.csv": "step\n"})
    records, bad = read_records(store)
    assert (records, bad) == ([record()], [])
    assert read_evidence(store, records[0]).to_bytes() == evidence().to_bytes()


def test_failure_never_replaces_an_ok_record(tmp_path: Path) -> None:
    """A worker may be killed after its work is done; two runs may share a store."""
    store = Store(tmp_path)
    failed = record(status="failed", reason="killed")
    folder = write_record(store, failed, extra={"error.txt": "trace"})
    write_record(store, record(), evidence())
    assert not (folder / "error.txt").exists()
    write_record(store, failed)
    assert read_records(store) == ([record()], [])


def test_truncated_record_is_listed_and_others_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    truncated = write_record(store, record(0), evidence(0)) / "record.json"
    write_record(store, record(1), evidence(1))
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    records, bad = read_records(store)
    assert records == [record(1)]
    assert [b.path for b in bad] == [truncated]
