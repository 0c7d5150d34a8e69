"""The command ``ensemblerl``; each command has a module of its own, loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from ensemblerl.cli.errors import flat, told

COMMANDS = ("demo", "check", "show", "plot", "export", "rerun")
"""Each is a module beside this one with a click command of its own name, in this order."""
INTERRUPTED = 130


class Ensemblerl(click.Group):
    """Loads commands when they are called, and tells errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, if there is one of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ensemblerl.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def main(self, *args: Any, **given: Any) -> Any:
        """Run a command and end the process with its exit code: what it returns, or 0.

        An error is one line on the error stream; exit code 2 for a wrong call, else 1.
        """
        arguments = args[0] if args else given.get("args")
        debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
        given["standalone_mode"] = False
        try:
            code = super().main(*args, **given)
        except (click.Abort, KeyboardInterrupt):
            _say("interrupted")
            code = INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = error.exit_code
        except click.ClickException as error:
            _say(_of_click(error))
            code = error.exit_code
        except Exception as error:
            if debug:
                raise
            _say(told(error))
            code = 1
        sys.exit(code or 0)


def _of_click(error: click.ClickException) -> str:
    """The message, and for a wrong call where to look how it goes."""
    message = flat(error.format_message())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.rstrip('.')}; see {error.ctx.command_path} --help"
    return message


def _say(message: str) -> None:
    click.echo(f"ensemblerl: {message}", err=True)


@click.group(cls=Ensemblerl, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="ensemblerl", prog_name="ensemblerl", message="%(prog)s %(version)s"
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Run, look at and repeat campaigns of simulations.

    A PATH is the directory of a campaign: what stood behind store= when it was run. All commands
    but demo and check only read it, also while the campaign runs.
    """


def main(args: Sequence[str] | None = None) -> None:
    """The entry point."""
    cli.main(args=args, prog_name="ensemblerl")
