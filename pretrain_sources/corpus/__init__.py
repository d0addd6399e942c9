"""A corpus: thermal images with label maps, made from a pool by a recipe, or a ready-made folder.

    <corpus>/images/<file>     (or the pool's own folder)   <corpus>/labels/<name>.png   8-bit label maps
    <corpus>/masks.parquet     a row per mask               <corpus>/images.parquet      a row per image, with refused ones
    <corpus>/contact.png       for visual inspection        <corpus>/manifest.json       written last: the corpus is complete

A ready-made corpus has only images/ and labels/. `writer` makes a corpus from the masks in `mask_cache`.
"""

from pretrain_sources.corpus.check import check_corpus
from pretrain_sources.corpus.controls import deranged, random_ranks
from pretrain_sources.corpus.manifest import HALF, CorpusError, Manifest, made_manifest, read_manifest
from pretrain_sources.corpus.tables import Corpus, CorpusImage, read_corpus

__all__ = [
    "HALF",
    "Corpus",
    "CorpusError",
    "CorpusImage",
    "Manifest",
    "check_corpus",
    "deranged",
    "made_manifest",
    "random_ranks",
    "read_corpus",
    "read_manifest",
]
