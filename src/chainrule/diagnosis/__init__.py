"""From a measured `GradientFlow` to rules, findings and a verdict in words."""

from chainrule.diagnosis.attribution import Attribution, explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import NO_PARAMETERS, Diagnosis, Finding, diagnose, overlook
from chainrule.diagnosis.limits import Limits, Violation, check_limits
from chainrule.diagnosis.note import Note
from chainrule.diagnosis.rule import Reading, Rule, Verdict
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES, RULES, measure_metric
from chainrule.diagnosis.viability.model import Outlook, Viability, assess_viability

__all__ = [
    "IGNORED_BY_REMEDIES",
    "NO_PARAMETERS",
    "RULES",
    "Attribution",
    "Diagnosis",
    "Finding",
    "Limits",
    "Note",
    "Outlook",
    "Reading",
    "Rule",
    "Verdict",
    "Viability",
    "Violation",
    "assess_viability",
    "check_limits",
    "diagnose",
    "explain_attributions",
    "measure_metric",
    "overlook",
    "rank_attributions",
]
