"""The activations as symbolic expressions: an independent reference."""

import sympy

Z = sympy.symbols("z", real=True)
_ALPHA = sympy.Rational("1.6732632423543772848170429916717")
_SCALE = sympy.Rational("1.0507009873554804934193349852946")
EXPRESSIONS = {
    "sigmoid": 1 / (1 + sympy.exp(-Z)),
    "tanh": (sympy.exp(Z) - sympy.exp(-Z)) / (sympy.exp(Z) + sympy.exp(-Z)),
    "relu": sympy.Piecewise((Z, Z > 0), (0, True)),
    "leaky_relu": sympy.Piecewise((Z, Z > 0), (Z / 100, True)),
    "elu": sympy.Piecewise((Z, Z > 0), (sympy.exp(Z) - 1, True)),
    "selu": _SCALE * sympy.Piecewise((Z, Z > 0), (_ALPHA * (sympy.exp(Z) - 1), True)),
    "gelu": Z * sympy.erfc(-Z / sympy.sqrt(2)) / 2,
    "silu": Z / (1 + sympy.exp(-Z)),
    "identity": Z,
}
