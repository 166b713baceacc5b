"""What a measurement knows in addition to its layers, as sections of a page: sentences and tables.

Where numbers stop being finite, what was tried, gradients along time, the loss, the inputs, copied
units, half precision, the optimizer. A section that was not measured is not there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number, format_shape, format_share, format_times
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.input_rules import INPUT_RULES
from chainrule.diagnosis.loss_rules import LOSS_RULES
from chainrule.diagnosis.optimizer_rules import OPTIMIZER_RULES, OVERSHOOTS
from chainrule.diagnosis.precision_rules import PRECISION_RULES
from chainrule.diagnosis.rule import Rule
from chainrule.diagnosis.symmetry_rules import SYMMETRY_RULES
from chainrule.diagnosis.time_rules import TIME_RULES, list_lost
from chainrule.display.cards import TRIAL_LOOKS, describe_trial
from chainrule.display.tables import write_cell, write_share
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import KIND_NAMES, LossTerm
from chainrule.flow.quantity import Quantity, combine_norms
from chainrule.flow.time import LOST, TimeFlow
from chainrule.flow.trial import OUTCOME_MEANINGS, OptimizerTrial, Trial, TrialOutcome

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a section.

    Attributes:
        head: What is in each column.
        rows: The cells.
        title: What folds it away; "" for a table that is always open.
    """

    head: Row
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One tier of a measurement, in words and values.

    Attributes:
        name: Its name, such as "loss".
        title: Its heading.
        sentences: What it says first.
        code: A line of your code that it is about; "" if none.
        tables: Its values.
        times: Recurrent modules whose gradients along time belong into a chart.
        is_concerned: Whether the diagnosis found something here.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    code: str = ""
    tables: tuple[Table, ...] = ()
    times: tuple[TimeFlow, ...] = ()
    is_concerned: bool = False


def list_sections(flow: GradientFlow, diagnosis: Diagnosis) -> tuple[Section, ...]:
    """Return what a flow holds in addition to its layers, the gravest kind first.

    Args:
        flow: A measurement.
        diagnosis: What it means.

    Example:
        >>> from chainrule import diagnose, inspect
        >>> import torch
        >>> flow = inspect(torch.nn.Linear(2, 1), lambda m: m(torch.ones(4, 2)).square().mean())
        >>> [section.name for section in list_sections(flow, diagnose(flow))]
        ['loss', 'inputs']
    """
    found = {finding.rule for finding in diagnosis.findings}

    def concerns(rules: Sequence[Rule]) -> bool:
        return any(rule.name in found for rule in rules)

    sections = (
        _describe_origin(flow),
        _describe_trial(diagnosis.trial),
        _describe_times(flow, concerned=concerns(TIME_RULES)),
        _describe_loss(flow, concerned=concerns(LOSS_RULES)),
        _describe_inputs(flow, concerned=concerns(INPUT_RULES)),
        _describe_symmetries(flow, concerned=concerns(SYMMETRY_RULES)),
        _describe_precisions(flow, concerned=concerns(PRECISION_RULES)),
        _describe_optimizer(flow, concerned=concerns((*OPTIMIZER_RULES, OVERSHOOTS))),
    )
    return tuple(each for each in sections if each is not None)


# --- origin ----------------------------------------------------------------------------------


def _describe_origin(flow: GradientFlow) -> Section | None:
    origin = flow.origin
    if origin is None:
        return None
    place = f" in {origin.position}" if origin.position else ""
    rows = tuple(
        (
            str(list(each.index)),
            ", ".join(map(format_number, each.inputs)) or "–",
            write_cell(each.gradient),
            format_number(each.value),
        )
        for each in origin.elements
    )
    named = ", ".join(origin.parameters)
    more = origin.parameter_count - len(origin.parameters)
    reached = f"Among them: {named}{f' and {more} more' if more > 0 else ''}." if named else ""
    head = ("place in the tensor", "went in", "gradient that came in", "came out")
    title = "The first bad values" if len(rows) > 1 else "The first bad value"
    return Section(
        name="origin",
        title=f"Where it starts: {origin.op}{place}",
        sentences=tuple(filter(None, (origin.cause, origin.detail, origin.reach, reached))),
        code=origin.code,
        tables=(Table(head=head, rows=rows, title=title),) if rows else (),
        is_concerned=not origin.is_harmless,
    )


# --- tried -----------------------------------------------------------------------------------


def _describe_trial(trial: Trial | None) -> Section | None:
    if trial is None:
        return None
    rows = tuple(_list_rates(trial))
    best = tuple(_write_best(each, trial) for each in trial.optimizers)
    head = ("optimizer", "loss before → after", "what came of it", "learning rate", "steps")
    meanings = tuple(
        (f"{TRIAL_LOOKS[outcome].icon} {outcome}", f"{meaning}.")
        for outcome, meaning in OUTCOME_MEANINGS.items()
        if any(rate.outcome is outcome for each in trial.tried for rate in each.rates)
    )
    return Section(
        name="trial",
        title="Tried: a short real training on copies",
        sentences=(describe_trial(trial),),
        tables=(
            *((Table(head=head, rows=best),) if best else ()),
            *((Table(head=head, rows=rows, title="Every learning rate"),) if rows else ()),
            *(
                (Table(head=("word", "meaning"), rows=meanings, title="What the words mean"),)
                if meanings
                else ()
            ),
        ),
        is_concerned=True,
    )


def _write_best(optimizer: OptimizerTrial, trial: Trial) -> Row:
    best = optimizer.best
    if best is None:
        return (optimizer.name, "–", f"not tried: {optimizer.skipped}", "–", "–")
    is_telling = optimizer in trial.telling
    word = (
        f"{TRIAL_LOOKS[best.outcome].icon} {best.outcome}" if is_telling else "◌ learned by heart"
    )
    return (
        optimizer.name,
        f"{format_number(best.before)} → {format_number(best.after)}",
        word,
        format_number(best.rate),
        str(best.steps),
    )


def _list_rates(trial: Trial) -> Iterator[Row]:
    for optimizer in trial.optimizers:
        for rate in optimizer.rates:
            word = f"{TRIAL_LOOKS[rate.outcome].icon} {rate.outcome}"
            failed = rate.outcome in (TrialOutcome.NON_FINITE, TrialOutcome.DIVERGED)
            if failed and rate.failed_at is not None:
                word += f" at step {rate.failed_at}"
            yield (
                optimizer.name,
                f"{format_number(rate.before)} → {format_number(rate.after)}",
                f"{word}, left for better rates" if rate.stopped else word,
                format_number(rate.rate),
                str(rate.steps),
            )


# --- time ------------------------------------------------------------------------------------


def _describe_times(flow: GradientFlow, *, concerned: bool) -> Section | None:
    if not flow.times:
        return None
    unit = flow.times[0].unit  # positions are looked at only where nothing goes over time
    title, way, table = _TIMES[unit]
    head = ("module", "gradient of the", f"{unit}s", "at the first", "at the last", f"{unit}s lost")
    return Section(
        name="times",
        title=title,
        sentences=(
            f"{way} A {unit} that gets less than {format_number(LOST)} of the largest gradient "
            "cannot be learned from.",
        ),
        tables=(Table(head=head, rows=tuple(map(_write_time, flow.times)), title=table),),
        times=flow.times,
        is_concerned=concerned,
    )


_TIMES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "step": (
            "Over time: how much gradient each step receives",
            "The gradient starts at the loss, behind the last step, and travels back through all "
            "steps.",
            "The recurrent modules as a table",
        ),
        "position": (
            "By position: how much gradient each place of the sequence receives",
            "The gradient starts at the loss and comes back to every position that the loss hears.",
            "The positions as a table",
        ),
    }
)
"""Title, sentence and title of the table, by what one place is called."""


def _write_time(time: TimeFlow) -> Row:
    first, last = time.gradients[0], time.gradients[-1]
    lost = len(list_lost(time))
    kept = len(time.steps)
    shown = f"{lost:,} of {kept:,}" + (" looked at" if kept < time.length else "")
    name = f"{time.name or '(model)'}{f' (call {time.call + 1})' if time.call else ''}"
    return (
        name,
        time.of,
        f"{time.length:,}",
        format_number(first),
        format_number(last),
        shown,
    )


# --- loss ------------------------------------------------------------------------------------


def _describe_loss(flow: GradientFlow, *, concerned: bool) -> Section | None:
    facts = flow.loss_facts
    if facts is None:
        return None
    values = [
        ("kind", KIND_NAMES.get(facts.kind, facts.kind)),
        ("value", format_number(flow.loss)),
        ("a guess that knows nothing gives", write_cell(facts.guessing)),
        ("the best constant answer gives", write_cell(facts.constant)),
        ("lowest possible value", write_cell(facts.floor)),
        (
            "how much it falls if every weight moves by 1 % along its gradient",
            _write_fall(facts.step),
        ),
        (
            "how much it falls if the output moves by 1 % along its gradient",
            _write_fall(facts.reaction),
        ),
        ("examples that send no gradient back", write_share(facts.zero_examples)),
    ]
    for name, sum_ in (("without a derivative", facts.cut), ("detached", facts.detached)):
        if sum_ is not None and sum_ != 0.0:
            values.append((f"part of the loss that is {name}", format_number(sum_)))
    if facts.alignment is not None:
        values.append(("time steps and labels", facts.alignment.sentence))
    tables = [Table(head=("of the loss", "measured"), rows=tuple(values))]
    if facts.terms:
        tables.append(_tabulate_terms(facts.terms))
    if len(facts.parts) > 1:
        rows = tuple(
            (
                KIND_NAMES.get(each.kind, each.kind),
                write_cell(each.value),
                write_cell(each.guessing),
                write_cell(each.floor),
            )
            for each in facts.parts
        )
        head = ("summand", "value", "guessing gives", "lowest")
        tables.append(Table(head=head, rows=rows, title=f"Its {len(rows)} summands"))
    return Section(
        name="loss",
        title="The loss",
        sentences=tuple(_compare_with_guessing(flow.loss, facts.guessing)),
        tables=tuple(tables),
        is_concerned=concerned,
    )


def _write_fall(value: Quantity | None) -> str:
    """Return by which part of itself the loss falls."""
    if value is None:
        return "–"
    return format_share(value) if 0.01 <= value <= 1.0 else f"{format_number(value)} times itself"


def _compare_with_guessing(loss: Quantity, guessing: Quantity | None) -> Iterator[str]:
    if guessing is None or not guessing > 0.0:
        return
    ratio = loss / guessing
    if 0.9 < ratio < 1.1:
        yield f"The loss is {format_number(loss)}: about what guessing gives."
    else:
        yield f"The loss is {format_number(loss)}: {format_times(ratio)} what guessing gives."


def _tabulate_terms(terms: Sequence[LossTerm]) -> Table:
    rows = []
    for term in terms:
        gradients = term.gradients or ()
        norm = combine_norms(each.norm for each in gradients)
        against = sum(each.cosine < 0.0 for each in gradients)
        whole = f"{against} of {len(gradients)}" if gradients else "–"
        reach = "reaches no parameter" if term.is_detached else write_cell(norm)
        rows.append((term.name, format_number(term.value), write_cell(term.guessing), reach, whole))
    head = (
        "term",
        "value",
        "guessing gives",
        "‖gradient‖ of all weights",
        "parameters where it pulls against the whole loss",
    )
    return Table(head=head, rows=tuple(rows))


# --- inputs, copies, precision, optimizer --------------------------------------------------------


def _describe_inputs(flow: GradientFlow, *, concerned: bool) -> Section | None:
    rows = tuple(
        (
            each.reader or "(model)",
            format_shape(each.shape),
            each.dtype,
            format_number(each.mean),
            format_number(each.std),
            f"{format_number(each.min)} to {format_number(each.max)}",
            f"{each.constant_columns + each.zero_columns:g} of {each.columns:,}",
            write_share(each.repeated),
            write_share(each.non_finite),
        )
        for each in flow.inputs
    )
    if not rows:
        return None
    head = (
        *("read by", "shape", "type", "mean", "std", "from … to"),
        *("columns that never change", "repeated examples", "infinite or undefined"),
    )
    return Section(
        name="inputs",
        title="The inputs",
        sentences=(
            "What enters the model from outside. A mean near 0 and a deviation near 1 suit.",
        ),
        tables=(Table(head=head, rows=rows),),
        is_concerned=concerned,
    )


def _describe_symmetries(flow: GradientFlow, *, concerned: bool) -> Section | None:
    rows = tuple(
        (
            each.parameter,
            f"{each.units:,}",
            f"{each.copies:g}",
            f"{each.idle:g}",
            write_share(each.share),
        )
        for each in flow.symmetries
    )
    if not rows:
        return None
    return Section(
        name="symmetries",
        title="Units that are copies of each other",
        sentences=(
            "Units with the same weights and the same gradients stay the same: together they do no "
            "more than one.",
        ),
        tables=(
            Table(
                head=("weight", "units", "copies", "copies without a gradient", "share"), rows=rows
            ),
        ),
        is_concerned=concerned,
    )


def _describe_precisions(flow: GradientFlow, *, concerned: bool) -> Section | None:
    rows = tuple(
        (
            each.name or "(model)",
            {"output": "output", "weight": "weight", "arriving": "output, before rounding"}[
                each.of
            ],
            each.dtype,
            write_share(each.zero_share),
            write_share(each.subnormal_share),
            format_number(each.size),
            format_number(each.largest),
        )
        for each in flow.precisions
    )
    if not rows:
        return None
    head = (
        *("gradient at", "of its", "format", "exactly zero", "too small for all digits"),
        *("typical entry", "largest entry"),
    )
    table = Table(
        head=head, rows=rows, title=f"All {len(rows):,} gradients" if len(rows) > 1 else ""
    )
    zero = sum(each.zero_share == 1.0 for each in flow.precisions)
    formats = " and ".join(sorted({each.dtype for each in flow.precisions}))
    return Section(
        name="precisions",
        title="Half precision",
        sentences=(
            f"{len(rows):,} gradients were computed in {formats}; {zero:,} of them are exactly "
            "zero everywhere.",
        ),
        tables=(table,),
        is_concerned=concerned,
    )


def _describe_optimizer(flow: GradientFlow, *, concerned: bool) -> Section | None:
    optimizer = flow.optimizer
    if optimizer is None:
        return None
    held = [rate for rate in optimizer.rates if rate is not None]
    rates = sorted(set(held))
    shown = " to ".join(dict.fromkeys(map(format_number, (rates[0], rates[-1])))) if rates else "–"
    rows = [
        ("parameters that it holds", f"{len(held):,} of {len(optimizer.rates):,}"),
        ("learning rate", shown),
    ]
    optional: tuple[tuple[str, float, Callable[[float], str]], ...] = (
        ("momentum", optimizer.momentum, format_number),
        ("epsilon", optimizer.epsilon, format_number),
        ("parameters that are not the model's", optimizer.foreign, lambda count: f"{count:,}"),
    )
    rows += [(name, write(value)) for name, value, write in optional if value]
    return Section(
        name="optimizer",
        title=f"The optimizer: {optimizer.name}",
        tables=(Table(head=("of the optimizer", "value"), rows=tuple(rows)),),
        is_concerned=concerned,
    )
