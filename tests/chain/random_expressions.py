"""Random expressions with values, and what PyTorch makes of the same text: a reference."""

import math
import random

import torch

NAMES = ("x", "w", "a", "b1")
UNARY = (
    "exp",
    "log",
    "abs",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
)
FUNCTIONS = {
    "exp": torch.exp,
    "log": torch.log,
    "abs": torch.abs,
    "max": torch.maximum,
    "min": torch.minimum,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "elu": torch.nn.functional.elu,
    "selu": torch.selu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "identity": torch.nn.Identity(),
}


def draw_expression(draw, size, names=NAMES, functions=UNARY):  # noqa: PLR0911
    """Return an expression of about `size` operations as text."""
    if size <= 0:
        if draw.random() < 0.15:
            return draw.choice(("2", "0.5", "3", "1.5"))
        return draw.choice(names)
    kind = draw.random()
    if kind < 0.3:
        inner = draw_expression(draw, size - 1, names, functions)
        return f"{draw.choice(functions)}({inner})"
    if kind < 0.36:
        return f"(-{draw_expression(draw, size - 1, names, functions)})"
    if kind < 0.46:
        power = draw.choice(("2", "3", "-1", "0.5"))
        return f"({draw_expression(draw, size - 1, names, functions)})**{power}"
    split = draw.randint(0, size - 1)
    left = draw_expression(draw, split, names, functions)
    right = draw_expression(draw, size - 1 - split, names, functions)
    if kind < 0.52:
        return f"{draw.choice(('max', 'min'))}({left}, {right})"
    if kind < 0.55:
        return f"abs({left})**({right})"
    return f"({left} {draw.choice('++-**/')} {right})"


def draw_program(draw, functions=UNARY):
    """Return statements in which later ones read earlier ones, often more than once, as text."""
    names, lines = list(NAMES), []
    for number in range(1, draw.randint(1, 5)):
        name = f"h{number}"
        lines.append(f"{name} = {draw_expression(draw, draw.randint(1, 4), names, functions)}")
        names += [name, name]
    last = draw_expression(draw, draw.randint(1, 6), names, functions)
    lines.append(" + ".join([last, *(line.split()[0] for line in lines)]))
    return "; ".join(lines)


def draw_values(draw, names):
    return {name: draw.choice((-1, 1, 1)) * draw.uniform(0.2, 2.0) for name in names}


def run_torch(text, values):
    """Return the value of an expression and its gradient by each variable.

    The text is Python with PyTorch's functions in place of chainrule's: nothing is shared.
    """
    leaves = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in values.items()
    }
    scope = {**FUNCTIONS, **leaves, "__builtins__": {}}
    *before, last = (line.strip() for line in text.split(";"))
    for line in before:
        exec(line, scope)
    result = eval(last.partition(" = ")[2] or last, scope)
    found = torch.autograd.grad(result, list(leaves.values()), allow_unused=True)
    gradients = [0.0 if each is None else each.item() for each in found]
    return result.item(), dict(zip(leaves, gradients, strict=True))


def is_usual(value, gradients):
    """Return whether everything is finite and of a usual size: at a pole it is not."""
    numbers = (value, *gradients.values())
    return all(math.isfinite(each) and abs(each) < 1e6 for each in numbers)


def draw_cases(count, seed, functions=UNARY):
    """Yield text, values, and PyTorch's value and gradients of expressions that have them."""
    draw = random.Random(seed)
    while count:
        text = draw_program(draw, functions)
        values = draw_values(draw, read_names(text))
        if not values:
            continue
        try:
            value, gradients = run_torch(text, values)
        except (RuntimeError, AttributeError, TypeError, ZeroDivisionError):
            continue  # a function of numbers only, of which PyTorch makes no tensor
        if is_usual(value, gradients):
            count -= 1
            yield text, values, value, gradients


def read_names(text):
    """Return the variables of a text in the order of `NAMES`."""
    words = set("".join(c if c.isalnum() else " " for c in text).split())
    return [name for name in NAMES if name in words]
