from pathlib import Path

from examples import evidence, record

from results.evidence_files import read_evidence
from results.record_files import read_records, write_record
from results.store import Store


def test_a_record_comes_back_with_its_evidence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_record(store, record(), evidence(), {"history.csv": "step\n"})
    records, bad = read_records(store)
    assert (records, bad) == ([record()], [])
    assert read_evidence(store, records[0]).to_bytes() == evidence().to_bytes()


def test_a_failure_never_replaces_a_good_record(tmp_path: Path) -> None:
    """A worker may be killed after its work was done; two runs may share a store."""
    store = Store(tmp_path)
    failed = record(status="failed", reason="killed")
    folder = write_record(store, failed, extra={"error.txt": "trace"})
    write_record(store, record(), evidence())
    assert not (folder / "error.txt").exists()
    write_record(store, failed)
    assert read_records(store) == ([record()], [])


def test_a_record_cut_in_half_is_named_and_the_others_stand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    torn = write_record(store, record(0), evidence(0)) / "record.json"
    write_record(store, record(1), evidence(1))
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    records, bad = read_records(store)
    assert records == [record(1)]
    assert [b.path for b in bad] == [torn]
