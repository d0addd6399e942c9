"""`bench leaks`: whether what a source was made from shows a target's test images, and what its scores are without them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from bench import BenchError
from bench.cli.progress import counting
from bench.plan.matrix import card_file
from bench.plan.records import now
from bench.targets import Target, open_pool, open_target
from pretrain_sources import leak_search
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import Cards, UnknownSourceError, catalog, closure, find_source, own_card
from pretrain_sources.corpus import CorpusError, check_corpus
from pretrain_sources.image_files import decode_thermal
from pretrain_sources.leak_search import LeakSearch, LeakSearchError, read_frames
from pretrain_sources.pool import PoolError, PoolImage, choose, images_hash, read_pool
from results import known_leaks as findings
from results.escape import for_terminal
from results.known_leaks import LeakFinding
from results.store import Store, slug
from results.table import runs_frame
from results.text_tables import grid

SHOWN = 20  # near-duplicates that are printed; all stand in the store


class NoImagesError(BenchError):
    """A source brings no images that could be looked through."""


def look(names: Sequence[str], target: str, data: Path, pool: Path | None, store: Store) -> str:
    """Looks for the target's test images among the images of each source, leaves what was found in the store, and tells it.

    names: sources, card files or folders with a card. pool: in place of the target's unlabelled images; for a card of checkpoints,
    the images that they were trained on.

    Raises:
        BenchError: a name is unknown, its images are not at hand, or the target cannot be used.
    """
    opened = open_target(target, data, store.cache_file(f"scan-{target}.json"))
    made: LeakSearch | None = None
    told: list[str] = []
    seen: dict[str, LeakFinding] = {}  # sources that are made from the same images share one look
    for name in names:
        card, known = _card(name)
        images = _images(card, known, opened, pool)
        digest = images_hash(images)
        if digest not in seen:
            made = made or _prepared(opened)
            seen[digest] = _found(made, card, opened, images, digest, store)
        found = seen[digest].model_copy(update={"source": card.name})
        told.append(_text(found, findings.write(store, found), store, opened))
    return "\n\n".join(told)


def _card(name: str) -> tuple[SourceCard, Cards]:
    path = card_file(name) or Path(name)
    try:
        if path.suffix in (".yaml", ".yml"):
            card = own_card(path, catalog())
            return card, {**catalog(), card.name: card}
        return find_source(name, catalog()), catalog()
    except UnknownSourceError as error:
        raise BenchError(str(error)) from error


def _images(card: SourceCard, known: Cards, target: Target, pool: Path | None) -> list[PoolImage]:
    """Every image that a source, or one that it starts from, was made from."""
    found: dict[str, PoolImage] = {}
    for each in closure([card], known).values():
        try:
            if each.corpus is not None:
                corpus, _ = check_corpus(each.corpus.path, num_classes=each.corpus.num_classes)
                chosen = choose(corpus.images, each.subset)
                found |= {i.sha256: PoolImage(i.id, i.image, i.group, i.sha256) for i in chosen}
            elif each.recipe is not None:
                images = open_pool(target, pool)
                if images is None:
                    raise BenchError(f"{target.spec.name} has no unlabelled images: name a folder with --pool DIR")
                found |= {image.sha256: image for image in choose(images.images, each.subset)}
            elif each.checkpoints and pool is not None:
                found |= {image.sha256: image for image in read_pool(pool).images}
        except (PoolError, CorpusError) as error:
            raise BenchError(f"'{each.name}': {error}") from error
    if not found:
        more = ": name the folder of the images that they were trained on with --pool DIR" if card.checkpoints else ""
        raise NoImagesError(f"'{card.name}' brings no thermal images of its own to look through{more}")
    return list(found.values())


def _prepared(target: Target) -> LeakSearch:
    """The test images, and train images of other groups as what is distinct from them."""
    test = target.splits["test"]
    groups = {frame.id: frame.group for frame in test}
    others = [f for split in ("train", "val") for f in target.splits[split] if f.group not in set(groups.values())]
    try:
        return leak_search.prepare(
            read_frames((frame.id, frame.image) for frame in test),
            read_frames((frame.id, frame.image) for frame in others),
            groups,
        )
    except LeakSearchError as error:
        raise BenchError(f"{target.spec.name}: {error}") from error


def _found(
    made: LeakSearch, card: SourceCard, target: Target, images: Sequence[PoolImage], digest: str, store: Store
) -> LeakFinding:
    paths = {image.id: image.path for image in images}
    with counting(f"looking through the images of {card.name}", "images") as report:
        try:
            told = made.find(read_frames(paths.items()), lambda done: report(done, len(paths)))
        except LeakSearchError as error:
            raise BenchError(f"'{card.name}': {error}") from error
    touched: dict[str, findings.Near] = {}
    for suspect in told.suspects:  # the most similar of each test image first
        near = findings.Near(image=suspect.corpus_id, similarity=round(suspect.similarity, 4), how=suspect.how)
        touched.setdefault(suspect.test_id, near)
    _draw(touched, paths, target, pictures_of(store, target.spec.name, card.name))
    return LeakFinding(
        source=card.name,
        target=target.spec.name,
        target_hash=target.content_hash,
        images=digest,
        image_count=len(images),
        test_images=told.test_images,
        touched=touched,
        threshold=round(told.threshold, 4),
        expected_false_alarms=round(told.expected_false_alarms, 4),
        unreadable=len(told.unreadable),
        notes=list(told.notes),
        checked=now(),
    )


def pictures_of(store: Store, target: str, source: str) -> Path:
    """Where the near-duplicates of a source can be looked at; they stay in the store and are never packed."""
    return store.unit_dir("leaks", slug(f"{target}-{source}"))


def _draw(touched: dict[str, findings.Near], paths: dict[str, Path], target: Target, folder: Path) -> None:
    frames = {frame.id: frame for frame in target.splits["test"]}
    for test_id, near in touched.items():
        theirs, ours = (decode_thermal(path.read_bytes()) for path in (frames[test_id].image, paths[near.image]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(leak_search.side_by_side(theirs, ours)).save(folder / f"{slug(test_id)}.png")


def _text(found: LeakFinding, path: Path, store: Store, target: Target) -> str:
    words = [
        f"{found.source} on {found.target}: {len(found.touched)} of {found.test_images} test images ({found.share:.1%}) have a "
        f"near-duplicate among its {found.image_count:,} images",
        f"  similarity of {found.threshold:.2f} or more; {found.expected_false_alarms:.2g} false alarms expected at most",
    ]
    lines = [*map(for_terminal, words)]
    rows = sorted(found.touched.items(), key=lambda item: -item[1].similarity)
    body = [(test, near.image, f"{near.similarity:.3f}", near.how) for test, near in rows[:SHOWN]]
    if body:
        lines += ["", grid(("test image", "its image", "similarity", "how"), body, "table")]
        lines += [f"... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        where = pictures_of(store, found.target, found.source)
        lines.append(for_terminal(f"side by side in {where}: look before you believe it"))
    lines += [for_terminal(f"  {note}") for note in found.notes]
    if found.share > 1 - findings.LEAST_CLEAN:
        lines.append(f"  under {findings.LEAST_CLEAN:.0%} of the test is clean: no pair with this source is judged")
    return "\n".join([*lines, *_scores(found, store), for_terminal(f"  kept in {path}")])


def _scores(found: LeakFinding, store: Store) -> Iterator[str]:
    """Scores on all and on clean images of the runs that the store has."""
    if not found.touched or not store.root.is_dir():
        return
    runs = runs_frame(store)
    mine = runs[
        (runs["source"] == found.source) & (runs["target_hash"] == found.target_hash) & (runs["status"] == "ok")
    ]
    body = []
    for row in mine.sort_values(["backbone", "replicate"]).to_dict("records"):
        clean = findings.clean_row(store.root, row, frozenset(found.touched))
        values = (row["miou"], clean["miou"], row["weighted_f"], clean["weighted_f"])
        body.append((f"{row['backbone']} r{row['replicate']}", *(f"{value:.4f}" for value in values)))
    if body:
        yield ""
        yield grid(("run", "mIoU, all images", "clean", "weighted F, all", "clean"), body, "table")
