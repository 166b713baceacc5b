"""From a measured `GradientFlow` to rules, findings and a verdict in words."""

from chainrule.diagnosis.diagnosis import (
    NO_PARAMETERS,
    PASSED_OVER,
    Diagnosis,
    Finding,
    diagnose,
    overlook,
)
from chainrule.diagnosis.limits import (
    Limits,
    Violation,
    check_limits,
)
from chainrule.diagnosis.notes import (
    Note,
)
from chainrule.diagnosis.rules import (
    RULES,
    Outlook,
    Rule,
    Verdict,
)
from chainrule.diagnosis.viability.model import (
    Viability,
    assess_viability,
)

__all__ = [
    "NO_PARAMETERS",
    "PASSED_OVER",
    "RULES",
    "Diagnosis",
    "Finding",
    "Limits",
    "Note",
    "Outlook",
    "Rule",
    "Verdict",
    "Viability",
    "Violation",
    "assess_viability",
    "check_limits",
    "diagnose",
    "overlook",
]
