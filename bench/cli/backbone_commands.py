"""`bench backbone`: try a network before a study is built on it."""

from pathlib import Path

import click

from bench.cli.options import Group, say


@click.group(cls=Group)
def backbone() -> None:
    """Check a backbone, such as one of your own."""


@backbone.command("check")
@click.argument("name", metavar="NAME")
def backbone_check(name: str) -> int:
    """Try a backbone on small images and print each clause of its contract.

    NAME is one of `bench ls`, DECODER:ENCODER, or module:function of your own, which is imported: from the working directory,
    PYTHONPATH or an installed package. `bench plan` and `bench run` check your own in the same way.

    Exit codes: 0 it keeps the contract, 1 otherwise.
    """
    from bench.cli import extras, listing
    from bench.plan.backbone_names import named_backbone
    from safe_io.user_code import search_in

    extras.require("train")
    search_in([Path.cwd()])
    text, broken = listing.contract_report(named_backbone(name))
    say(text)
    return 1 if broken else 0
