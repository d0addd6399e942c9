"""How far a bundle has been checked: recomputed, spot-checked, reproduced. Each is stronger than the one before it."""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench import BenchError
from bench.plan.records import now
from bench.submission import verify
from bench.submission.faults import Fault, texts
from bench.submission.judged import Judged
from results import bundle as bundles
from results.bundle import BUNDLE, LEVELS, BundleError, Level, Verdict
from results.store import write_atomic
from safe_io.files import MOST_TEXT_BYTES, read_regular

Counting = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Here:
    """What is at hand where a bundle is checked: a store to compare with, the user's weights, the folder of targets."""

    store: Path
    weights: Path
    data: Path


@dataclass(frozen=True)
class Check:
    """How far to check.

    Attributes:
        manifests: of targets whose own does not ship. spot: how many random test images are predicted anew, None for none;
            networks: the folder of its networks, None for that beside it. reproduce: train one run again. source: the
            submitter's folder; pool: unlabelled images, in place of the target's. seed: of what is drawn, None for another each
            time. by: who checks, for whoever reads the verdict.
    """

    manifests: tuple[Path, ...] = ()
    spot: int | None = None
    networks: Path | None = None
    reproduce: bool = False
    source: Path | None = None
    pool: Path | None = None
    seed: int | None = None
    by: str | None = None

    @property
    def tried(self) -> Level:
        """How far a bundle gets that passes."""
        return "reproduced" if self.reproduce else "spot-checked" if self.spot else "recomputed"


def verify_bundle(bundle: Path, here: Here, check: Check, counting: Counting) -> tuple[Judged, Level]:
    """(what was found, how far it got) of a bundle; leaves the verdict beside it. counting: shows progress of long work.

    Raises:
        BundleError: it cannot be opened. BenchError: the data, a manifest or the source cannot be used.
    """
    bundle = bundle.resolve()
    if not bundle.is_dir():
        raise BundleError(f"no bundle at {bundle}: name the folder that `bench submit pack` made")
    networks = check.networks or bundle.with_name(f"{bundle.name}-networks")
    if check.spot and not networks.is_dir():
        raise BenchError(f"no folder {networks} with the bundle's networks: name it with --networks")
    judged = verify.judge(bundle, check.manifests, here.store)
    seed = secrets.randbelow(2**32) if check.seed is None else check.seed
    _load_weights(judged, here, check)
    if check.spot and not judged.faults:
        from bench.submission import spot

        with counting("predicting", "images") as report:
            judged.done += spot.spot(judged, networks, here.data, check.spot, seed, lambda n, of, /, **_: report(n, of))
    if check.reproduce and not judged.faults:
        from bench.submission.reproduce import Sources, reproduce

        scratch = here.store.with_name(f"{here.store.name}-reproduced")
        sources = Sources(check.source, here.data, check.pool, here.weights, scratch)
        with counting("training again", "steps") as report:
            judged.done += reproduce(judged, sources, seed, lambda n, of, /, **_: report(n, of))
    if (bundle / BUNDLE).is_file():
        _leave(bundle, judged, check)
    return judged, "claimed" if judged.faults else check.tried


def _load_weights(judged: Judged, here: Here, check: Check) -> None:
    if check.source is not None and not judged.faults:
        from bench.submission.reproduce import load_weights

        judged.done.append(load_weights(judged, check.source, here.weights))
    elif judged.brings_checkpoints:
        judged.notes.append("weights_sha256 is as told: with --source, the folder of its card, the file is loaded anew")


def _leave(bundle: Path, judged: Judged, check: Check) -> None:
    """Writes the verdict, unless one is there of a check of this very bundle that went further: then that one stays.

    Whoever asks gets what this check found: a verdict that is there may have come with the bundle. It is named with whose it is,
    and only what it found against the bundle still counts, so that a check of less does not make a fault forgotten.
    """
    listing = read_regular(bundle / BUNDLE, MOST_TEXT_BYTES, links=False)
    sha256, before = hashlib.sha256(listing).hexdigest(), bundles.read_verdict(bundle)
    further = before is not None and LEVELS.index(before.tried) > LEVELS.index(check.tried)
    if before is not None and before.bundle_sha256 == sha256 and further:
        told = f"{bundles.verdict_file(bundle).name}, by {before.by or 'nobody named'} on {before.checked}"
        if before.faults:
            judged.faults += [Fault("bundle.verdict", f"{told}: {fault}") for fault in before.faults]
            return
        if not judged.faults:
            judged.notes.append(
                f"{told}, says '{before.level}', which this check did not repeat: delete it if you do not trust it"
            )
            return
    verdict = Verdict(
        name=str(judged.name),
        level="claimed" if judged.faults else check.tried,
        bundle_sha256=sha256,
        checked=now(),
        version=metadata.version("satir-bench"),
        by=check.by,
        tried=check.tried,
        faults=texts(judged.faults),
        done=judged.done,
    )
    write_atomic(bundles.verdict_file(bundle), (verdict.model_dump_json(indent=1) + "\n").encode())
