"""`bench leaks`: the test images that a source's own images contain, and the scores without them."""

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

SHOWN = 20  # near-duplicates to print; the store has all


class NoImagesError(BenchError):
    """A source has no images to search."""


def look(names: Sequence[str], target: str, data: Path, pool: Path | None, store: Store) -> str:
    """Search the images of each source for the target's test images; store the findings and return them as text.

    names: sources, card files or folders with a card. pool: replaces the target's unlabelled images; for a card of checkpoints,
    the images that they were trained on.

    Raises:
        BenchError: a name is unknown, its images are not available, or the target cannot be used.
    """
    opened = open_target(target, data, store.cache_file(f"scan-{target}.json"))
    prepared: LeakSearch | None = None
    texts: list[str] = []
    findings_by_images: dict[str, LeakFinding] = {}  # sources made from the same images share one search
    for name in names:
        card, known = _card(name)
        images = _images(card, known, opened, pool)
        digest = images_hash(images)
        if digest not in findings_by_images:
            prepared = prepared or _prepare(opened)
            findings_by_images[digest] = _search(prepared, card, opened, images, digest, store)
        finding = findings_by_images[digest].model_copy(update={"source": card.name})
        texts.append(_text(finding, findings.write(store, finding), store))
    return "\n\n".join(texts)


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
    """All images that a source, or a source that it starts from, was made from."""
    images_by_hash: dict[str, PoolImage] = {}
    for each in closure([card], known).values():
        try:
            if each.corpus is not None:
                corpus, _ = check_corpus(each.corpus.path, num_classes=each.corpus.num_classes)
                chosen = choose(corpus.images, each.subset)
                images_by_hash |= {i.sha256: PoolImage(i.id, i.image, i.group, i.sha256) for i in chosen}
            elif each.needs_pool:
                images = open_pool(target, pool)
                if images is None:
                    raise BenchError(f"{target.spec.name} has no unlabelled images: give a folder with --pool DIR")
                images_by_hash |= {image.sha256: image for image in choose(images.images, each.subset)}
            elif each.checkpoints and pool is not None:
                images_by_hash |= {image.sha256: image for image in read_pool(pool).images}
        except (PoolError, CorpusError) as error:
            raise BenchError(f"'{each.name}': {error}") from error
    if not images_by_hash:
        more = "; to search those that its checkpoints were trained on, give their folder with --pool DIR"
        raise NoImagesError(f"'{card.name}' has no thermal images of its own{more if card.checkpoints else ''}")
    return list(images_by_hash.values())


def _prepare(target: Target) -> LeakSearch:
    """Index the test images, with training images of other groups as examples of distinct ones."""
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


def _search(
    prepared: LeakSearch, card: SourceCard, target: Target, images: Sequence[PoolImage], digest: str, store: Store
) -> LeakFinding:
    paths = {image.id: image.path for image in images}
    with counting(f"searching the images of {card.name}", "images") as report:
        try:
            matches = prepared.find(read_frames(paths.items()), lambda done: report(done, len(paths)))
        except LeakSearchError as error:
            raise BenchError(f"'{card.name}': {error}") from error
    touched: dict[str, findings.Near] = {}
    for suspect in matches.suspects:  # the most similar of each test image first
        near = findings.Near(image=suspect.corpus_id, similarity=round(suspect.similarity, 4), how=suspect.how)
        touched.setdefault(suspect.test_id, near)
    _draw(touched, paths, target, pictures_of(store, target.spec.name, card.name))
    return LeakFinding(
        source=card.name,
        target=target.spec.name,
        target_hash=target.content_hash,
        images=digest,
        image_count=len(images),
        test_images=matches.test_images,
        touched=touched,
        threshold=round(matches.threshold, 4),
        expected_false_alarms=round(matches.expected_false_alarms, 4),
        unreadable=len(matches.unreadable),
        notes=list(matches.notes),
        checked=now(),
    )


def pictures_of(store: Store, target: str, source: str) -> Path:
    """Folder of side-by-side pictures of near-duplicates; they stay in the store and are never packed."""
    return store.unit_dir("leaks", slug(f"{target}-{source}"))


def _draw(touched: dict[str, findings.Near], paths: dict[str, Path], target: Target, folder: Path) -> None:
    frames = {frame.id: frame for frame in target.splits["test"]}
    for test_id, near in touched.items():
        theirs, ours = (decode_thermal(path.read_bytes()) for path in (frames[test_id].image, paths[near.image]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(leak_search.side_by_side(theirs, ours)).save(folder / f"{slug(test_id)}.png")


def _text(finding: LeakFinding, path: Path, store: Store) -> str:
    head = [
        f"{finding.source} on {finding.target}: {len(finding.touched)} of {finding.test_images} test images ({finding.share:.1%}) "
        f"have a near-duplicate among its {finding.image_count:,} images",
        f"  similarity of {finding.threshold:.2f} or more; {finding.expected_false_alarms:.2g} false alarms expected at most",
    ]
    lines = [*map(for_terminal, head)]
    rows = sorted(finding.touched.items(), key=lambda item: -item[1].similarity)
    body = [(test, near.image, f"{near.similarity:.3f}", near.how) for test, near in rows[:SHOWN]]
    if body:
        lines += ["", grid(("test image", "its image", "similarity", "how"), body, "table")]
        lines += [f"... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        where = pictures_of(store, finding.target, finding.source)
        lines.append(for_terminal(f"side by side in {where}: check them by eye"))
    lines += [for_terminal(f"  {note}") for note in finding.notes]
    if finding.share > 1 - findings.LEAST_CLEAN:
        lines.append(
            f"  under {findings.LEAST_CLEAN:.0%} of the test images are clean: pairs with this source are not compared"
        )
    return "\n".join([*lines, *_scores(finding, store), for_terminal(f"  stored in {path}")])


def _scores(finding: LeakFinding, store: Store) -> Iterator[str]:
    """Tabulate the scores of the store's runs on all test images and on the clean ones."""
    if not finding.touched or not store.root.is_dir():
        return
    runs = runs_frame(store)
    of_source = (runs["source"] == finding.source) & (runs["target_hash"] == finding.target_hash)
    mine = runs[of_source & (runs["status"] == "ok")]
    body = []
    for row in mine.sort_values(["backbone", "replicate"]).to_dict("records"):
        clean = findings.clean_row(store.root, row, frozenset(finding.touched))
        values = (row["miou"], clean["miou"], row["weighted_f"], clean["weighted_f"])
        body.append((f"{row['backbone']} r{row['replicate']}", *(f"{value:.4f}" for value in values)))
    if body:
        yield ""
        yield grid(("run", "mIoU, all images", "clean", "weighted F, all", "clean"), body, "table")
