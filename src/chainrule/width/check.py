"""`check_width`: whether a model keeps its sizes, and those of its updates, as it gets wider.

The coordinate check of Yang et al. 2022 (arXiv 2203.03466, appendix D.1), taken apart by module and
parameter and judged. It needs no package for a parametrization: what counts is what is measured.
"""

import functools
import inspect
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.errors import ChainruleError, InspectionError, abbreviate
from chainrule.measure.copying import copy_model
from chainrule.measure.inspection import describe_error
from chainrule.measure.sharing import preserve_random_state
from chainrule.training.batches import seed
from chainrule.width.judging import Facts, judge_modules
from chainrule.width.measuring import Run, measure_run
from chainrule.width.records import (
    METRICS,
    Kind,
    ModuleScaling,
    ParameterScaling,
    WidthCheck,
)
from chainrule.width.scaling import Scaling, fit_scaling

STEPS = 4
"""Steps by default: enough that a readout that starts at zero lets the layers before it learn."""

SEEDS = 3
"""Models of every width by default."""

_MORE = "Use more widths, widths that lie further apart, or more seeds."
_RANDOM = (
    "The models of one seed differ between calls: make_model draws from somewhere else than the "
    "random states of PyTorch, `random` and NumPy."
)

MOST_STEPS, MOST_SEEDS = 1000, 100

OptimizerMaker = Callable[..., torch.optim.Optimizer]

Progress = Callable[[int, int], None]


def check_width(
    make_model: Callable[[int], nn.Module],
    widths: Sequence[int],
    make_batch: Callable[[], Any],
    compute_loss: Callable[[Any, Any], Any] | None = None,
    *,
    optimizer: OptimizerMaker,
    steps: int = STEPS,
    seeds: int = SEEDS,
    progress: Progress | None = None,
) -> WidthCheck:
    """Train copies of a model at several widths, and say which sizes go with the width.

    For every module, matched by name, the size (root mean square per coordinate) of its output at
    the start, of the change of that after a few steps on the same batch, of its gradient, and of
    what each parameter's update does to its output are fitted as powers of the width. A model that
    learns alike at every width has the exponent 0 for outputs and changes; its readout may start
    smaller. An exponent counts as wrong only if its whole 95 % interval is nearer to another
    multiple of 1/2.

    Use a batch with fewer rows (examples or tokens) than the smallest width: with many more,
    updates are sums that average out, and exponents come out up to 1/2 too small. The random
    states of PyTorch, `random` and NumPy are as before afterwards; models are copied before they
    are trained.

    Args:
        make_model: Takes a width and returns a new model, drawn from PyTorch's random state.
        widths: At least two, with at least three points in all (widths × seeds).
        make_batch: Returns a batch; called once per seed, and used for every width and step.
        compute_loss: Takes the model and the batch. Without it, a batch is a pair `(x, y)` for
            `model(x)` with cross-entropy if y counts classes, else the mean squared error; or a
            dictionary for `model(**batch)`, whose answer has a `.loss`.
        optimizer: Takes the model and returns an optimizer, with a group per learning rate if need
            be; or a class of `torch.optim`, or a `functools.partial` of one.
        steps: Steps of training.
        seeds: Models per width.
        progress: Called with (models done, models in all) after each model.

    Returns:
        Exponents of every module, findings, and a verdict in words (`print(check.summary)`).

    Raises:
        InspectionError: If a model cannot be made, measured or trained, becomes infinite or
            undefined, or the models of different widths do not have the same modules.
        ChainruleError: If a number is not legal.

    Example:
        >>> def make_model(width):
        ...     return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
        >>> batch = torch.randn(8, 4), torch.randn(8, 2)
        >>> adam = functools.partial(torch.optim.Adam, lr=1e-3)
        >>> check_width(make_model, [16, 32, 64], lambda: batch, optimizer=adam).verdict
        'depends on width'
    """
    ordered = _check_arguments(make_model, widths, make_batch, optimizer, steps, seeds)
    loss = _guard(compute_loss)
    build = _build_maker(optimizer)
    runs: dict[tuple[int, int], Run] = {}
    seen: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    devices = _list_accelerators()
    with (
        preserve_random_state(devices),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        for number in range(seeds):
            seed(devices, number)
            batch = call_named("make_batch", make_batch)
            for width in ordered:
                where = f"at width {width}, seed {number}"
                seed(devices, number)
                model = _make(make_model, width, seen, where)
                runs[width, number] = measure_run(model, batch, loss, build, steps, number, where)
                if progress is not None:
                    progress(len(runs), len(ordered) * seeds)
            if number == 0:
                _check_alike([runs[width, 0] for width in ordered], ordered)
            if number == 1 and _is_seed_ignored(runs, ordered):
                return _assemble(runs, ordered, 1, steps, [_SAME])
        check = _assemble(runs, ordered, seeds, steps)
        if check.undecided and check.reason and _is_random(make_model, ordered[0], devices, seen):
            return replace(check, reason=_RANDOM)
    return check


def _is_random(
    make_model: Callable[[int], nn.Module],
    width: int,
    devices: tuple[torch.device, ...],
    seen: "weakref.WeakSet[nn.Module]",
) -> bool:
    """Whether two models of one seed differ."""
    made = []
    for _ in range(2):
        seed(devices, 0)
        made.append(_make(make_model, width, seen, f"at width {width}, seed 0").state_dict())
    one, other = made
    return one.keys() != other.keys() or any(
        isinstance(value, Tensor) and not torch.equal(value, other[name])
        for name, value in one.items()
    )


# --- Arguments ------------------------------------------------------------------------------------


def _check_arguments(
    make_model: object,
    widths: object,
    make_batch: object,
    optimizer: object,
    steps: object,
    seeds: object,
) -> tuple[int, ...]:
    for name, value in (
        ("make_model", make_model),
        ("make_batch", make_batch),
        ("optimizer", optimizer),
    ):
        if isinstance(value, (torch.optim.Optimizer, nn.Module)) or not callable(value):
            raise InspectionError(
                f"{name} must be a function that makes one anew; got {type(value).__name__}. "
                "Every width has a model, and an optimizer, of its own: lambda model: "
                "torch.optim.Adam(model.parameters(), lr=1e-3)."
                if name == "optimizer"
                else f"{name} must be a function that makes one anew; got {type(value).__name__}. "
                "Write lambda width: Model(width), lambda: (x, y)."
            )
    _check_count("steps", steps, MOST_STEPS)
    _check_count("seeds", seeds, MOST_SEEDS)
    if isinstance(widths, (str, bytes, Mapping)) or not hasattr(widths, "__iter__"):
        raise InspectionError(f"widths must be a list of whole numbers; got {abbreviate(widths)}.")
    given = list(widths)
    for width in given:
        _check_count("widths", width, 10**9)
    ordered = tuple(sorted(set(given)))
    if len(ordered) < 2:
        raise InspectionError(
            f"widths must hold at least two different numbers, for a slope; got "
            f"{abbreviate(given)}. Use for example [64, 128, 256, 512]."
        )
    assert isinstance(seeds, int)
    if len(ordered) == 2 and seeds < 2:
        raise InspectionError(
            "Two widths and one seed give a slope without an error, which cannot be judged. Use "
            "three widths or more, or seeds=2 or more."
        )
    return ordered


def _check_count(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InspectionError(
            f"{name} must be a whole number from 1 to {most:,}; got {abbreviate(value)}."
        )


def _build_maker(optimizer: OptimizerMaker) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return a function of the model; a class of optimizers is given its parameters."""
    made: Any = optimizer
    while isinstance(made, functools.partial):
        made = made.func
    is_class = inspect.isclass(made) and issubclass(made, torch.optim.Optimizer)

    def build(model: nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        built: object = call_named("optimizer", optimizer, trained if is_class else model)
        if not isinstance(built, torch.optim.Optimizer):
            raise InspectionError(
                "optimizer must return a torch.optim.Optimizer when it is called with the model; "
                f"got {type(built).__name__}."
            )
        return built

    return build


def _make(
    make_model: Callable[[int], nn.Module],
    width: int,
    seen: "weakref.WeakSet[nn.Module]",
    where: str,
) -> nn.Module:
    made: object = call_named("make_model", make_model, width)
    if not isinstance(made, nn.Module):
        raise InspectionError(
            f"make_model must return a torch.nn.Module; {where} it returned {type(made).__name__}."
        )
    if made in seen:
        raise InspectionError(
            f"make_model must return a new model at every call, but {where} it returned one that "
            "it had returned before. Build it inside the function."
        )
    seen.add(made)
    return copy_model(made)


def call_named(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the user's, by the name that an error shall have.

    Raises:
        InspectionError: If it raises.
    """
    try:
        return function(*args)
    except ChainruleError:
        raise
    except Exception as error:
        shown = ", ".join(
            str(each) if isinstance(each, int) else type(each).__name__ for each in args
        )
        raise InspectionError(
            f"{name} must run without errors, but {name}({shown}) raised {describe_error(error)}."
        ) from error


def _list_accelerators() -> tuple[torch.device, ...]:
    """Return all devices whose random state a model may draw from."""
    return tuple(torch.device("cuda", at) for at in range(torch.cuda.device_count()))


def _guard(compute_loss: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    """Return the loss, whose errors say what to do here."""
    function = compute_loss or _compute_default

    def compute(model: nn.Module, batch: Any) -> Any:
        try:
            return function(model, batch)
        except InspectionError:
            raise
        except (Exception, SystemExit) as error:
            said = describe_error(error)
            if compute_loss is None:
                raise InspectionError(
                    f"The usual loss must fit the model and the batch, but it raised {said}. Check "
                    "what make_batch returns: the shapes, and labels from 0 to classes − 1. Or "
                    "give your own function of (model, batch) for the loss."
                ) from error
            raise InspectionError(
                f"compute_loss must run many times on copies of the model, but it raised {said}. "
                "Make it use the model and the batch that it is given."
            ) from error

    return compute


def _compute_default(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        answer = model(**batch)
        return answer["loss"] if isinstance(answer, Mapping) else getattr(answer, "loss", answer)
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InspectionError(
            "make_batch must return a pair (x, y) or a dictionary for the model, or compute_loss "
            f"must be given; got {type(batch).__name__}."
        )
    x, y = batch
    answer = model(x)
    if not isinstance(answer, Tensor):
        raise InspectionError(
            f"model(x) must return a tensor for the usual losses; got {type(answer).__name__}. "
            "Give compute_loss(model, batch)."
        )
    if y.is_floating_point():
        return F.mse_loss(answer, y)
    return F.cross_entropy(answer.flatten(0, -2), y.flatten())


_SAME = (
    "Every seed gave the same model and batch, so there is one model of each width. Leave "
    "torch.manual_seed out of the function that makes the model, for several and a smaller error."
)


def _is_seed_ignored(runs: Mapping[tuple[int, int], Run], widths: tuple[int, ...]) -> bool:
    """Return whether the first two seeds gave the same models: they would count twice.

    Raises:
        InspectionError: If then too few models are left for a slope with an error.
    """
    pairs = [(runs[width, 0], runs[width, 1]) for width in widths]
    if any((one.loss, one.trained) != (other.loss, other.trained) for one, other in pairs):
        return False
    if len(widths) == 2:
        raise InspectionError(
            "Two widths need different models for every seed, but all seeds gave the same one. "
            "Leave torch.manual_seed out of make_model, or use three widths or more."
        )
    return True


def _check_alike(runs: Sequence[Run], widths: Sequence[int]) -> None:
    """Raise unless the models of all widths have the same modules and really differ."""
    for (one, some), (other, others) in pairwise(zip(widths, runs, strict=True)):
        different = sorted(set(some.names) ^ set(others.names))
        different += sorted(set(some.shapes) ^ set(others.shapes))
        if different:
            names = ", ".join(map(repr, different[:4]))
            more = f" and {len(different) - 4} more" if len(different) > 4 else ""
            raise InspectionError(
                "The models of all widths must have the same modules, but these are there only at "
                f"width {one} or only at width {other}: {names}{more}. Change the width and keep "
                "the number of layers."
            )
    alike = [
        pair
        for pair in combinations(zip(widths, runs, strict=True), 2)
        if pair[0][1].shapes == pair[1][1].shapes
    ]
    if alike:
        (one, _), (other, _) = alike[0]
        raise InspectionError(
            f"make_model must make models of the width that it is given, but those of width "
            f"{one} and {other} have parameters of the same shapes. Use its argument."
        )


# --- From sizes to exponents ----------------------------------------------------------------------


def _assemble(
    runs: Mapping[tuple[int, int], Run],
    widths: tuple[int, ...],
    seeds: int,
    steps: int,
    notes: Sequence[str] = (),
) -> WidthCheck:
    grid = [[runs[width, number] for number in range(seeds)] for width in widths]
    first, widest = grid[0][0], grid[-1][0]
    modules: list[ModuleScaling] = []
    wide_inputs, containers, rows = set(), set(), {}
    partly = []
    for name, sizes in widest.modules.items():
        if not all(name in run.modules for row in grid for run in row):
            partly.append(name)
            continue
        small = first.modules[name]
        kind: Kind = "scores" if sizes.is_scores else "output"
        if not sizes.is_scores and small.shapes != sizes.shapes:
            kind = "hidden"
        if small.input_shapes != sizes.input_shapes:
            wide_inputs.add(name)
        if sizes.has_children:
            containers.add(name)
        if kind != "scores":
            rows[name] = max((math.prod(shape[:-1]) for shape in small.shapes), default=0)
        modules.append(_assemble_module(name, kind, grid, widths))
    facts = Facts(
        wide_inputs=frozenset(wide_inputs),
        containers=frozenset(containers),
        rows=rows,
        eps=widest.eps,
        shared=widest.shared,
        optimizer=first.optimizer,
    )
    findings, undecided, decided, changes = judge_modules(modules, widths, facts)
    return WidthCheck(
        widths=widths,
        seeds=seeds,
        steps=steps,
        optimizer=first.optimizer,
        decided=decided,
        modules=tuple(modules),
        findings=findings,
        undecided=undecided,
        losses=tuple(
            (_average([run.loss for run in row]), _average([run.trained for run in row]))
            for row in grid
        ),
        notes=(*notes, *_list_notes(grid, widths, rows, partly)),
        reason=_find_reason(modules, first.unheld, steps, (decided, changes, len(undecided))),
    )


def _find_reason(
    modules: Sequence[ModuleScaling],
    unheld: Sequence[str],
    steps: int,
    counts: tuple[int, int, int],
) -> str:
    """Return why too little is decided for a pass; "" if enough is.

    Args:
        modules: With their exponents.
        unheld: Parameters that are not trained.
        steps: Of training.
        counts: Exponents that are decided, those of changes among them, those that are not decided.
    """
    decided, changes, undecided = counts
    held = [each for m in modules for each in m.parameters if each.name not in unheld]
    still = [each for each in held if each.effect is None and each.update is None]
    span = f"{steps} step{'' if steps == 1 else 's'}"
    if len(still) == len(held):
        return (
            f"Nothing changed in {span}: the learning rate may be 0, or so small that rounding "
            "hides its updates."
        )
    if 2 * len(still) > len(held):
        return (
            f"{len(still)} of {len(held)} parameters did not change in {span}, among them "
            f"`{still[0].name}`: the learning rate may be too small, there may be too few steps, "
            "or units may be dead."
        )
    if not changes:
        return f"No change after {span} is among them. {_MORE}"
    return _MORE if undecided > decided else ""


def _list_notes(
    grid: Sequence[Sequence[Run]],
    widths: tuple[int, ...],
    rows: Mapping[str, int],
    partly: Sequence[str],
) -> list[str]:
    notes = []
    most = max(rows.values(), default=0)
    if most > widths[0]:
        notes.append(
            f"The batch gives some modules {most:,} rows, more than the smallest width "
            f"({widths[0]}): updates that average out may look up to width^0.5 too small."
        )
    unheld = grid[0][0].unheld
    if unheld:
        more = f" and {len(unheld) - 1} more" if len(unheld) > 1 else ""
        notes.append(f"The optimizer does not hold `{unheld[0]}`{more}: not trained.")
    if partly:
        notes.append(f"Some modules ran only at some widths or seeds: {', '.join(partly[:4])}.")
    return notes


def _assemble_module(
    name: str, kind: Kind, grid: Sequence[Sequence[Run]], widths: tuple[int, ...]
) -> ModuleScaling:
    def read(metric: str) -> list[list[float]]:
        return [[run.modules[name].values[metric] for run in row] for row in grid]

    def fit_ratio(above: str, below: str) -> Scaling | None:
        ratios = [
            [a / b if b > 0 else math.nan for a, b in zip(row, other, strict=True)]
            for row, other in zip(read(above), read(below), strict=True)
        ]
        return fit_scaling(widths, ratios)

    passed_on = "aligned" if kind == "output" else "inherited"
    measured = [metric for metric in METRICS if not metric.endswith(("gain", "inherited"))]
    return ModuleScaling(
        name=name,
        kind=kind,
        inherited=fit_scaling(widths, read(passed_on)),
        gain=fit_ratio("output", "input"),
        change_gain=fit_ratio(passed_on, "input_change"),
        parameters=_assemble_parameters(name, grid, widths),
        **{metric: fit_scaling(widths, read(metric)) for metric in measured},
    )


def _assemble_parameters(
    module: str, grid: Sequence[Sequence[Run]], widths: tuple[int, ...]
) -> tuple[ParameterScaling, ...]:
    found = []
    for name in grid[-1][0].modules[module].parameters:
        cells = [[run.modules[module].parameters.get(name) for run in row] for row in grid]
        known = [[cell for cell in row if cell is not None] for row in cells]
        if any(len(row) < len(cells[0]) for row in known):
            continue
        found.append(
            ParameterScaling(
                name=name,
                shapes=tuple(row[0][0] for row in known),
                **{
                    metric: fit_scaling(
                        widths, [[cell[1][metric] for cell in row] for row in known]
                    )
                    for metric in ("size", "gradient", "update", "effect")
                },
            )
        )
    return tuple(found)


def _average(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)
