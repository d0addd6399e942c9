"""Prepare a run: read and check the data of a matrix, and make its plan."""

from functools import partial

from bench import BenchError
from bench.plan.events import Show
from bench.plan.matrix import Matrix
from bench.plan.plan import Plan, Sweep, make_plan
from bench.targets import Target, open_pool, open_target
from bench.targets.mapping import map_target
from pretrain_sources.hashing import fingerprint
from pretrain_sources.pool import Pool
from results.store import Store


def look(sweep: Sweep, show: Show) -> tuple[Target, Pool | None, Plan]:
    """Return the data of a matrix and its plan. Writes only caches.

    Raises:
        BenchError: the data cannot be used.
    """
    matrix, store = sweep.matrix, sweep.store
    cache = store.cache_file(f"scan-{matrix.target}.json")
    checking = partial(show.checking, f"checking {matrix.target}")
    target = map_target(open_target(matrix.target_card, sweep.data, cache, checking), matrix.protocol.class_map)
    pool = _pool(matrix, target, store, show) if matrix.needs_pool else None
    return target, pool, make_plan(sweep, target, pool)


def _pool(matrix: Matrix, target: Target, store: Store, show: Show) -> Pool | None:
    hashing = partial(show.checking, "hashing the pool")
    pool = open_pool(target, matrix.pool, store.cache_file(f"pool-{fingerprint(str(matrix.pool))[:12]}.json"), hashing)
    if pool is not None and pool.root.resolve() in (store.root / "x").resolve().parents:
        raise BenchError(
            f"the store {store.root} is inside the pool {pool.root}: its images would count as unlabelled images; "
            "choose another --store or --pool"
        )
    if pool is not None and pool.repeated:
        show.noted(f"{pool.repeated} images of the pool are byte-identical to another and count once")
    for note in pool.notes if pool is not None else ():
        show.noted(f"the pool: {note}")
    return pool
