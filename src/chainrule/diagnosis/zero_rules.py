"""The rule about products of which both factors are zero: neither can ever get a gradient.

The gradient of a factor is the other factor times something. If one of them is zero, that one
still receives a gradient, and so one zero-initialized factor is fine (LoRA, ReZero, Fixup). If both
are zero, both gradients are zero, and no step changes that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chainrule.diagnosis.rule import Reading, Rule, Verdict
from chainrule.diagnosis.structure import is_loss_flat, read_once
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import ParameterFlow


@dataclass(frozen=True, slots=True)
class ZeroProduct:
    """Parameters that multiply each other and are all zero, in forward order."""

    factors: tuple[str, ...]


@read_once
def list_zero_products(flow: GradientFlow) -> tuple[ZeroProduct, ...]:
    """Return the products whose factors are exactly zero, and whose gradients are so too.

    A gradient arrives where they end, so nothing behind them is the cause.
    """
    stuck = {p.name: p for p in flow.parameters if _is_zero(p) and p.grad_norm == 0.0}
    if len(stuck) < 2:
        return ()
    found: dict[frozenset[str], tuple[str, ...]] = {}
    for factors in (*_find_in_branches(flow, stuck), *_find_in_modules(flow, stuck)):
        names = frozenset(factors)
        if not any(names & known for known in found):
            found[names] = tuple(factors)
    return tuple(ZeroProduct(factors) for factors in found.values())


def _is_zero(parameter: ParameterFlow) -> bool:
    return (
        parameter.norm == 0.0
        and parameter.status == "measured"
        and 0 not in parameter.shape
        and not parameter.name.endswith("bias")
    )


def _find_in_branches(
    flow: GradientFlow, stuck: dict[str, ParameterFlow]
) -> Iterator[Sequence[str]]:
    """Yield those of residual branches in which nothing at all receives a gradient."""
    for each in flow.residuals:
        inside = [flow.parameters[position] for position in each.parameters]
        zero = [p.name for p in inside if p.name in stuck]
        if len(zero) > 1 and each.gradient and not any(p.grad_norm for p in inside):
            yield zero


def _find_in_modules(
    flow: GradientFlow, stuck: dict[str, ParameterFlow]
) -> Iterator[Sequence[str]]:
    """Yield those of modules that receive a gradient at their output, and pass none to weights."""
    first: dict[str, int] = {}
    arriving: dict[str, float] = {}
    for position, call in enumerate(flow.layers):
        first.setdefault(call.name, position)
        if call.gradient is not None:
            arriving[call.name] = max(arriving.get(call.name, 0.0), float(call.gradient.norm))
    parents = {flow.layers[c.parent].name for c in flow.layers if c.parent is not None}
    owners = {name: name.rpartition(".")[0] for name in stuck}
    movable = [p.name for p in flow.parameters if _is_zero(p) and (p.grad_norm or 0.0) > 0.0]
    for name, owner in owners.items():
        if not arriving.get(owner, 0.0) > 0.0:
            continue
        prefix = f"{owner}." if owner else ""
        inside = [each for each in stuck if each.startswith(prefix)]
        own = [each for each in inside if owners[each] == owner]
        if owner in parents or len(own) > 1:  # its own parameters are used in functions
            if len(inside) > 1 and not any(each.startswith(prefix) for each in movable):
                yield [*(each for each in inside if each not in own), *own]
            continue
        # What it reads is zero, or its weight would receive something.
        before = [
            each
            for each in stuck
            if first.get(owners[each], -1) in range(first[owner])
            and arriving.get(owners[each]) == 0.0  # a weight may be used outside of its module
        ]
        if before:
            yield max(before, key=lambda each: first[owners[each]]), name


def _read_products(flow: GradientFlow) -> list[Reading]:
    layers = {p.name: p.layer for p in flow.parameters}
    return [
        Reading(
            value=float(len(each.factors)),
            layers=tuple(sorted({at for name in each.factors if (at := layers[name])})),
            modules=each.factors,
            where=repr(each.factors[0]),
        )
        for each in list_zero_products(flow)
    ]


def _describe_products(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    names = [repr(name) for name in wrong[0].modules]
    others = f"; so it is in {len(wrong)} products" if len(wrong) > 1 else ""
    return (
        f"{', '.join(names[:-1])} and {names[-1]} multiply each other, and "
        f"{'both' if len(names) == 2 else 'all'} are exactly zero: so are their gradients, now "
        f"and after every step{others}"
    )


def _free_one(flow: GradientFlow) -> str:
    factors = list_zero_products(flow)[0].factors
    matrices = {p.name for p in flow.parameters if p.is_weight}
    freed = next((name for name in factors if name in matrices), factors[0])
    rest = " and ".join(repr(name) for name in factors if name != freed)
    if len(factors) > 2:
        return (
            f"Leave only one of {len(factors)} factors at zero, and draw the others at random as "
            f"usual, {freed!r} first (torch.nn.init.kaiming_uniform_). Then measure again."
        )
    start = (
        f"draw {freed!r} at random as usual (torch.nn.init.kaiming_uniform_)"
        if freed in matrices
        else f"start {freed!r} at 1"
    )
    return f"Leave only one of the two at zero: {start}; {rest} may stay zero. Then measure again."


ZERO_RULES = (
    Rule(
        name="zero_product",
        verdict=Verdict.NO_GRADIENT,
        metric="number of zero factors of one product",
        threshold=1.0,
        beyond=">",
        reason="Both factors of a product are zero: neither can ever get a gradient, for the "
        "gradient of each is a multiple of the other. One zero factor would be fine: it receives a "
        "gradient, and grows.",
        source="product rule: ∂(a·b)/∂a = b",
        read=_read_products,
        applies=lambda flow: not is_loss_flat(flow),
        describe=_describe_products,
        action=_free_one,
        scale="count",
    ),
)
"""What can be wrong with parameters that start at zero."""
