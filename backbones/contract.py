"""The contract of a backbone, clause by clause: what a benchmark of pretraining sources needs of its networks.

Whoever writes a network can break each clause by accident, and most breaches would not stop a training: they would make its
result mean something else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from backbones import clauses
from backbones.clauses import BrokenError, Networks
from backbones.spec import BackboneError, BackboneSpec
from safe_io.user_code import raised


@dataclass(frozen=True)
class Clause:
    """One requirement. fatal: if it is broken, later clauses cannot be tried."""

    name: str
    check: Callable[[Networks], None]  # its docstring is the rule
    fatal: bool = False

    @property
    def rule(self) -> str:
        """The requirement in one sentence."""
        return " ".join((self.check.__doc__ or "").split())


CLAUSES = (
    Clause("builds", clauses.builds, fatal=True),
    Clause("parameters", clauses.has_parameters),
    Clause("features", clauses.gives_maps, fatal=True),
    Clause("logits", clauses.gives_logits, fatal=True),
    Clause("input", clauses.keeps_its_input),
    Clause("image", clauses.sees_the_image),
    Clause("decoder", clauses.reads_the_features),
    Clause("eval", clauses.repeats_itself),
    Clause("tensors", clauses.keeps_its_tensors),
    Clause("gradient", clauses.learns),
    Clause("random", clauses.starts_at_random),
    Clause("transfer", clauses.transfers),
)


def problems(spec: BackboneSpec) -> Iterator[tuple[Clause, str | None]]:
    """Try a backbone; yield each clause with how it is broken and what to do, or None. Ends at a fatal one that is broken.

    torch's global generator is left as it was.
    """
    networks = Networks(spec)
    for clause in CLAUSES:
        why = _problem(clause, networks)
        yield clause, why
        if why is not None and clause.fatal:
            return


def require(spec: BackboneSpec) -> None:
    """Check the whole contract.

    Raises:
        BackboneError: a clause is broken; the message names the first one.
    """
    for clause, why in problems(spec):
        if why is not None:
            raise BackboneError(
                f"breaks the contract's clause '{clause.name}': {why} (all clauses: bench backbone check {spec.name})"
            )


def _problem(clause: Clause, networks: Networks) -> str | None:
    with torch.random.fork_rng(devices=[]):
        try:
            clause.check(networks)
        except (BrokenError, BackboneError) as error:
            return str(error)
        except (Exception, SystemExit) as error:  # a user's own network can raise anything
            return f"it failed on an image: {raised(error, type(networks.parts[0]).__module__)}"
    return None
