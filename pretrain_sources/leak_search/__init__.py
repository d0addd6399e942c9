"""Near-duplicates of a target's test images among many others: a source that has seen the test images is marked.

Every image becomes a fingerprint: the slow waves (a cosine transform) of a small, histogram-equalised thumbnail. The few test
images are flipped and cropped beforehand, so the many others are decoded and fingerprinted once. Equalising takes out gain and
gamma, the sign of the correlation tells an inverted frame. The best candidates of each test image get a second look: aligned, and
their gradients correlated, which frames of little texture or of like layout do not survive.

How alike two frames may be by chance is learnt from images that are known to be distinct from the test images.
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
