"""The chain rule on a chain of layers and on any expression: graph, equation, products, sums."""

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
from chainrule.chain.graph_derivation import (
    Equation,
    GraphDerivation,
    SumLine,
    derive_expression,
)
from chainrule.chain.graph_document import describe_expression
from chainrule.chain.graph_drawing import draw_expression
from chainrule.chain.graph_presets import EXPRESSIONS, Expression, get_expression
from chainrule.chain.measured import (
    MeasuredFactor,
    MeasuredProduct,
    describe_product,
    measure_product,
)
from chainrule.chain.network import Edge, Factor, Node
from chainrule.chain.nudge import Nudge, nudge_chain
from chainrule.chain.paths import Path, PathSum
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
    "EXPRESSIONS",
    "DepthCurve",
    "Derivation",
    "Edge",
    "Equation",
    "Erratum",
    "Expression",
    "Factor",
    "GraphDerivation",
    "Line",
    "MeasuredFactor",
    "MeasuredProduct",
    "Node",
    "Nudge",
    "Path",
    "PathSum",
    "Recurrence",
    "ScalarChain",
    "ScalarGraph",
    "StableWeights",
    "SumLine",
    "WideFloat",
    "count_stable_layers",
    "derive",
    "derive_expression",
    "describe_chain",
    "describe_expression",
    "describe_product",
    "draw_expression",
    "draw_graph",
    "explain_erratum",
    "find_best_biases",
    "find_best_weights",
    "find_stable_weights",
    "get_expression",
    "measure_depth",
    "measure_product",
    "measure_recurrence",
    "nudge_chain",
    "summarize_derivation",
    "summarize_recurrence",
    "unroll",
]
