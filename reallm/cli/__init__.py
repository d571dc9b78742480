"""The ``reallm`` command. Its verbs are imported when they are invoked, so that help is quick."""

import errno
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from reallm import __version__
from reallm.errors import InputError, how_to_get, nearest
from reallm.memory import ran_out

VERBS = {
    "data": "Make manifests of a corpus or your data.",
    "tokenizer": "Train a tokenizer on a manifest's texts.",
    "train": "Train a system, or resume its training.",
    "align": "Find when each token was spoken.",
    "decode": "Stream a manifest through a system.",
    "score": "Count errors and delays of hypotheses.",
    "report": "Make curves, pictures and tables.",
    "export": "Write a system as a bundle, or as ONNX.",
    "transcribe": "Transcribe files or the microphone.",
    "components": "List the registered components.",
    "config": "Check YAML files before training.",
    "check": "Run the contract tests on a component.",
}


UsageError: Any = typer.BadParameter.__base__  # Click's, which typer does not name
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def _refused(error: OSError) -> str | None:
    """One line for what the operating system refuses and a user can mend; None for what may be a bug."""
    place = error.filename2 or error.filename
    named = f"{place}: " if place else ""
    if error.errno in DISK_FULL:
        return f"{named}{error.strerror}: free some space and start the same command again"
    if error.errno in WRONG_PLACE and place:
        return f"{named}{error.strerror}: name another place"
    return None


def _absent(error: ModuleNotFoundError) -> str | None:
    """One line for a package that an extra would have installed; None for what may be a bug."""
    from importlib.metadata import requires

    module = re.escape((error.name or "").partition(".")[0].lower())
    for requirement in requires("reallm") or []:
        package, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == .(\w+)", requirement)
        if package and extra and re.fullmatch(module + "(_.*)?", re.sub("[-.]", "_", package[0].lower())):
            return f"this needs {package[0]}, which is not installed: {how_to_get(extra[1])}"
    return None


def load_verb(verb: str) -> Any:
    """The command of ``reallm/cli/<verb>.py``: its ``app`` if it has one, else its function named like the verb."""
    module = importlib.import_module(f"reallm.cli.{verb}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(verb)(getattr(module, verb))
    command = typer.main.get_command(app)
    command.name = verb
    return command


class LazyGroup(TyperGroup):
    """Lists all verbs from a table, imports only the one that runs; turns errors into exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs in the order of use."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What help shows of a verb; ``resolve_command`` finds the one that runs."""
        return TyperCommand(cmd_name, help=VERBS[cmd_name], rich_markup_mode=None) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the verb."""
        verb, rest = args[0], args[1:]
        if verb not in VERBS:
            raise InputError(f"unknown verb '{verb}'{nearest(verb, VERBS)}: see reallm --help")
        return verb, load_verb(verb), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. InputError, a wrong option, a full disk, a place that cannot be written, an extra that is not
        installed, no memory left: one line and exit code 2; an interrupt: 130; a reader that went away: 141.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except InputError as error:
            print(f"reallm: error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None
        except UsageError as error:  # Click's own way is four lines
            asked = error.ctx.command_path if error.ctx is not None else "reallm"
            if said := " ".join(error.format_message().split()).rstrip("."):  # empty: help was printed in its place
                print(f"reallm: error: {said}; see {asked} --help", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("reallm: interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except RuntimeError as error:
            if not ran_out(error):  # verbs that know what would fit have said it already
                raise
            print(
                f"reallm: error: not enough memory ({str(error).splitlines()[0]}): take a smaller model, or a device with more",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        except BrokenPipeError:
            # The interpreter flushes standard output once more at its end: let it flush into nothing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except (OSError, ModuleNotFoundError) as error:
            line = _refused(error) if isinstance(error, OSError) else _absent(error)
            if line is None:
                raise
            print(f"reallm: error: {line}", file=sys.stderr)
            raise SystemExit(2) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"reallm {__version__}")
        raise typer.Exit


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def reallm(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", callback=_show_version, is_eager=True),
) -> None:
    """Speech ReaLLM: train, stream, measure and share decoder-only speech recognition."""


def main(args: Sequence[str] | None = None) -> None:
    """The console script. Always leaves by SystemExit, or by the traceback of a bug."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another encoding must not end an hour's transcript with a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    typer.main.get_command(app)(args=None if args is None else list(args), prog_name="reallm")
