"""`chainrule equation`: the chain rule on a network with one unit per layer. Needs no torch."""

from pathlib import Path
from typing import Annotated

import typer

from chainrule.chain.arguments import DEFAULT_LAYERS, build_chain
from chainrule.cli.options import DebugOption, complete, complete_list
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS

ORDERS = ("backward", "forward")


def equation_command(  # noqa: PLR0913  (one option per setting)
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
        str,
        typer.Option(metavar="NAME", help="Differentiate with respect to: x, w1, w2 …, b1, b2 …"),
    ] = "w1",
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
    """Derive a gradient line by line, with one unit per layer.

    In a terminal with colours, factors that make the gradient smaller are blue, factors that make
    it larger are yellow, and factors that are zero are red.
    """
    from chainrule._utils.files import write_text
    from chainrule.chain import derive, describe_chain, draw_graph
    from chainrule.display.equation import print_equation

    if as_json and latex:
        raise SpecError(
            "--json, --latex: must not come together; got both. Leave one out. The JSON contains "
            "the LaTeX of every line."
        )
    check_outputs({"--svg": svg})
    chain, recurrence = build_chain(
        layers=layers,
        activation=activation,
        x=x,
        weights=weights,
        biases=biases,
        tied=tied,
        clip=clip,
    )
    derivation = derive(chain, wrt.lower(), order=order)  # type: ignore[arg-type]  # checked by it
    if svg:
        write_text(svg, draw_graph(chain, derivation.wrt))
    if as_json:
        print_json(describe_chain(chain, derivation.wrt, order=derivation.order))
    elif latex:
        typer.echo(derivation.to_latex(fold=not everything))
    else:
        print_equation(open_console(), derivation, recurrence, fold=not everything)
    if svg:
        print_note(f"Wrote {svg}")
