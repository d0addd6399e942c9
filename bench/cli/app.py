"""The command line: thin commands over the library. Heavy imports happen inside the commands that need them.

Exit codes: 0 success, 1 wrong usage or input, 2 some runs failed, 3 stopped early.
"""

import io
import sys
from pathlib import Path
from typing import NoReturn

import click

from bench import STOPPED, BenchError, StoppedEarlyError
from bench.cli import extras
from bench.cli.backbone_commands import backbone
from bench.cli.board_commands import claim, compare, dashboard, leaks_command, report, scaling, table
from bench.cli.corpus_commands import corpus
from bench.cli.data_commands import data, ls
from bench.cli.export_commands import export, predict
from bench.cli.options import Group
from bench.cli.run_commands import plan, run, status
from bench.cli.submit_commands import submit


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="satir-bench")
def cli() -> None:
    """Benchmark pretraining sources for thermal segmentation: which is best, by how much, and how certain is it?

    Exit codes: 0 success, 1 wrong usage or input, 2 some runs failed, 3 stopped early. `claim` and `submit` list their own.
    """


for command in (
    ls,
    data,
    backbone,
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
    predict,
    export,
    submit,
    dashboard,
):
    cli.add_command(command)


def _errors_of_use() -> tuple[type[Exception], ...]:
    """The exceptions that end with a message. Imported only after a failure, so that `bench --help` stays fast."""
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


def _exit_if_output_closed() -> None:
    """Exit with 141, as after SIGPIPE, if standard output is closed: click would exit with 1 and no message."""
    import os
    import select

    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # takes what is still to be flushed
        sys.exit(141)


def _fail(message: str, code: int = 1) -> NoReturn:
    """Print a message, which may quote files, cards and bundles, to standard error and exit."""
    from results.escape import lines_for_terminal

    click.echo(lines_for_terminal(message), err=True)
    sys.exit(code)


def main() -> None:
    """Run the `bench` command: usage and input errors become one message on standard error, never a traceback."""
    try:
        code = cli(prog_name="bench", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):  # first: other handlers import modules, which may be what was interrupted
        click.echo(STOPPED, err=True)
        sys.exit(3)
    except SystemExit:
        _exit_if_output_closed()
        raise
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)  # our usage line, then the error, which quotes the user's input
        usage, sign, why = text.getvalue().rstrip("\n").partition("Error: ")
        click.echo(f"{usage}{sign}", nl=False, err=True)
        _fail(why.expandtabs())
    except _errors_of_use() as error:
        _fail(f"bench: {error}")
    except StoppedEarlyError as error:
        _fail(f"{error}; finished work is kept: run the same command again to continue", 3)
    except ModuleNotFoundError as error:
        advice = extras.advice(error)
        if advice is None:
            raise
        _fail(f"bench: {advice}")
    except OSError as error:  # an unreadable file; most write errors are StoreErrors
        from results.store import cannot_write, is_unwritable

        if is_unwritable(error):
            _fail(f"bench: {cannot_write(Path(error.filename or 'output'), error)}")
        _fail(f"bench: {error.filename or 'input or output'}: {error.strerror or error}")
    except UnicodeEncodeError as error:  # undecodable bytes in an argument or a file name
        _fail(f"bench: {error.object} is not UTF-8 text")
    sys.exit(code)
