"""Caching facts about files. `test_caches.py` covers damaged caches."""

from pathlib import Path

from pretrain_sources.file_state import FactCache, stamped


def lengths(path: Path, **options: bool) -> FactCache[int]:
    """A cache of file sizes; empty files are not cached."""
    return FactCache(path, "lengths 1", decode=int, encode=int, is_sound=bool, **options)


def test_only_changed_files_are_examined(tmp_path: Path) -> None:
    files, seen = [tmp_path / name for name in "abc"], list[str]()
    for size, path in enumerate(files):
        path.write_bytes(b"x" * size)

    def look(cache: FactCache[int]) -> tuple[list[int], list[str], list[tuple[int, int]]]:
        progress: list[tuple[int, int]] = []
        seen.clear()
        wanted = {stamped(path): path for path in files}
        found = cache.look_up(wanted, examine, lambda done, total: progress.append((done, total)))
        return [found[key] for key in wanted], sorted(seen), progress

    def examine(path: Path) -> int:
        seen.append(path.name)
        return path.stat().st_size

    cache = lengths(tmp_path / "cache.json")
    assert look(cache) == ([0, 1, 2], ["a", "b", "c"], [(1, 3), (2, 3), (3, 3)])
    assert look(cache) == ([0, 1, 2], ["a"], [(1, 1)]), "unsound facts are not cached"
    files[1].write_bytes(b"four")
    assert look(cache) == ([0, 4, 2], ["a", "b"], [(1, 2), (2, 2)])
    other = FactCache(tmp_path / "cache.json", "lengths 2", decode=int, encode=int)
    assert look(other)[1] == ["a", "b", "c"], "another version invalidates the cache"
    assert look(FactCache(None, "lengths 1", decode=int, encode=int))[1] == ["a", "b", "c"]


def test_a_shared_cache_keeps_entries_of_other_files(tmp_path: Path) -> None:
    seen: list[str] = []

    def examine(name: str) -> int:
        seen.append(name)
        return 1

    for is_shared, again in ((True, 2), (False, 3)):
        seen.clear()
        cache = lengths(tmp_path / f"{is_shared}.json", is_shared=is_shared)
        for name in ("a", "b", "a"):
            cache.look_up({name: name}, examine)
        assert len(seen) == again
