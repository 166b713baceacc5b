"""The chain rule on a one-dimensional network: graph, equation and product, term by term."""

from chainrule.chain.depth import (
    DepthCurve,
    StableWeights,
    count_stable_layers,
    find_best_biases,
    find_best_weights,
    find_stable_weights,
    measure_depth,
)
from chainrule.chain.derivation import Derivation, Line, derive, summarize_derivation
from chainrule.chain.document import describe_chain
from chainrule.chain.drawing import draw_graph
from chainrule.chain.erratum import Erratum, explain_erratum
from chainrule.chain.measured import (
    MeasuredFactor,
    MeasuredProduct,
    describe_product,
    measure_product,
)
from chainrule.chain.network import Edge, Factor, Node
from chainrule.chain.recurrence import (
    Recurrence,
    measure_recurrence,
    summarize_recurrence,
    unroll,
)
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.chain.wide_float import WideFloat

__all__ = [
    "DepthCurve",
    "Derivation",
    "Edge",
    "Erratum",
    "Factor",
    "Line",
    "MeasuredFactor",
    "MeasuredProduct",
    "Node",
    "Recurrence",
    "ScalarChain",
    "ScalarGraph",
    "StableWeights",
    "WideFloat",
    "count_stable_layers",
    "derive",
    "describe_chain",
    "describe_product",
    "draw_graph",
    "explain_erratum",
    "find_best_biases",
    "find_best_weights",
    "find_stable_weights",
    "measure_depth",
    "measure_product",
    "measure_recurrence",
    "summarize_derivation",
    "summarize_recurrence",
    "unroll",
]
