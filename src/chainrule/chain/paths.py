"""A gradient as a sum over paths: all counted, the largest listed, each with its share.

The number of paths grows exponentially with the depth of a graph, so nothing here walks them all:
what is asked about all paths to a node follows from the same about its operands.

References:
    Bauer 1974, "Computational Graphs and Rounding Error" (SIAM J. Numer. Anal. 11).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from chainrule.chain.network import Factor
from chainrule.chain.notation import format_equal, render_text
from chainrule.chain.terms import Symbol
from chainrule.chain.wide_float import ONE, ZERO, WideFloat, multiply

MAX_PATHS = 64
"""Most paths that are listed."""


@dataclass(frozen=True, slots=True)
class Link:
    """One edge of a graph by the positions of its ends, operands before results.

    Attributes:
        source: Position of the operand.
        target: Position of the result.
        factor: Its local derivative.
    """

    source: int
    target: int
    factor: Factor


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Path:
    """One path from the output to a variable.

    Attributes:
        factors: The local derivatives along it, output first.
        symbols: The nodes along it, output first.
        product: The product of its factors: its summand of the gradient.
        share: |product| as a share of the sum of |product| over all paths; 0 if that sum is 0.

    Example:
        >>> from chainrule.chain import ScalarGraph
        >>> ScalarGraph.parse("x + x*x", {"x": 2}).find_paths("x").paths[0]
        Path(p ← u₁ ← x: 2, 40 %)
    """

    factors: tuple[Factor, ...]
    symbols: tuple[Symbol, ...]
    product: WideFloat
    share: float

    def __repr__(self) -> str:
        return f"Path({self.way}: {self.product}, {100 * self.share:.0f} %)"

    @property
    def way(self) -> str:
        """Its nodes in plain text, as in p ← u₁ ← x."""
        return " ← ".join(map(render_text, self.symbols))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PathSum:
    """The derivative of an output by a variable as a sum over paths.

    Attributes:
        output: The output's symbol.
        by: The variable's symbol.
        paths: The listed paths, the largest |product| first.
        count: The number of all paths.
        total: The sum over all paths.
        absolute: The sum of |product| over all paths.
        rest: The sum over the paths that are not listed.
        rest_share: Their share.
        multiplications: How many multiplications it takes to multiply each path out by itself.
        factored: How many it takes as reverse mode does it, each edge once.

    Example:
        >>> from chainrule.chain import ScalarGraph
        >>> ScalarGraph.parse("h = x*x; h*h", {"x": 2}).find_paths("x", limit=1)
        PathSum(4 paths from p to x = 8 + ⋯ 3 more paths = 24 ⋯)
    """

    output: Symbol
    by: Symbol
    paths: tuple[Path, ...]
    count: int
    total: WideFloat
    absolute: WideFloat
    rest: WideFloat
    rest_share: float
    multiplications: int
    factored: int

    def __repr__(self) -> str:
        words = "1 path" if self.count == 1 else f"{WideFloat.from_ratio(self.count)} paths"
        shown = [str(path.product) for path in self.paths[:4]]
        if self.count > len(shown):
            left = ZERO if self.count == len(self.paths) else self.rest
            for path in self.paths[4:]:
                left = left + path.product
            shown.append(f"⋯ {self.count - len(shown)} more paths {format_equal(left)} ⋯")
        ends = f"from {render_text(self.output)} to {render_text(self.by)}"
        return f"PathSum({words} {ends} = {' + '.join(shown)})"

    @property
    def omitted(self) -> int:
        """How many paths are not listed."""
        return self.count - len(self.paths)

    @property
    def cancellation(self) -> float:
        """|total| ÷ absolute: 1 where no paths cancel, 0 where they cancel completely."""
        return float(abs(self.total) / self.absolute) if self.absolute else 1.0


@dataclass(frozen=True, slots=True)
class _Reach:
    """All paths from a node down to the variable.

    Attributes:
        count: How many.
        length: The sum of their lengths.
        total: The sum of their products.
        absolute: The sum of |product|.
    """

    count: int = 0
    length: int = 0
    total: WideFloat = ZERO
    absolute: WideFloat = ZERO


@dataclass(frozen=True, slots=True)
class _Start:
    """A path from a node down to the variable: an edge, and the rest as the path of its source.

    Attributes:
        size: |product|.
        link: Number of the first edge; `None` at the variable.
        rank: Which of the paths of the edge's source it goes on with.
    """

    size: WideFloat
    link: int | None = None
    rank: int = 0

    @property
    def order(self) -> tuple[float, float]:
        """Grows as the size does."""
        return (self.size.exponent, self.size.mantissa) if self.size else (-float("inf"), 0.0)


def find_paths(
    links: Sequence[Link], ends: tuple[int, int], symbols: tuple[Symbol, Symbol], limit: int
) -> PathSum:
    """Return the sum over all paths from the output to a variable.

    Args:
        links: The edges of the graph, operands before results.
        ends: Positions of the output and of the variable.
        symbols: Their symbols.
        limit: How many paths to list at most.
    """
    root, leaf = ends
    reach = {leaf: _Reach(1, 0, ONE, ONE)}
    below: dict[int, list[int]] = {}
    for number, link in enumerate(links):
        if link.source in reach:
            below.setdefault(link.target, []).append(number)
            reach[link.target] = _extend(reach.get(link.target, _Reach()), link, reach[link.source])
    whole = reach[root]
    chains = _list_largest(links, below, ends, limit)
    rest, rest_size = _sum_rest(links, below, reach, root, chains)
    return PathSum(
        output=symbols[0],
        by=symbols[1],
        paths=tuple(
            _build_path([links[number].factor for number in chain], symbols[0], whole.absolute)
            for chain in chains
        ),
        count=whole.count,
        total=whole.total,
        absolute=whole.absolute,
        rest=rest,
        rest_share=_divide(rest_size, whole.absolute),
        multiplications=max(whole.length - whole.count, 0),
        factored=sum(link.target != root for link in find_way(links, root, leaf)),
    )


def find_way(links: Sequence[Link], root: int, leaf: int) -> tuple[Link, ...]:
    """Return the edges on some path between two nodes, those at the upper one first.

    Args:
        links: The edges of the graph, operands before results.
        root: Position of the upper node.
        leaf: Position of the lower one.
    """
    above = {leaf}
    for link in links:
        if link.source in above:
            above.add(link.target)
    below, way = {root}, []
    for link in reversed(links):
        if link.target in below and link.source in above:
            below.add(link.source)
            way.append(link)
    return tuple(way)


def _extend(found: _Reach, link: Link, source: _Reach) -> _Reach:
    """Return what is known of a node's paths with those through one more edge."""
    value = link.factor.exact
    return _Reach(
        found.count + source.count,
        found.length + source.length + source.count,
        found.total + value * source.total,
        found.absolute + abs(value) * source.absolute,
    )


def _list_largest(
    links: Sequence[Link], below: dict[int, list[int]], ends: tuple[int, int], limit: int
) -> list[tuple[int, ...]]:
    """Return the paths of largest |product|, each as the numbers of its edges, output first.

    Of every node only so many paths are kept: a longer one cannot be larger by what follows.
    """
    root, leaf = ends
    starts = {leaf: [_Start(ONE)]}
    for target in sorted(below):
        rows = [
            [
                _Start(abs(links[number].factor.exact) * start.size, number, rank)
                for rank, start in enumerate(starts[links[number].source])
            ]
            for number in below[target]
        ]
        ordered = merge(*rows, key=lambda start: start.order, reverse=True)
        starts[target] = list(islice(ordered, limit))
    chains = []
    for start in starts[root][:limit]:
        chain = []
        step = start
        while step.link is not None:
            chain.append(step.link)
            step = starts[links[step.link].source][step.rank]
        chains.append(tuple(chain))
    return chains


def _sum_rest(
    links: Sequence[Link],
    below: dict[int, list[int]],
    reach: dict[int, _Reach],
    root: int,
    chains: list[tuple[int, ...]],
) -> tuple[WideFloat, WideFloat]:
    """Return the sum over all other paths, and that of |product|, without subtracting.

    A path that is not listed leaves the listed ones at some edge; what follows is known.
    """
    heads: dict[tuple[int, ...], set[int]] = {}
    for chain in chains:
        for length, number in enumerate(chain):
            heads.setdefault(chain[:length], set()).add(number)
    total = size = ZERO
    for head, taken in heads.items():
        product = multiply(links[number].factor.exact for number in head)
        for number in below[links[head[-1]].source if head else root]:
            if number not in taken:
                source = reach[links[number].source]
                step = product * links[number].factor.exact
                total = total + step * source.total
                size = size + abs(step) * source.absolute
    return total, size


def _build_path(factors: list[Factor], output: Symbol, absolute: WideFloat) -> Path:
    product = multiply(factor.exact for factor in factors)
    below = [factor.partial.by for factor in factors]
    return Path(
        factors=tuple(factors),
        symbols=(output, *(each for each in below if isinstance(each, Symbol))),
        product=product,
        share=_divide(abs(product), absolute),
    )


def _divide(part: WideFloat, whole: WideFloat) -> float:
    return float(part / whole) if whole else 0.0
