"""The address of an expression on the chain-rule page, where a gradient is a sum over paths."""

from urllib.parse import urlencode

from chainrule.chain.graph_presets import Expression


def write_paths(expression: Expression) -> str:
    """Return the address that shows an expression with its values.

    Args:
        expression: What is shown.
    """
    values = ",".join(f"{name}={value:g}" for name, value in expression.values.items())
    query = {"expr": expression.text, "set": values, "wrt": expression.wrt}
    return f"/chain-rule?{urlencode(query)}"
