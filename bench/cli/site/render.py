"""Render the site's templates. Every text is untrusted: it is made visible, cut if very long, and escaped."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from results.escape import for_terminal, without_paths
from results.store import Store

# Nothing is loaded but the site's own files, and no script runs that stands in a page. Behind file:// 'self' may match nothing.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


class Renderer:
    """Renders pages of one site. boards: (title, address) for the navigation. about: name, version, newest."""

    def __init__(self, store: Store, boards: Sequence[tuple[str, str]], about: Mapping[str, str]) -> None:
        self._environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self._environment.filters["public"] = lambda text: without_paths(text, store.root)  # for messages
        self._environment.globals |= {"boards_at": boards, "about": about, "policy": POLICY}

    def page(self, template: str, address: str, **shown: Any) -> str:  # noqa: ANN401
        """Return a page. address: where it will be, relative to the site's root."""
        root = "../" * address.count("/")
        here = posixpath.basename(address)
        return self._environment.get_template(template).render(root=root, here=here, address=address, **shown)


def _shown(value: object) -> object:
    return for_terminal(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
