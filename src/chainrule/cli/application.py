"""The program: its commands, its exit codes, and how it says that something went wrong.

Exit codes: 0, done; 1, with `--check`, what was measured is not healthy, and nothing else; 2, the
command, the model's code or a file is wrong, or chainrule failed; 3, some cells of a sweep or a map
could not be measured, and all others were; 130, interrupted by Ctrl-C; 141, the program that read
the output has ended.
"""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.core import TyperCommand

from chainrule._utils.user_code import find_place
from chainrule._utils.version import read_version
from chainrule.cli.demo import demo_command
from chainrule.cli.equation import equation_command
from chainrule.cli.explore import explore_command
from chainrule.cli.inspect import inspect_command
from chainrule.cli.map import map_command
from chainrule.cli.presets import presets_command
from chainrule.cli.report import report_command
from chainrule.cli.runs import COMMANDS as RUN_COMMANDS
from chainrule.cli.simulate import simulate_command
from chainrule.cli.streams import close_output, guard_encoding, print_error
from chainrule.cli.sweep import sweep_command
from chainrule.cli.width import width_command
from chainrule.errors import ChainruleError, abbreviate

NOT_HEALTHY, FAILED, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_CODES = (
    "Exit codes: 0, done; 1, with --check, what was measured is not healthy; 2, the command, the "
    "model's code or a file is wrong; 3, some cells of a sweep or map could not be measured; 130, "
    "interrupted."
)

_EXAMPLES = {
    "inspect": (
        "chainrule inspect model.py:build",
        "chainrule inspect model.py:build --remedies --report report.html --open",
        "chainrule inspect my_package.model:build --check --max-ratio 1000",
    ),
    "width": (
        "chainrule width model.py:build_width",
        "chainrule width model.py:build_width --widths 32,64,128 --seeds 2 --json",
    ),
    "simulate": (
        "chainrule simulate --depth 15 --activation relu --init he",
        "chainrule simulate --preset dying-relu --all",
        "chainrule simulate --depth 30 --remedies -o flow.json",
    ),
    "report": (
        "chainrule report flow.json --open",
        'chainrule report flow.json --report report.html --title "Run 12"',
    ),
    "presets": ("chainrule presets", "chainrule presets --json"),
    "equation": (
        "chainrule equation --layers 3",
        "chainrule equation --weights 0.5,-2,1.5 --activation tanh --wrt x",
        "chainrule equation --tied 1.5 --layers 30 --activation tanh --clip 0.1",
        'chainrule equation --expr "x + sigmoid(w*x)" --value x=0.5,w=1.2',
    ),
    "sweep": (
        "chainrule sweep --axis depth=2..4 --axis init=he,xavier --report a.html",
        "chainrule sweep --axis depth=5,10 --train sgd --steps 20 --store a.db",
    ),
    "map": (
        "chainrule map --axis weight_scale=1,1.3,2 --axis depth=3,6 --set width=8",
        "chainrule map --axis init=he,xavier --axis depth=3,6 --store map.db",
    ),
    "explore": (
        "chainrule explore",
        "chainrule explore --runs runs",
        "chainrule explore --port 0 --no-browser",
    ),
    "demo": ("chainrule demo", "chainrule demo --fault masked --step 100 --folder runs"),
}

_UsageError = typer.BadParameter.__mro__[1]
"""What typer raises for a wrong option: it exports one kind only, of which this is the base."""


class _Command(TyperCommand):
    """A command whose usage line names what must be given as it is, without braces."""

    def format_usage(self, ctx: typer.Context, formatter: typer.Context) -> None:  # type: ignore[override]
        pieces = (piece.strip("{}") for piece in self.collect_usage_pieces(ctx))
        formatter.write_usage(ctx.command_path, " ".join(pieces))  # type: ignore[attr-defined]


def _list_examples(lines: Sequence[str]) -> str:
    """Return the end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="chainrule",
    help="See, explain and fix gradient flow in deep networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=_CODES,
)
"""The commands as a typer application; `main` runs it and turns errors into exit codes."""

for _name, _function in (
    ("inspect", inspect_command),
    ("width", width_command),
    ("simulate", simulate_command),
    ("report", report_command),
    ("presets", presets_command),
    ("equation", equation_command),
    ("sweep", sweep_command),
    ("map", map_command),
    ("explore", explore_command),
    ("demo", demo_command),
):
    app.command(_name, cls=_Command, epilog=_list_examples(_EXAMPLES[_name]))(_function)

_runs = typer.Typer(
    help="List, show, compare, export and delete training runs that were watched.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=_list_examples([examples[0] for _, _, examples in RUN_COMMANDS]),
)
for _name, _function, _lines in RUN_COMMANDS:
    _runs.command(_name, cls=_Command, epilog=_list_examples(_lines))(_function)
app.add_typer(_runs, name="runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chainrule {read_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        args: The words after the program's name; those of this process by default.

    Raises:
        SystemExit: Always, with an exit code as listed in `chainrule --help`.

    Example:
        >>> main(["simulate", "--depth", "0"])
        Traceback (most recent call last):
            ...
        SystemExit: 2
    """
    words = list(sys.argv[1:] if args is None else args)
    guard_encoding()
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    if code == BROKEN_PIPE:
        close_output()
    if code == INTERRUPTED:
        print_error("Interrupted.", label="")
    sys.exit(code)


def _run(words: list[str]) -> int:
    """Run a command and return the exit code; an error is reported here."""
    try:
        code = app(args=words, prog_name="chainrule", standalone_mode=False)
    except BaseException as error:  # whatever it is, it must not end in "not healthy"
        code = _find_code(error)
        if code == FAILED:
            _report(error, words)
    return code if isinstance(code, int) else 0


def _find_code(error: BaseException) -> int:
    """Return the exit code that an exception stands for."""
    stopped = error.__context__ if isinstance(error, SystemExit) else error
    if isinstance(stopped, BrokenPipeError):  # typer and rich turn it into SystemExit(1)
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    return 0 if isinstance(error, SystemExit) and not error.code else FAILED


def _report(error: BaseException, words: list[str]) -> None:
    """Say what went wrong, in one message, and where to read on."""
    if isinstance(error, _UsageError):
        message = f"{error.format_message().rstrip('.')}{_find_value(error, words)}"  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            typer.echo(message, err=True)
            return
        path = context.command_path if context else _find_command(words)
        end = "" if message.endswith(("?", "!")) else "."
        print_error(f"{message}{end}\nSee: {path} --help")
        return
    if "--debug" in words:
        print_error("".join(traceback.format_exception(error)).rstrip(), label="")
    if isinstance(error, ChainruleError):
        print_error(f"{error}{_show_place(error)}")
    elif not isinstance(error, SystemExit):  # of which typer has said why
        kind = type(error).__name__
        print_error(f"{kind}: {str(error)[:500]}\nSee the traceback with --debug.")


def _find_command(words: Sequence[str]) -> str:
    """Return the command that words call."""
    known = {command.name for command in app.registered_commands} | {"runs"}
    called = [word for word in words[:1] if word in known]
    if called == ["runs"]:
        called += [word for word in words[1:2] if word in {name for name, _, _ in RUN_COMMANDS}]
    return " ".join(["chainrule", *called])


def _find_value(error: BaseException, words: Sequence[str]) -> str:
    """Return what came for an option whose value is of another kind, as the end of a message."""
    if not isinstance(error, typer.BadParameter):
        return ""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word == option:
                return f"; got {abbreviate(following)}"
            if word.startswith(f"{option}="):
                return f"; got {abbreviate(word.partition('=')[2])}"
    return ""


def _show_place(error: ChainruleError) -> str:
    """Return the line of the user's own code that made an error, if one did."""
    place = find_place(error)
    if place is None:
        return ""
    text = f"\n    {place.text}" if place.text else ""
    return f"\n  {place.describe()}{text}\nSee the traceback with --debug."
