"""`chainrule equation`: the chain rule on a chain of layers or on any scalar expression, no torch.

With --expr or --preset the expression is what is derived; otherwise options describe a chain with
one unit per layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from chainrule.chain.arguments import DEFAULT_LAYERS, build_chain, build_expression
from chainrule.chain.graph_presets import EXPRESSIONS
from chainrule.chain.recurrence import Recurrence
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.cli.options import DebugOption, complete, complete_list
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS

ORDERS = ("backward", "forward")


CHAIN_OPTIONS = (
    "layers",
    "activation",
    "x",
    "weights",
    "biases",
    "tied",
    "clip",
    "order",
)
"""Options that describe a chain, and must not come with an expression."""


def equation_command(  # noqa: PLR0913  (one option per setting)
    context: typer.Context,
    expr: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help='Derive this expression instead of a chain: "x + sigmoid(w*x)". Parts can have '
            'names: "h = tanh(w*x); h*h".',
        ),
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="The value of a name of the expression; several with commas or several times. "
            "[default: 1 for every name]",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Derive a known expression: {', '.join(EXPRESSIONS)}.",
            autocompletion=complete(EXPRESSIONS),
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of layers. [default: as many as weights or activations are listed, else "
            f"{DEFAULT_LAYERS}]",
        ),
    ] = None,
    activation: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"One for all layers, or one per layer with commas: {', '.join(ACTIVATIONS)}.",
            autocompletion=complete_list(ACTIVATIONS),
        ),
    ] = "sigmoid",
    x: Annotated[float, typer.Option("--x", metavar="NUMBER", help="The input.")] = 1.0,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="One per layer with commas: 0.5,-2,1.5. [default: 1 for every layer]",
        ),
    ] = None,
    biases: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="One per layer with commas. [default: no biases]"),
    ] = None,
    tied: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="One weight for every layer, as in a recurrent network through time.",
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --tied: the largest |∂p/∂w| after clipping. [default: no clipping]",
        ),
    ] = None,
    wrt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Differentiate with respect to: x, w1, w2 …, b1, b2 …, or a name of the "
            "expression. [default: w1; of an expression the first name]",
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Order of the factors: backward (output to input) or forward.",
            autocompletion=complete(ORDERS),
        ),
    ] = "backward",
    everything: Annotated[
        bool, typer.Option("--all", help="Show every factor and line of a long derivation.")
    ] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print the derivation as LaTeX instead.")
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the computational graph to a file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print graph, factors and derivation as JSON instead.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Derive a gradient line by line, of a chain or an expression.

    A chain has one unit per layer.

    In a terminal with colours, factors that make the gradient smaller are blue, factors that make
    it larger are yellow, and factors that are zero are red.
    """
    if as_json and latex:
        raise SpecError(
            "--json, --latex: must not come together; got both. Leave one out. The JSON contains "
            "the LaTeX of every line."
        )
    check_outputs({"--svg": svg})
    if expr is not None or preset is not None or value:
        _refuse_chain_options(context)
        output = _derive_expression(expr, value or [], preset, wrt, everything=everything)
    else:
        chain, recurrence = build_chain(
            layers=layers,
            activation=activation,
            x=x,
            weights=weights,
            biases=biases,
            tied=tied,
            clip=clip,
        )
        output = _derive_chain(chain, recurrence, wrt, order, everything=everything)
    if svg:
        from chainrule._utils.files import write_text

        write_text(svg, output.draw())
    if as_json:
        print_json(output.describe())
    elif latex:
        typer.echo(output.write_latex())
    else:
        output.show(open_console())
    if svg:
        print_note(f"Wrote {svg}")


@dataclass(frozen=True, slots=True)
class _Output:
    """What can be made of a derivation, each only when it is asked for."""

    draw: Callable[[], str]
    describe: Callable[[], dict[str, Any]]
    write_latex: Callable[[], str]
    show: Callable[[Console], None]


def _derive_chain(
    chain: ScalarChain,
    recurrence: Recurrence | None,
    wrt: str | None,
    order: str,
    *,
    everything: bool,
) -> _Output:
    from chainrule.chain import derive, describe_chain, draw_graph
    from chainrule.display.equation import print_equation

    name = "w1" if wrt is None else wrt.lower()
    derivation = derive(chain, name, order=order)  # type: ignore[arg-type]  # checked by it
    return _Output(
        draw=lambda: draw_graph(chain, name),
        describe=lambda: describe_chain(chain, name, order=derivation.order),
        write_latex=lambda: derivation.to_latex(fold=not everything),
        show=lambda console: print_equation(console, derivation, recurrence, fold=not everything),
    )


def _derive_expression(
    text: str | None, values: list[str], preset: str | None, wrt: str | None, *, everything: bool
) -> _Output:
    from chainrule.chain import derive_expression, describe_expression, draw_expression
    from chainrule.chain.graph_derivation import SHOWN_PATHS
    from chainrule.chain.paths import MAX_PATHS
    from chainrule.display.expression import print_expression

    graph, name = build_expression(text, values, preset, wrt)
    limit = MAX_PATHS if everything else SHOWN_PATHS
    derivation = derive_expression(graph, name, limit=limit)
    return _Output(
        draw=lambda: draw_expression(graph, name),
        describe=lambda: describe_expression(graph, name, limit=limit),
        write_latex=lambda: derivation.to_latex(fold=not everything),
        show=lambda console: print_expression(console, derivation, everything=everything),
    )


def _refuse_chain_options(context: typer.Context) -> None:
    """Raise if an option came that describes a chain."""
    came = [name for name in CHAIN_OPTIONS if _is_given(context, name)]
    if came:
        fix = "Give its value with --value x=…" if came[0] == "x" else "Leave one out"
        raise SpecError(
            f"--{came[0]}: must not come with --expr, --preset or --value, for it describes a "
            f"chain; got both. {fix}."
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
