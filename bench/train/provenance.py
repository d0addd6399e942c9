"""Provenance of a run: versions and commit. Recorded, but never part of an identity."""

import functools
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "optuna",
    "numpy",
    "scipy",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect results."""
    return {name: metadata.version(name) for name in PACKAGES}


@functools.cache
def commit() -> str | None:
    """Return the git commit of this checkout, with '+dirty' if tracked files differ; None if the harness was installed."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "provenance.py") else None
    return f"{head}{'+dirty' if git('status', '--porcelain', '--untracked-files=no') else ''}" if head else None
