"""How remedies are applied: the shell command, or code to paste, as text."""

from chainrule.edits import describe_edits
from chainrule.flow import GradientFlow
from chainrule.remedy import Remedies

PREPARATION = "import chainrule\nremedies = chainrule.find_remedies(model, compute_loss)"
"""What a call of `apply_remedy` needs; the same model gives the same remedies again."""


def write_call(remedies: Remedies, number: int) -> str:
    """Return the line of code, or the shell command, that applies one remedy.

    Args:
        remedies: What was found.
        number: Its place in them, from 0.

    Returns:
        For a specification the command that measures the changed network. For a model of
        somebody's own a line of Python that changes `model` in place; it needs `PREPARATION`.
    """
    remedy = remedies[number]
    if remedy.command:
        return remedy.command
    return f"chainrule.apply_remedy(remedies[{number}], model)  # {describe_edits(remedy.edits)}"


def write_recipe(remedies: Remedies, number: int) -> str:
    """Return everything that applies one remedy: a command, or code to paste.

    Args:
        remedies: What was found.
        number: Its place in them, from 0.

    Returns:
        Code expects `model` and `compute_loss`, as `find_remedies` was given them.
    """
    call = write_call(remedies, number)
    return call if remedies[number].command else f"{PREPARATION}\n{call}"


def write_search(flow: GradientFlow) -> str:
    """Return the command that looks for remedies for a network, and measures each."""
    if flow.spec is None:
        return "chainrule inspect FILE.py:FUNCTION --remedies"
    return f"{flow.spec.to_command()} --remedies"
