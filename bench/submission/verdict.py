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
from safe_io.files import MOST_TEXT_BYTES, read_regular


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
    by: str | None = None,
) -> tuple[list[str], list[str], Level]:
    """(faults, what was done and is worth knowing, how far it got) of a bundle; leaves the verdict beside it.

    by: who checks, for whoever reads the verdict.

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
    level: Level = "recomputed"
    seed = secrets.randbelow(2**32) if seed is None else seed
    if source is not None and not judged.faults:
        from bench.submission import repeat

        faults, what = repeat.load_weights(judged, source, weights)
        judged.faults += faults
        judged.done.append(what)
    elif judged.brings_checkpoints:
        judged.notes.append("weights_sha256 is as told: with --source, the folder of its card, the file is loaded anew")
    if spot and not judged.faults:
        from bench.submission import repeat

        with counting("predicting", "images") as report:
            faults, seen = repeat.spot(judged, where, data, spot, seed, lambda n, of, /, **_: report(n, of))
        judged.faults += faults
        judged.done += [f"{seen[0]} (seed {seed})", *seen[1:]]
        level = "spot-checked"
    if reproduce and not judged.faults:
        from bench.submission import repeat

        scratch = store.with_name(f"{store.name}-reproduced")
        with counting("training again", "steps") as report:
            faults, what = repeat.reproduce(
                judged, source, data, pool, weights, scratch, seed, lambda n, of, /, **_: report(n, of)
            )
        judged.faults += faults
        judged.done += [f"{what} (seed {seed})"] if what else []
        level = "reproduced"
    tried: Level = "reproduced" if reproduce else "spot-checked" if spot else "recomputed"
    if (bundle / BUNDLE).is_file():
        listing = read_regular(bundle / BUNDLE, MOST_TEXT_BYTES, links=False)
        _leave(bundle, judged, listing, "claimed" if judged.faults else level, tried, by)
    level = "claimed" if judged.faults else level
    return judged.faults, [*judged.done, *judged.notes], level


def _leave(bundle: Path, judged: verify.Judged, listing: bytes, level: Level, tried: Level, by: str | None) -> None:
    """Writes the verdict, unless one is there of a check of this very bundle that went further: then that one stays.

    Whoever asks gets what this check found: a verdict that is there may have come with the bundle. It is named with whose it is,
    and only what it found against the bundle still counts, so that a check of less does not make a fault forgotten.
    """
    sha256, before = hashlib.sha256(listing).hexdigest(), bundles.read_verdict(bundle)
    if before is not None and before.bundle_sha256 == sha256 and LEVELS.index(before.tried) > LEVELS.index(tried):
        told = f"{bundles.verdict_file(bundle).name}, by {before.by or 'nobody named'} on {before.checked}"
        if before.faults:
            judged.faults += [f"{told}: {fault}" for fault in before.faults]
            return
        if not judged.faults:
            judged.notes.append(
                f"{told}, says '{before.level}', which this check did not repeat: delete it if you do not trust it"
            )
            return
    verdict = Verdict(
        name=str(judged.name),
        level=level,
        bundle_sha256=sha256,
        checked=now(),
        version=metadata.version("satir-bench"),
        by=by,
        tried=tried,
        faults=judged.faults,
        done=judged.done,
    )
    write_atomic(bundles.verdict_file(bundle), (verdict.model_dump_json(indent=1) + "\n").encode())
