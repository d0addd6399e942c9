"""A corpus: thermal images with label maps. What a pool and a recipe give, or a ready-made folder.

    <corpus>/images/<file>     (or the pool's own folder)   <corpus>/labels/<name>.png   8-bit label maps
    <corpus>/masks.parquet     a row per mask               <corpus>/images.parquet      a row per image, refused ones too
    <corpus>/contact.png       for a person to judge        <corpus>/manifest.json       written last: the corpus is whole

A ready-made one has images/ and labels/ alone. Made in `writer`, from the masks that `mask_cache` keeps; read here.
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
