"""The command line: thin commands over the library. Heavy imports happen inside the commands that need them.

Exit codes: 0 all done, 1 the call is wrong or cannot be done here, 2 some runs failed, 3 stopped early.
"""

import io
import sys
from pathlib import Path
from typing import NoReturn

import click

from bench import STOPPED, BenchError, StoppedEarlyError
from bench.cli import extras
from bench.cli.board_commands import claim, compare, dashboard, leaks_command, report, scaling, table
from bench.cli.corpus_commands import corpus
from bench.cli.data_commands import data, ls
from bench.cli.options import Group
from bench.cli.run_commands import plan, run, status
from bench.cli.submit_commands import submit


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="satir-bench")
def cli() -> None:
    """Which pretraining source is best for a thermal segmentation model, by how much, and how sure are we?"""


for command in (
    ls,
    data,
    corpus,
    plan,
    run,
    status,
    table,
    compare,
    claim,
    scaling,
    report,
    leaks_command,
    submit,
    dashboard,
):
    cli.add_command(command)


def _errors_of_use() -> tuple[type[Exception], ...]:
    """Looked up only once something went wrong, so that `bench --help` stays quick."""
    from pretrain_sources.catalog import UnknownSourceError
    from pretrain_sources.config_file import FileError
    from pretrain_sources.corpus import CorpusError
    from pretrain_sources.file_state import FileChangedError
    from pretrain_sources.pool import PoolError
    from pretrain_sources.teachers import TeacherError
    from results.board_choice import UnanswerableError
    from results.bundle import BundleError
    from results.store import StoreError

    of_files = (FileError, BundleError, StoreError, CorpusError, PoolError, FileChangedError)
    return BenchError, UnanswerableError, UnknownSourceError, TeacherError, *of_files


def _end_unread() -> None:
    """Ends as SIGPIPE does where nobody reads standard output any more: click would end with 1 and say nothing."""
    import os
    import select

    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to be flushed
        sys.exit(141)


def _fail(message: str, code: int = 1) -> NoReturn:
    """Ends the process with a message, which may quote files, cards and bundles, on standard error."""
    from results.escape import lines_for_terminal

    click.echo(lines_for_terminal(message), err=True)
    sys.exit(code)


def main() -> None:
    """The `bench` command: errors of use become one message on standard error, never a traceback."""
    try:
        code = cli(prog_name="bench", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):  # the first, because the others import what may just have been interrupted
        click.echo(STOPPED, err=True)
        sys.exit(3)
    except SystemExit:
        _end_unread()
        raise
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)  # the usage, which is ours, and what is wrong, which quotes
        usage, sign, why = said.getvalue().rstrip("\n").partition("Error: ")
        click.echo(f"{usage}{sign}", nl=False, err=True)
        _fail(why.expandtabs())
    except _errors_of_use() as error:
        _fail(f"bench: {error}")
    except StoppedEarlyError as error:
        _fail(f"{error}; what was finished is kept, and the same command goes on from there", 3)
    except ModuleNotFoundError as error:
        advice = extras.advice(error)
        if advice is None:
            raise
        _fail(f"bench: {advice}")
    except OSError as error:  # a file that cannot be read; what cannot be written is most often a StoreError
        from results.store import cannot_write, is_unwritable

        if is_unwritable(error):
            _fail(f"bench: {cannot_write(Path(error.filename or 'output'), error)}")
        _fail(f"bench: {error.filename or 'input or output'}: {error.strerror or error}")
    except UnicodeEncodeError as error:  # bytes of the call or of a file's name that are no text
        _fail(f"bench: {error.object} is not UTF-8 text")
    sys.exit(code)
