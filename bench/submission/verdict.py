"""Verify a bundle and record the verdict. Levels, each stronger than the last: recomputed, spot-checked, reproduced."""

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
    """Local folders for a check: a store to compare with, the user's weights, the targets."""

    store: Path
    weights: Path
    data: Path


@dataclass(frozen=True)
class Check:
    """What to check.

    Attributes:
        manifests: of targets without a shipped one. spot: number of random test images to predict again, None for none.
            networks: folder of its networks, None for the one beside the bundle. reproduce: train one run again. source: the
            submitter's folder. pool: unlabelled images instead of the target's. seed: None for a new one each time. by: name of
            the reviewer. trusted: backbones `module:function` that may be imported.
    """

    manifests: tuple[Path, ...] = ()
    spot: int | None = None
    networks: Path | None = None
    reproduce: bool = False
    source: Path | None = None
    pool: Path | None = None
    seed: int | None = None
    by: str | None = None
    trusted: tuple[str, ...] = ()

    @property
    def tried(self) -> Level:
        """The level of a bundle that passes."""
        return "reproduced" if self.reproduce else "spot-checked" if self.spot else "recomputed"


def verify_bundle(bundle: Path, here: Here, check: Check, counting: Counting) -> tuple[Judged, Level]:
    """Verify a bundle and write the verdict beside it; return (result, level). counting: shows progress of long work.

    Raises:
        BundleError: it cannot be opened. BenchError: the data, a manifest or the source cannot be used.
    """
    bundle = bundle.resolve()
    if not bundle.is_dir():
        raise BundleError(f"no bundle at {bundle}: give the folder that `bench submit pack` made")
    networks = check.networks or bundle.with_name(f"{bundle.name}-networks")
    if check.spot and not networks.is_dir():
        raise BenchError(f"no folder {networks} with the bundle's networks: give it with --networks")
    judged = verify.judge(bundle, check.manifests, here.store, check.trusted)
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
        _write_verdict(bundle, judged, check)
    return judged, "claimed" if judged.faults else check.tried


def _load_weights(judged: Judged, here: Here, check: Check) -> None:
    if check.source is not None and not judged.faults:
        from bench.submission.reproduce import load_weights

        judged.done.append(load_weights(judged, check.source, here.weights))
    elif judged.brings_checkpoints:
        judged.notes.append(
            "weights_sha256 is not checked: give the folder of its card with --source to load the file again"
        )


def _write_verdict(bundle: Path, judged: Judged, check: Check) -> None:
    """Write the verdict, unless there is one of a more thorough check of the same bundle.

    An existing verdict may have come with the bundle, so it never raises the result of this check: it is only named in a note. Its
    faults still count, so that a less thorough check does not clear them.
    """
    listing = read_regular(bundle / BUNDLE, MOST_TEXT_BYTES, links=False)
    sha256, before = hashlib.sha256(listing).hexdigest(), bundles.read_verdict(bundle)
    further = before is not None and LEVELS.index(before.tried) > LEVELS.index(check.tried)
    if before is not None and before.bundle_sha256 == sha256 and further:
        earlier = f"{bundles.verdict_file(bundle).name}, by {before.by or 'nobody named'} on {before.checked}"
        if before.faults:
            judged.faults += [Fault("bundle.verdict", f"{earlier}: {fault}") for fault in before.faults]
            return
        if not judged.faults:
            judged.notes.append(
                f"{earlier}, says '{before.level}', which this check did not repeat: delete it if you do not trust it"
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
