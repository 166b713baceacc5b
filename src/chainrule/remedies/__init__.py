"""What to change: changes of a specification or a model, each measured before and after."""

from chainrule.remedies.edits import (
    Edit,
)
from chainrule.remedies.model_search import (
    apply_remedy,
    find_model_remedies,
)
from chainrule.remedies.result import (
    Comparison,
    Outcome,
    Remedies,
    Remedy,
    compare_flows,
)
from chainrule.remedies.search import Progress
from chainrule.remedies.spec_search import (
    MAX_PAIRS,
    SEARCH_SEEDS,
    SEARCH_STEPS,
    WANTED,
    find_remedies,
    find_spec_remedies,
)

__all__ = [
    "MAX_PAIRS",
    "SEARCH_SEEDS",
    "SEARCH_STEPS",
    "WANTED",
    "Comparison",
    "Edit",
    "Outcome",
    "Progress",
    "Remedies",
    "Remedy",
    "apply_remedy",
    "compare_flows",
    "find_model_remedies",
    "find_remedies",
    "find_spec_remedies",
]
