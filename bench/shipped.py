"""The matrices and protocols that ship, by name, and the user's own files."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from bench import BenchError
from bench.spec import SMOKE, Protocol
from pretrain_sources.config_file import read_yaml, suggestion
from results.schedule_names import split_name


def shipped_files(folder: str) -> Mapping[str, Path]:
    """Map names to the YAML files shipped in bench/<folder>."""
    paths = sorted((Path(str(resources.files("bench"))) / folder).glob("*.yaml"))
    return {path.stem: path for path in paths}


def find_file(kind: str, name: str, folder: str, beside: Path | None = None) -> Path:
    """Return a shipped file by name, or the user's: a name that ends in .yaml is a path, relative to `beside`.

    Raises:
        BenchError: no such file.
    """
    if name.endswith((".yaml", ".yml")):
        return (beside or Path()) / name
    known = shipped_files(folder)
    if name in known:
        return known[name]
    if ((beside or Path()) / f"{name}.yaml").is_file():
        raise BenchError(f"unknown {kind} '{name}': did you mean the file '{name}.yaml'?")
    if Path(name).exists():
        raise BenchError(f"{name} is not a {kind}: the file name must end in .yaml")
    raise BenchError(f"unknown {kind} '{name}'{suggestion(name, known)}")


def load_protocol(name: str, beside: Path | None = None) -> Protocol:
    """Load a protocol by name or from a file."""
    return read_yaml(find_file("protocol", name, "protocols", beside), Protocol)


def named_protocol(name: str) -> Protocol:
    """Return the protocol that a name in a record stands for: a shipped one, with raised trials and smoke as the name says.

    Raises:
        BenchError: there is no such protocol, or it cannot have this many trials.
    """
    base, trials = split_name(name.removesuffix(SMOKE))
    known = shipped_files("protocols")
    if base not in known:
        raise BenchError(f"unknown protocol '{base}'{suggestion(base, known)}")
    protocol = read_yaml(known[base], Protocol)
    try:
        protocol = protocol if trials is None else protocol.with_trials(trials)
    except ValueError as error:
        raise BenchError(f"unknown protocol '{name}': {error}") from error
    return protocol.smoke() if name.endswith(SMOKE) else protocol
