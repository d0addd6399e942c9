"""Search for near-duplicates of a target's test images in a corpus, to mark sources that have seen the test images.

An image's fingerprint is the low frequencies (cosine transform) of a small, histogram-equalised thumbnail. Flips and crops are
applied to the few test images beforehand, so each corpus image is decoded and fingerprinted once. Equalisation removes gain and
gamma; the sign of the correlation reveals inversion. The best candidates of each test image are then aligned and their gradients
correlated, which rejects images with little texture or merely a similar layout.

The similarity expected by chance is estimated from images that are known to be distinct from the test images.
"""

from pretrain_sources.leak_search.chance import LEAST_DISTINCT
from pretrain_sources.leak_search.frames import READ_AHEAD, Frame, LeakSearchError, read_frames, side_by_side
from pretrain_sources.leak_search.search import LeakReport, LeakSearch, prepare
from pretrain_sources.leak_search.second_look import LOOKS, Suspect

__all__ = [
    "LEAST_DISTINCT",
    "LOOKS",
    "READ_AHEAD",
    "Frame",
    "LeakReport",
    "LeakSearch",
    "LeakSearchError",
    "Suspect",
    "prepare",
    "read_frames",
    "side_by_side",
]
