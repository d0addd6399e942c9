"""How far a bundle has been checked: recomputed, spot-checked, reproduced. Each is stronger than the one before it."""

import hashlib
import secrets
from importlib import metadata
from pathlib import Path

from bench import BenchError
from bench.records import now
from bench.submission import verify
from bench.watch import counting
from results import bundle as bundles
from results.bundle import BUNDLE, LEVELS, Level, Verdict
from results.store import write_atomic


def verify_bundle(
    bundle: Path,
    store: Path,
    weights: Path,
    data: Path,
    manifests: tuple[Path, ...] = (),
    spot: int | None = None,
    networks: Path | None = None,
    reproduce: bool = False,
    source: Path | None = None,
    pool: Path | None = None,
    seed: int | None = None,
) -> tuple[list[str], list[str], Level]:
    """(faults, what was done and is worth knowing, how far it got) of a bundle; leaves the verdict beside it.

    Raises:
        BundleError: it cannot be opened. BenchError: the data, a manifest or the source cannot be used.
    """
    with bundles.opened(bundle) as folder:
        judged = verify.judge(folder, manifests, store)
        level: Level = "claimed" if judged.faults else "recomputed"
        seed = secrets.randbelow(2**32) if seed is None else seed
        if spot and not judged.faults:
            from bench.submission import repeat

            where = networks or bundle.with_name(f"{bundle.name.removesuffix('.zip')}-networks")
            if not where.is_dir():
                raise BenchError(f"no folder {where} with the bundle's networks: name it with --networks")
            with counting("predicting", "images") as report:
                judged.faults += repeat.spot(judged, where, data, spot, seed, lambda n, of, /, **_: report(n, of))
            judged.done.append(f"{spot} random test images predicted anew (seed {seed})")
            level = "claimed" if judged.faults else "spot-checked"
        if reproduce and not judged.faults:
            from bench.submission import repeat

            scratch = store.with_name(f"{store.name}-reproduced")
            with counting("training again", "steps") as report:
                faults, seen = repeat.reproduce(
                    judged, source, data, pool, weights, scratch, seed, lambda n, of, /, **_: report(n, of)
                )
            judged.faults += faults
            judged.done += [f"{seen} (seed {seed})"] if seen else []
            level = "claimed" if judged.faults else "reproduced"
        listing = folder / BUNDLE
        if listing.is_file():
            level = _leave(bundle, judged, listing.read_bytes(), level)
    return judged.faults, [*judged.done, *judged.notes], level


def _leave(bundle: Path, judged: verify.Judged, listing: bytes, level: Level) -> Level:
    """Writes the verdict; a bundle that was checked further before, and passes again, stays where it was."""
    sha256, before = hashlib.sha256(listing).hexdigest(), bundles.read_verdict(bundle)
    done = list(judged.done)
    if before is not None and before.bundle_sha256 == sha256 and level != "claimed":
        done += [line for line in before.done if line not in done]
        level = max(level, before.level, key=LEVELS.index)
    told = Verdict(
        name=str(judged.name),
        level=level,
        bundle_sha256=sha256,
        checked=now(),
        version=metadata.version("satir-bench"),
        done=done,
    )
    write_atomic(bundles.verdict_file(bundle), (told.model_dump_json(indent=1) + "\n").encode())
    return level
