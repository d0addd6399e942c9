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
from results.bundle import BUNDLE, LEVELS, BundleError, Level, Verdict
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
    bundle = bundle.resolve()
    if not bundle.is_dir():
        raise BundleError(f"no bundle at {bundle}: name the folder that `bench submit pack` made")
    where = networks or bundle.with_name(f"{bundle.name}-networks")
    if spot and not where.is_dir():
        raise BenchError(f"no folder {where} with the bundle's networks: name it with --networks")
    judged = verify.judge(bundle, manifests, store)
    level: Level = "claimed" if judged.faults else "recomputed"
    seed = secrets.randbelow(2**32) if seed is None else seed
    if spot and not judged.faults:
        from bench.submission import repeat

        with counting("predicting", "images") as report:
            faults, seen = repeat.spot(judged, where, data, spot, seed, lambda n, of, /, **_: report(n, of))
        judged.faults += faults
        judged.done.append(f"{seen} (seed {seed})")
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
    tried: Level = "reproduced" if reproduce else "spot-checked" if spot else "recomputed"
    listing = bundle / BUNDLE
    if listing.is_file():
        told = _leave(bundle, judged, listing.read_bytes(), level, tried)
        return told.faults, [*told.done, *judged.notes], told.level
    return judged.faults, [*judged.done, *judged.notes], level


def _leave(bundle: Path, judged: verify.Judged, listing: bytes, level: Level, tried: Level) -> Verdict:
    """Writes the verdict, unless one is there of a check of this very bundle that went further: then that one stands.

    So a fault that only a spot check finds is not forgotten. A verdict proves nothing by itself: who takes in a bundle deletes
    the one that came with it.
    """
    sha256, before = hashlib.sha256(listing).hexdigest(), bundles.read_verdict(bundle)
    further = before is not None and LEVELS.index(before.tried) > LEVELS.index(tried)
    if before is not None and before.bundle_sha256 == sha256 and further and not judged.faults:
        then = f"the verdict that is there, of {before.checked}, went further than this check: delete it if you do not trust it"
        return before.model_copy(update={"done": [*before.done, then]})
    told = Verdict(
        name=str(judged.name),
        level=level,
        bundle_sha256=sha256,
        checked=now(),
        version=metadata.version("satir-bench"),
        tried=tried,
        faults=judged.faults,
        done=judged.done,
    )
    write_atomic(bundles.verdict_file(bundle), (told.model_dump_json(indent=1) + "\n").encode())
    return told
