"""The derivation: textbook lines, every line against the next in SymPy, and its renderings."""

import re
from xml.etree import ElementTree

import mpmath
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.chain import (
    derive,
    explain_erratum,
    measure_depth,
    measure_recurrence,
    summarize_derivation,
    summarize_recurrence,
)
from chainrule.chain.derivation import MAX_FACTORS
from chainrule.chain.notation import render_text
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.terms import (
    Apply,
    Condition,
    Fold,
    Mark,
    Number,
    Partial,
    Power,
    Product,
    Sum,
    Symbol,
    iterate_marks,
    write_slope,
)
from chainrule.errors import SpecError
from expressions import EXPRESSIONS, Z
from test_scalar_chain import NAMES, draw_chain

DEPTHS = [1, 2, 3, 7]

# ------------------------------------------------------------- textbook lines

THREE = """\
∂p/∂w₁ = ∂p/∂z₃ · ∂z₃/∂w₁
       = ∂p/∂z₃ · ∂z₃/∂h₂ · ∂h₂/∂w₁
       = ∂p/∂z₃ · ∂z₃/∂h₂ · ∂h₂/∂z₂ · ∂z₂/∂w₁
       = ∂p/∂z₃ · ∂z₃/∂h₂ · ∂h₂/∂z₂ · ∂z₂/∂h₁ · ∂h₁/∂w₁
       = ∂p/∂z₃ · ∂z₃/∂h₂ · ∂h₂/∂z₂ · ∂z₂/∂h₁ · ∂h₁/∂z₁ · ∂z₁/∂w₁
       = h₃(1 − h₃) · w₃ · h₂(1 − h₂) · w₂ · h₁(1 − h₁) · x
       ≈ 0.243 · 1.5 · 0.174 · (−2) · 0.235 · 1
       ≈ −0.0298"""

TWO = """\
∂p/∂w₁ = ∂p/∂z₂ · ∂z₂/∂w₁
       = ∂p/∂z₂ · ∂z₂/∂h₁ · ∂h₁/∂w₁
       = ∂p/∂z₂ · ∂z₂/∂h₁ · ∂h₁/∂z₁ · ∂z₁/∂w₁
       = h₂(1 − h₂) · w₂ · h₁(1 − h₁) · x
       ≈ 0.174 · (−2) · 0.235 · 1
       ≈ −0.0816"""

ONE = """\
∂p/∂w₁ = ∂p/∂z₁ · ∂z₁/∂w₁
       = h₁(1 − h₁) · x
       ≈ 0.235 · 1
       ≈ 0.235"""

FORWARD = """\
∂p/∂w₁ = ∂z₁/∂w₁ · ∂p/∂z₁
       = ∂z₁/∂w₁ · ∂h₁/∂z₁ · ∂p/∂h₁
       = ∂z₁/∂w₁ · ∂h₁/∂z₁ · ∂z₂/∂h₁ · ∂p/∂z₂
       = x · h₁(1 − h₁) · w₂ · h₂(1 − h₂)
       ≈ 1 · 0.235 · (−2) · 0.174
       ≈ −0.0816"""

TWO_LATEX = r"""\begin{aligned}
  \frac{\partial p}{\partial w_1} &= \frac{\partial p}{\partial z_2} \cdot \frac{\partial z_2}{\partial w_1} \\
  &= \frac{\partial p}{\partial z_2} \cdot \frac{\partial z_2}{\partial h_1} \cdot \frac{\partial h_1}{\partial w_1} \\
  &= \frac{\partial p}{\partial z_2} \cdot \frac{\partial z_2}{\partial h_1} \cdot \frac{\partial h_1}{\partial z_1} \cdot \frac{\partial z_1}{\partial w_1} \\
  &= h_2\,(1 - h_2) \cdot w_2 \cdot h_1\,(1 - h_1) \cdot x \\
  &\approx 0.174 \cdot (-2) \cdot 0.235 \cdot 1 \\
  &\approx -0.0816
\end{aligned}"""  # noqa: E501


@pytest.mark.parametrize(
    ("weights", "order", "lines"),
    [
        ([0.5], "backward", ONE),
        ([0.5, -2.0], "backward", TWO),
        ([0.5, -2.0, 1.5], "backward", THREE),
        ([0.5, -2.0], "forward", FORWARD),
    ],
)
def test_textbook_lines(weights, order, lines):
    assert derive(ScalarChain(1.0, weights), order=order).to_text() == lines


def test_textbook_lines_in_latex():
    assert derive(ScalarChain(1.0, [0.5, -2.0])).to_latex() == TWO_LATEX


def test_lines_name_their_step():
    lines = derive(ScalarChain(1.0, [0.5, -2.0])).lines
    assert [line.kind for line in lines] == [
        "derivative",
        "expansion",
        "expansion",
        "product",
        "formulas",
        "numbers",
        "value",
    ]
    assert [line.number for line in lines] == list(range(1, 8))
    assert [name in lines[1].note for name in ("p", "w₁", "z₂")] == [True] * 3
    assert [name in lines[2].note for name in ("z₂", "w₁", "h₁")] == [True] * 3
    forward = derive(ScalarChain(1.0, [0.5, -2.0]), order="forward").lines[2].note
    assert [name in forward for name in ("z₁", "p", "h₁")] == [True] * 3
    assert lines[0].to_text() == "∂p/∂w₁"


def test_exact_numbers_are_equal_and_rounded_ones_are_not():
    exact = derive(ScalarChain(2.0, [0.5, 3.0], "relu"))
    assert exact.to_text().splitlines()[-2:] == ["       = 1 · 3 · 1 · 2", "       = 6"]
    product_rounded = derive(ScalarChain(0.123, [1.11, 0.222], "relu")).lines
    assert [line.relation for line in product_rounded[-2:]] == ["=", "≈"]


# --------------------------------------------------------- each line in SymPy


class Phi(sympy.Function):
    """φ of a layer, known to SymPy only by the name of its derivative."""

    def fdiff(self, argindex=1):
        assert argindex == 2
        return PhiPrime(*self.args)


class PhiPrime(sympy.Function):
    pass


def symbol(name):
    return sympy.Symbol(name, real=True)


def express(name, depth, stop=None):
    """Return a variable of the chain as a function of `stop`, or of x, w and b."""
    if name == stop or name[0] in "xwb":
        return symbol(name)
    if name == "p":
        return express(f"h{depth}", depth, stop)
    n = int(name[1:])
    if name[0] == "h":
        return Phi(n, express(f"z{n}", depth, stop))
    before = express(f"h{n - 1}" if n > 1 else "x", depth, stop)
    return symbol(f"w{n}") * before + symbol(f"b{n}")


def get_name(term):
    return term.name + ("" if term.index is None else str(term.index))


def differentiate(partial, depth):
    """Return a derivative as SymPy's chain rule gives it, in terms of x, w and b."""
    by = get_name(partial.by)
    whole = express(get_name(partial.of), depth, stop=by).diff(symbol(by))
    return whole.xreplace({symbol(by): express(by, depth)})


def convert_line(line, depth):
    marks = list(iterate_marks(line.full))
    assert all(isinstance(mark.term, Partial) for mark in marks)
    return sympy.Mul(*(differentiate(mark.term, depth) for mark in marks))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("order", ["backward", "forward"])
def test_each_line_of_the_expansion_equals_the_next(depth, order):
    chain = ScalarChain(1.0, [0.5] * depth, "sigmoid", [0.1] * depth)
    for variable in chain.variables:
        derivation = derive(chain, variable, order=order)
        symbolic = [line for line in derivation.lines if line.kind in SYMBOLIC]
        assert len(symbolic) == len(derivation.factors)
        expressions = {convert_line(line, depth) for line in symbolic}
        assert len(expressions) == 1
        counts = [len(list(iterate_marks(line.full))) for line in symbolic]
        assert counts == list(range(1, len(counts) + 1))  # one more variable in each line


SYMBOLIC = ("derivative", "expansion", "product")


def convert_formula(term, values):  # noqa: PLR0911
    """Return a term as a SymPy expression, `values` standing for its variables."""
    match term:
        case Number(value):
            return sympy.Rational(float(value)) if float(value) != 0.01 else sympy.Rational(1, 100)
        case Symbol():
            return values[get_name(term)]
        case Product(factors):
            return sympy.Mul(*(convert_formula(factor, values) for factor in factors))
        case Sum(left, sign, right):
            right = convert_formula(right, values)
            return convert_formula(left, values) + (right if sign == "+" else -right)
        case Power(base, exponent):
            return convert_formula(base, values) ** convert_formula(exponent, values)
        case Condition(left, relation, right):
            left, right = convert_formula(left, values), convert_formula(right, values)
            holds = left > right if relation == ">" else left <= right
            return sympy.Piecewise((1, holds), (0, True))
        case Apply("min", (left, right)):
            return sympy.Min(convert_formula(left, values), convert_formula(right, values))
        case Apply("σ", (z,)):
            return 1 / (1 + sympy.exp(-convert_formula(z, values)))
        case Apply("Φ", (z,)):
            return sympy.erfc(-convert_formula(z, values) / sympy.sqrt(2)) / 2
        case Apply("φ", (z,)):
            return sympy.exp(-(convert_formula(z, values) ** 2) / 2) / sympy.sqrt(2 * sympy.pi)
        case Mark(_, inner):
            return convert_formula(inner, values)
    raise AssertionError(term)


CONSTANTS = {
    "e": sympy.E,
    "λ": sympy.Rational("1.0507009873554804934193349852946"),
    "α": sympy.Rational("1.6732632423543772848170429916717"),
}


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("side", ["positive", "negative"])
def test_each_slope_formula_is_the_derivative_of_its_activation(activation, side):
    z = sympy.Symbol("z", **{side: True})
    function = EXPRESSIONS[activation].subs(Z, z)
    formula = convert_formula(write_slope(activation, 4), {"z4": z, "h4": function, **CONSTANTS})
    assert sympy.simplify((formula - sympy.diff(function, z)).rewrite(sympy.exp)) == 0


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", NAMES)
def test_formulas_stand_for_the_factors_in_their_order(depth, activation):
    """Line (iv) against line (iii): the same marks, each with the formula of its derivative."""
    chain = draw_chain(depth, activation, biased=True)
    for variable in chain.variables:
        product, formulas, numbers, value = derive(chain, variable).lines[-4:]
        marks = [list(iterate_marks(line.full)) for line in (product, formulas, numbers)]
        for local, formula, number in zip(*marks, strict=True):
            assert local.factors == formula.factors == number.factors
            of, by = get_name(local.term.of), get_name(local.term.by)
            n = int(by[1:]) if by[0] in "zwb" else (int(by[1:]) + 1 if by != "x" else 1)
            if of[0] in "ph":
                assert formula.term == write_slope(activation, n)
            else:
                expected = sympy.diff(express(of, depth, stop=by), symbol(by))
                if by[0] in "hx":
                    received = convert_formula(formula.term, {f"w{n}": symbol(f"w{n}")})
                else:
                    before = f"h{n - 1}" if n > 1 else "x"
                    known = express(before, depth)
                    received = convert_formula(formula.term, {before: known})
                assert received == expected
        (whole,) = iterate_marks(value.full)
        assert sorted(whole.factors) == sorted(name for m in marks[0] for name in m.factors)


@settings(deadline=None, max_examples=settings.default.max_examples // 2 + 1)
@given(
    st.floats(-3, 3),
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(NAMES)),
        min_size=1,
        max_size=7,
    ),
    st.data(),
)
def test_formulas_numbers_and_value_agree(x, layers, data):
    """Lines (iv), (v) and (vi) for any weights, evaluated with 40 digits from x, w and b."""
    weights, biases, names = map(list, zip(*layers, strict=True))
    chain = ScalarChain(x, weights, names, biases)
    variable = data.draw(st.sampled_from(chain.variables))
    formulas, numbers, value = (line.full for line in derive(chain, variable).lines[-3:])
    with mpmath.workdps(40):
        values = {**{name: mpmath.mpf(str(c)) for name, c in CONSTANTS.items() if name != "e"}}
        values |= {
            "e": mpmath.e,
            "x": mpmath.mpf(x),
            "λ": mpmath.mpf(CONSTANTS["λ"].p) / CONSTANTS["λ"].q,
        }
        values["α"] = mpmath.mpf(CONSTANTS["α"].p) / CONSTANTS["α"].q
        h = values["x"]
        for n, (w, b, name) in enumerate(layers, 1):
            z = mpmath.mpf(w) * h + mpmath.mpf(b)
            h = mpmath.mpf(sympy.lambdify(Z, EXPRESSIONS[name], "mpmath")(z))
            values |= {f"w{n}": mpmath.mpf(w), f"z{n}": z, f"h{n}": h}
        terms = [mark.term for mark in iterate_marks(formulas)]
        left = [evaluate(term, values) for term in terms]
        right = [float(mark.term.value) for mark in iterate_marks(numbers)]
        kinks = [abs(values[f"z{n}"]) < 1e-9 for n in range(1, len(layers) + 1)]
        if any(kinks):
            return  # on which side of a kink z falls is a matter of rounding
        for a, b in zip(left, right, strict=True):
            assert float(a) == pytest.approx(b, rel=1e-9, abs=1e-11)
        (total,) = iterate_marks(value)
        assert float(total.term.value) == pytest.approx(
            float(mpmath.fprod(map(mpmath.mpf, right))), rel=1e-12, abs=1e-300
        )


def evaluate(term, values):  # noqa: PLR0911
    """Return a formula's value in mpmath."""
    match term:
        case Number(value):
            return mpmath.mpf("0.01") if float(value) == 0.01 else mpmath.mpf(float(value))
        case Symbol():
            return values[get_name(term)]
        case Product(factors):
            return mpmath.fprod(evaluate(factor, values) for factor in factors)
        case Sum(left, sign, right):
            right = evaluate(right, values)
            return evaluate(left, values) + (right if sign == "+" else -right)
        case Power(base, exponent):
            return evaluate(base, values) ** evaluate(exponent, values)
        case Condition(left, relation, right):
            left, right = evaluate(left, values), evaluate(right, values)
            return mpmath.mpf(left > right if relation == ">" else left <= right)
        case Apply("min", arguments):
            return min(evaluate(argument, values) for argument in arguments)
        case Apply("σ", (z,)):
            return 1 / (1 + mpmath.exp(-evaluate(z, values)))
        case Apply("Φ", (z,)):
            return mpmath.ncdf(evaluate(z, values))
        case Apply("φ", (z,)):
            return mpmath.npdf(evaluate(z, values))
    raise AssertionError(term)


# ------------------------------------------------------------------- foldings


def test_long_lines_fold_and_unfold():
    derivation = derive(ScalarChain(1.0, [0.5] * 30))
    product = derivation.lines[-4]
    assert product.folds
    assert render_text(product.folded).count("∂p") == 1
    assert "⋯ 54 factors ⋯" in render_text(product.folded)
    assert "⋯" not in render_text(product.full)
    (fold,) = [term for term in product.folded.factors if isinstance(term, Fold)]
    assert fold.value is None
    assert list(iterate_marks(product.folded)) == list(iterate_marks(product.full))
    numbers = derivation.lines[-2]
    (fold,) = [term for term in numbers.folded.factors if isinstance(term, Fold)]
    hidden = [float(mark.term.value) for mark in fold.hidden]
    assert float(fold.value) == pytest.approx(float(mpmath.fprod(hidden)), rel=1e-12)


def test_short_lines_do_not_fold():
    lines = derive(ScalarChain(1.0, [0.5] * 4)).lines
    assert max(line.count for line in lines) == MAX_FACTORS
    assert not any(line.folds or line.hidden for line in lines)


def test_long_expansions_hide_their_middle_lines_and_say_how_many():
    derivation = derive(ScalarChain(1.0, [0.5] * 30))
    folded, full = derivation.to_text().splitlines(), derivation.to_text(fold=False).splitlines()
    hidden = sum(line.hidden for line in derivation.lines)
    assert len(full) == len(derivation.lines) - 1
    assert len(folded) == len(full) - hidden + 1
    assert f"⋮ {hidden} more lines" in folded[3]
    assert derivation.to_latex().count(r"\vdots") == 1
    assert r"\vdots" not in derivation.to_latex(fold=False)


def test_the_deepest_chain_stays_short():
    derivation = derive(ScalarChain(1.0, [0.5] * 1000), "w1")
    for text in (derivation.to_text(), derivation.to_latex(), derivation.to_mathml()):
        assert len(text) < 250_000


# --------------------------------------------------------- renderings and words


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("fold", [True, False])
def test_mathml_is_well_formed_and_marks_every_factor(activation, fold):
    chain = draw_chain(7, activation, biased=True)
    derivation = derive(chain, "w2")
    expected = [factor.id for factor in derivation.factors]
    for line in derivation.lines:
        math = ElementTree.fromstring(line.to_mathml(fold=fold))
        assert math.tag == "{http://www.w3.org/1998/Math/MathML}math"
        marked = [e.get("data-factor") for e in math.iter() if e.get("data-factor")]
        assert " ".join(marked).split() == expected
        classes = {e.get("class") for e in math.iter()} - {None}
        assert classes <= {"factor", "factors", "fold"}
        assert ("fold" in classes) == (fold and line.folds)
    whole = ElementTree.fromstring(derivation.to_mathml(fold=fold))
    rows = [e for e in whole.iter() if e.tag.endswith("}mtr")]
    hidden = sum(line.hidden for line in derivation.lines) if fold else 0
    assert len(rows) == len(derivation.lines) - 1 - hidden + (hidden > 0)


def read_mathml(element):
    """Return the text of MathML as plain text writes it."""
    tag = element.tag.split("}")[1]
    parts = [read_mathml(child) for child in element]
    own = element.text or ""
    if tag == "mfrac":
        return "/".join(parts)
    if tag == "msub":
        return parts[0] + parts[1].translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    if tag == "msup":
        digits = str.maketrans("0123456789−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
        plain = re.fullmatch("−?[0-9]+", parts[1])
        if parts[1] == "′":
            return parts[0] + "′"
        if plain:
            return parts[0] + parts[1].translate(digits)
        return f"{parts[0]}^" + (parts[1] if parts[1].startswith("[") else f"({parts[1]})")
    return own + "".join(parts)


@pytest.mark.parametrize("activation", NAMES)
def test_mathml_says_what_plain_text_says(activation):
    for depth, size in ((3, 1.0), (7, 1e-4)):
        chain = ScalarChain(size, [0.5, -2.0, 1.5, 3.0, 0.1, 1.0, -1.0][:depth], activation)
        for line in derive(chain).lines:
            for fold in (True, False):
                text = read_mathml(ElementTree.fromstring(line.to_mathml(fold=fold)))
                squeeze = str.maketrans("", "", " \u2061\u2062")
                plain = line.to_text(fold=fold).translate(squeeze)
                assert text.translate(squeeze) == plain


@pytest.mark.parametrize("activation", NAMES)
def test_latex_is_balanced(activation):
    for depth in (3, 30):
        latex = derive(draw_chain(depth, activation, biased=True)).to_latex()
        level = 0
        for sign in latex:
            level += {"{": 1, "}": -1}.get(sign, 0)
            assert level >= 0
        assert level == 0
        assert latex.count("(") == latex.count(")")
        assert latex.isascii()


SCENES = {
    "biases": (ScalarChain(0.7, [0.5, -2.0], "tanh", [0.1, 1.0]), "b1"),
    "mixed": (ScalarChain(1.0, [0.5, -2.0, 1.1], ["selu", "gelu", "leaky_relu"]), "w2"),
    "smooth": (ScalarChain(1.0, [0.5, -2.0], ["silu", "elu"]), "x"),
    "dead": (ScalarChain(1.0, [2.0, -1.0, 3.0], "relu"), "w1"),
    "seven": (ScalarChain(1.0, [1.0, -2.0, 3.0, 0.5, -1.5, 2.5, 1.2]), "w1"),
    "thirty": (ScalarChain(1.0, [0.5] * 30), "w1"),
    "thousand": (ScalarChain(1.0, [0.5] * 1000), "w1"),
    "exploding": (ScalarChain(1.0, [10.0] * 400, "identity"), "w1"),
    "saturated": (ScalarChain(1.0, [1000.0, 1e300], ["sigmoid", "identity"]), "w1"),
}


@pytest.mark.parametrize("name", SCENES)
def test_text_is_as_recorded(golden, name):
    chain, variable = SCENES[name]
    golden(f"equation_{name}", summarize_derivation(derive(chain, variable)))


@pytest.mark.parametrize(
    ("chain", "facts"),
    [
        (ScalarChain(1.0, [0.5]), None),
        (ScalarChain(1.0, [0.5] * 1000), ("∂p/∂w₁ underflows", "show 0", "−911.6")),
        (ScalarChain(1.0, [10.0] * 400, "identity"), ("∂p/∂w₁ overflows", "show ∞", "399.0")),
        (ScalarChain(1.0, [-10.0] * 401, "identity"), ("∂p/∂x overflows", "show −∞", "401.0")),
        (
            ScalarChain(1.0, [1000.0, 1e300, 1e250], ["sigmoid", "identity", "identity"]),
            ("σ′(z₁) underflows", "show 0", "−434.3"),
        ),
        (ScalarChain(1.0, [1e308, -1e308, 1e308]), ("underflows", "show 0", "−8.7·10³⁰⁷")),
        (ScalarChain(1.0, [-1.0], "relu"), ("∂p/∂w₁ is exactly 0", "ReLU′(z₁) = 0")),
        (ScalarChain(0.0, [1.0], "identity"), ("∂p/∂w₁ is exactly 0", "x = 0")),
    ],
)
def test_values_beyond_floats_are_reported(chain, facts):
    wrt = "x" if chain.depth == 401 else "w1"
    note = derive(chain, wrt).describe_range()
    if facts is None:
        assert note is None
    else:
        assert [fact for fact in facts if fact not in note] == []


# ------------------------------------------------------------------- for a terminal


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
@pytest.mark.parametrize(("depth", "fold"), [(3, True), (12, True), (12, False)])
def test_a_derivation_fits_a_width_and_says_the_same(depth, fold, width):
    derivation = derive(draw_chain(depth, "sigmoid", biased=True))
    rows = derivation.write_rows(fold=fold, width=width)
    for row in rows:
        assert len(str(row)) <= width or len(row.pieces) == 1
    squeeze = str.maketrans("", "", " \n")
    assert "".join(map(str, rows)).translate(squeeze) == derivation.to_text(fold=fold).translate(
        squeeze
    )
    known = {factor.id for factor in derivation.factors}
    assert {name for row in rows for piece in row.pieces for name in piece.factors} == known


@pytest.mark.parametrize("width", [60, 80])
def test_a_summary_fits_a_width(width):
    text = summarize_derivation(derive(draw_chain(12, "gelu", biased=True)), width=width)
    assert max(map(len, text.splitlines())) <= width
    tied = measure_recurrence(1.5, 30, clip=0.1)
    assert max(map(len, summarize_recurrence(tied, width=width).splitlines())) <= width


def test_it_prints_one_line_and_shows_itself_in_a_notebook():
    chain = ScalarChain(1.0, [0.5] * 1000)
    derivation = derive(chain)
    shown = [chain, derivation, *derivation.lines[:3], *derivation.factors[:2], chain.layers[0]]
    shown += [chain.nodes[0], chain.edges[0], measure_recurrence(0.5, 1000)]
    shown += [explain_erratum(chain), measure_depth(0.5, depth=1000)]
    for each in shown:
        text = repr(each)
        assert text.startswith(f"{type(each).__name__}(")
        assert len(text) < 200
        assert "\n" not in text
    assert "∂p/∂w₁" in repr(derivation)
    assert derivation._repr_latex_() == f"$$\n{derivation.to_latex()}\n$$"
    assert ElementTree.fromstring(chain._repr_svg_()).tag.endswith("svg")


def test_an_unknown_order_or_variable():
    chain = ScalarChain(1.0, [0.5])
    with pytest.raises(SpecError, match=r"order: .*'backward' or 'forward'.*'up'"):
        derive(chain, order="up")
    with pytest.raises(SpecError, match="wrt: unknown 'w2'"):
        derive(chain, "w2")


@pytest.mark.parametrize(
    ("biases", "wrt", "has_bias"), [(None, "w1", False), (None, "b1", True), ([0.0], "w1", True)]
)
def test_symbols_have_a_bias_where_there_is_one(biases, wrt, has_bias):
    chain = ScalarChain(1.0, [0.5], biases=biases)
    assert ("bₗ" in derive(chain, wrt).describe_symbols()[0]) is has_bias
