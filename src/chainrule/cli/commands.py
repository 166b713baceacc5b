"""The command line: `chainrule inspect`, `simulate`, `report`, `presets`, `equation`, `explore`.

Exit codes: 0 measured; 1 with `--check`, the diagnosis is not healthy; 2 bad input.
"""

import json
import sys
import tempfile
import traceback
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from chainrule._utils.files import check_writable, write_text
from chainrule._utils.version import read_version
from chainrule.cli.progress import show_progress
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.rules import Verdict
from chainrule.errors import ChainruleError, SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.presets import PRESETS, get_preset
from chainrule.remedies.result import Remedies
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

INSTALL_APP = 'pip install "chainrule[app]"'

app = typer.Typer(
    name="chainrule",
    help="See, explain and fix gradient flow in deep networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 measured; 1 with --check, the diagnosis is not healthy; 2 bad input.",
)

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the flow and the diagnosis as JSON instead.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the flow to a file (JSON)."),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Exit with code 1 if the diagnosis is not healthy.")
]
RemediesOption = Annotated[
    bool, typer.Option("--remedies", help="Look for changes that help, and measure each.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Show every measured module, as a tree.")]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a report to a file (HTML)."),
]
OpenOption = Annotated[
    bool,
    typer.Option(
        "--open", help="Open the report in a browser; without --report, from a temporary file."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("inspect")
def inspect_command(  # noqa: PLR0913  (one option per setting)
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="FILE.py:FUNCTION or package.module:FUNCTION. The function takes no arguments "
            "and returns (model, compute_loss).",
        ),
    ],
    as_json: JsonOption = False,
    output: OutputOption = None,
    report: ReportOption = None,
    open_report: OpenOption = False,
    remedies: RemediesOption = False,
    check: CheckOption = False,
    min_gradient: Annotated[
        float | None, typer.Option(help="--check: smallest ‖∂𝓛/∂W‖, instead of the usual bound.")
    ] = None,
    max_gradient: Annotated[
        float | None, typer.Option(help="--check: largest ‖∂𝓛/∂W‖, instead of the usual bound.")
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option(help="--check: largest ‖∂𝓛/∂W‖ ÷ smallest of all layers.")
    ] = None,
    everything: AllOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure the gradient flow of your own PyTorch model."""
    from chainrule.cli.target import load_target
    from chainrule.diagnosis.limits import Limits, check_limits
    from chainrule.measure.inspection import inspect

    for file in filter(None, (output, report)):
        check_writable(file)
    limits = Limits(min_gradient=min_gradient, max_gradient=max_gradient, max_ratio=max_ratio)
    if limits != Limits() and not check:
        raise ChainruleError("Limits are what --check looks at. Give --check as well.")
    found = None
    with show_progress("measuring") as advance:
        model, compute_loss = load_target(target)
        if remedies:
            from chainrule.remedies.spec_search import find_remedies

            found = find_remedies(model, compute_loss, progress=advance)
            flow = found.before
        else:
            flow = inspect(model, compute_loss)
    diagnosis = diagnose(flow)
    _show(flow, diagnosis, as_json, everything, found)
    _keep(flow, output, report, open_report, remedies=found)
    violations = check_limits(flow, diagnosis, limits) if check else ()
    for violation in violations:
        Console(stderr=True, soft_wrap=True, highlight=False).print(escape(f"check: {violation}"))
    if violations:
        raise typer.Exit(1)


@app.command("simulate")
def simulate_command(  # noqa: PLR0913  (one option per setting)
    preset: Annotated[
        str | None, typer.Option(help="Start from a named scenario; see `chainrule presets`.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Weight layers.")] = None,
    width: Annotated[int | None, typer.Option(help="Units per layer.")] = None,
    activation: Annotated[str | None, typer.Option(help=", ".join(ACTIVATIONS))] = None,
    init: Annotated[str | None, typer.Option(help=", ".join(INITIALIZERS))] = None,
    distribution: Annotated[str | None, typer.Option(help="normal or uniform.")] = None,
    weight_std: Annotated[float | None, typer.Option(help="The σ of init random.")] = None,
    bias_std: Annotated[float | None, typer.Option(help="σ of the biases.")] = None,
    residual: Annotated[str | None, typer.Option(help="none, plain or scaled.")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="none, layernorm, batchnorm or rmsnorm.")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest total gradient norm.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per batch.")] = None,
    input_scale: Annotated[
        float | None, typer.Option(help="What the inputs are multiplied by.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    seed: Annotated[int | None, typer.Option(help="First seed.")] = None,
    seeds: Annotated[int, typer.Option(help="Networks to measure, each with its own seed.")] = 16,
    no_budget: Annotated[bool, typer.Option("--no-budget", help="Allow any size.")] = False,
    remedies: RemediesOption = False,
    as_json: JsonOption = False,
    output: OutputOption = None,
    report: ReportOption = None,
    open_report: OpenOption = False,
    check: CheckOption = False,
    everything: AllOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure an ensemble of networks described by a few settings.

    Settings given beside a preset replace the preset's.
    """
    given = {name: value for name, value in locals().items() if name in NetworkSpec.model_fields}
    changes = {name: value for name, value in given.items() if value is not None}
    base = get_preset(preset).spec if preset is not None else NetworkSpec()
    if "init" in changes and changes["init"] != "random" and "weight_std" not in changes:
        changes["weight_std"] = 1.0
    spec = base.replace(**changes)
    for file in filter(None, (output, report)):
        check_writable(file)
    import torch

    from chainrule.measure.simulation import BUDGET, simulate

    torch.set_num_threads(1)  # this process is ours; small networks run fastest so
    budget = None if no_budget else BUDGET
    found = None
    with show_progress("measuring") as advance:
        if remedies:
            from chainrule.remedies.spec_search import find_remedies

            found = find_remedies(spec, seeds, budget=budget, progress=advance)
            flow = found.before
        else:
            flow = simulate(spec, seeds, budget=budget, progress=advance)
    diagnosis = diagnose(flow)
    _show(flow, diagnosis, as_json, everything, found)
    _keep(flow, output, report, open_report, remedies=found)
    if check and diagnosis.verdict is not Verdict.HEALTHY:
        raise typer.Exit(1)


@app.command("report")
def report_command(
    flow_file: Annotated[
        Path, typer.Argument(metavar="FLOW", help="A file that --output wrote (JSON).")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the report to a file (HTML)."),
    ] = None,
    open_report: Annotated[
        bool,
        typer.Option(
            "--open", help="Open it in a browser; without --output, from a temporary file."
        ),
    ] = False,
    title: Annotated[str | None, typer.Option(help="What the report is about.")] = None,
    debug: DebugOption = False,
) -> None:
    """Turn a saved measurement into one HTML file that opens anywhere, offline."""
    from chainrule.flow.loading import load_flow

    if output is None and not open_report:
        raise ChainruleError("A report needs a place: give --output FILE, --open, or both.")
    if output:
        check_writable(output)
    _keep(load_flow(flow_file), None, output, open_report, title=title)


@app.command("presets")
def presets_command(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the named scenarios and what to look at in each."""
    if as_json:
        entries = [
            {"name": p.name, "look_at": p.look_at, "spec": p.spec.model_dump()}
            for p in PRESETS.values()
        ]
        typer.echo(json.dumps(entries, ensure_ascii=False, indent=2))
        return
    from chainrule.display.terminal import render_presets

    Console().print(render_presets(list(PRESETS.values())))


@app.command("equation")
def equation_command(  # noqa: PLR0913  (one option per setting)
    layers: Annotated[
        int | None, typer.Option(help="Number of layers; as many as weights if left out.")
    ] = None,
    activation: Annotated[
        str, typer.Option(help=f"{', '.join(ACTIVATIONS)}; or one per layer with commas.")
    ] = "sigmoid",
    x: Annotated[float, typer.Option("--x", help="The input.")] = 1.0,
    weights: Annotated[
        str | None, typer.Option(help="One per layer with commas: 0.5,-2,1.5. All 1 if left out.")
    ] = None,
    biases: Annotated[str | None, typer.Option(help="One per layer with commas.")] = None,
    tied: Annotated[
        float | None,
        typer.Option(help="One weight for every layer, as in a recurrent network through time."),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="With --tied: clip the gradient of the weight to this.")
    ] = None,
    wrt: Annotated[
        str, typer.Option(help="Differentiate with respect to: x, w1, w2 …, b1, b2 …")
    ] = "w1",
    order: Annotated[
        str, typer.Option(help="Factors backward (output to input) or forward.")
    ] = "backward",
    everything: Annotated[
        bool, typer.Option("--all", help="Show every factor and line of a long derivation.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the derivation as LaTeX.")] = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the computational graph to a file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print graph, factors and derivation as JSON.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Work out the gradient of a network with one unit per layer, line by line."""
    from chainrule.chain import derive, describe_chain, draw_graph
    from chainrule.chain.arguments import build_chain
    from chainrule.chain.summary import summarize_derivation, summarize_recurrence

    if as_json and latex:
        raise SpecError(
            "--json, --latex: must not come together; got both. Leave one out: the JSON holds the "
            "LaTeX of every line."
        )
    chain, recurrence = build_chain(
        layers=layers,
        activation=activation,
        x=x,
        weights=weights,
        biases=biases,
        tied=tied,
        clip=clip,
    )
    derivation = derive(chain, wrt, order=order)  # type: ignore[arg-type]  # checked by it
    if svg:
        write_text(svg, draw_graph(chain, wrt))
    if as_json:
        document = describe_chain(chain, wrt, order=derivation.order)
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
    elif latex:
        typer.echo(derivation.to_latex(fold=not everything))
    else:
        typer.echo(summarize_derivation(derivation, fold=not everything))
        if recurrence:
            typer.echo(f"\n{summarize_recurrence(recurrence)}")
    if svg:
        Console(stderr=True).print(f"Wrote {svg}", style="dim", highlight=False)


@app.command("explore")
def explore_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8050,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=64, help="Processes that answer, each on one core; for many visitors."
        ),
    ] = 1,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve the page under this name too, such as a proxy's; may be repeated."
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Open the explorer: real gradients of a network set by sliders, in a browser."""
    missing = [
        name for name in ("dash", "dash_mantine_components", "uvicorn") if not find_spec(name)
    ]
    if missing:
        raise ChainruleError(
            f"The explorer needs {', '.join(missing)}, not installed here. Run: {INSTALL_APP}"
        )
    from chainrule.app.server import serve

    serve(
        host,
        port,
        open_browser=not no_browser,
        workers=workers,
        allowed_hosts=tuple(allow_host or ()),
    )


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


def _keep(
    flow: GradientFlow,
    output: Path | None,
    report: Path | None,
    open_report: bool,
    *,
    title: str | None = None,
    remedies: Remedies | None = None,
) -> None:
    """Write what was asked for, say where it is, and open the report if that was asked for."""
    say = Console(stderr=True, soft_wrap=True).print
    if output:
        flow.save(output)
        say(f"Wrote {escape(str(output))}", style="dim", highlight=False)
    if not report and not open_report:
        return
    from chainrule.report import write_report

    path = report or Path(tempfile.mkdtemp(prefix="chainrule-")) / "report.html"
    write_report(flow, path, title=title, remedies=remedies)
    say(f"Wrote {escape(str(path))}", style="dim", highlight=False)
    if open_report and not webbrowser.open(path.resolve().as_uri()):
        say("No browser could be started here; open that file in one.", highlight=False)


def _show(
    flow: GradientFlow,
    diagnosis: Diagnosis,
    as_json: bool,
    everything: bool,
    remedies: Remedies | None = None,
) -> None:
    if as_json:
        from chainrule.display.export import to_result_json

        typer.echo(to_result_json(flow, diagnosis, remedies))
        return
    from chainrule.display.terminal import print_flow, render_remedies

    console = Console()
    print_flow(console, flow, diagnosis, everything=everything)
    if remedies is not None:
        console.print()
        console.print(render_remedies(remedies))


def main() -> None:
    """Run the command line; errors made on purpose are one message and exit code 2."""
    try:
        app()
    except ChainruleError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _fail(str(error))
    except (RuntimeError, OSError, MemoryError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _fail(f"{type(error).__name__}: {str(error)[:500]}\nSee the traceback with --debug.")


def _fail(message: str) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", escape(message))
    sys.exit(2)
