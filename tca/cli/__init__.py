"""The command line: one module a command; each parses, calls and prints, with no logic of its own.

Commands are imported when they are called, and each imports what it needs inside, so that
`tca --help` answers without loading torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import tca
from tca.errors import TcaError

COMMANDS = {
    "init": "Write a tca.yaml for a data set, recognising its layout.",
    "demo": "Render a small data set and run the whole job on it, on a CPU.",
    "data": "Look at a data set before extracting it.",
    "backbones": "List the frozen networks by name, with shapes and costs.",
    "extract": "Decode each video once and cache its features.",
    "cache": "Look at stores, check, repair, convert and merge them.",
    "model": "Tell what fusion models cost: parameters, FLOPs, memory, time.",
    "train-fusion": "Train a fusion model on cached features.",
    "runs": "List the runs of a project, or compare some.",
    "ablate": "Train a grid of settings and seeds in as few passes as can be.",
    "tune": "Search ranges of settings for the best ones.",
    "evaluate": "Score a run on a split.",
    "export": "Write a trained model for the hub, ONNX or PyTorch.",
    "bench": "Measure tca on this machine.",
}

SPOKEN_FOR = "TCA_SPOKEN_FOR"
"""Variable of processes of one training that `tca` itself started: it tells of Ctrl-C."""


class _Commands(click.Group):
    """Commands by name; their modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"tca.cli.{name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(tca.__version__, prog_name="tca")
def tca_command() -> None:
    """Cache frozen video features once, train fusion models on them in minutes.

    \b
    A first look:            tca demo
    Your own data:           tca init --data FOLDER
                             tca extract --split train
                             tca extract --split validation
                             tca train-fusion
                             tca evaluate
    """


def main() -> None:
    """Run the command line; exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    _reopen_closed_streams()
    _prepare_libraries()
    try:
        tca_command.main(arguments, prog_name="tca", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        # Of the processes of one training, one speaks.
        rank = os.environ.get("RANK")
        if rank is None or (rank == "0" and SPOKEN_FOR not in os.environ):
            click.echo(f"interrupted; {_goes_on(arguments)}.", err=True)
        return 130
    except TcaError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except MemoryError:
        click.echo("error: not enough memory; free some and run the command again.", err=True)
        return 1
    except BrokenPipeError:
        # The reader of a pipe has left.
        _give_up_stdout()
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        # A path too long, a folder that may not be searched, no room for the output.
        where = error.filename or "the output"
        click.echo(
            f"error: cannot use {where}: {error.strerror}; correct that and run the command again.",
            err=True,
        )
        if error.filename is None:
            _give_up_stdout()
        return 1
    return 0


def _goes_on(arguments: list[str]) -> str:
    """Say how to go on with a command that was interrupted."""
    whole = (["extract"], ["train-fusion"], ["ablate"], ["tune"])
    resumed = arguments[:1] in whole or arguments[:2] in (["cache", "convert"], ["cache", "merge"])
    if arguments[:1] == ["train-fusion"] and "--resume" not in arguments:
        return "go on with `tca train-fusion --resume RUN`; to start anew, name another --run"
    return f"run the same command again: it {'goes on where it was' if resumed else 'starts anew'}"


def _give_up_stdout() -> None:
    """Let stdout lead nowhere, or Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _reopen_closed_streams() -> None:
    """Let streams that were closed (`>&-`) lead nowhere, for children too.

    Otherwise the next file that is opened takes their number, and what is printed lands in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The system gives out the lowest number that is free: the one of this stream.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))


def _prepare_libraries() -> None:
    """Set what the libraries below read when they are imported; what a user has set stays."""
    settings: dict[str, Any] = {
        # No bars and warnings of their own between ours.
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        # Threads that wait for each other sleep: spinning, they take the cores from the decoding
        # threads and from whoever else works on the machine.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
