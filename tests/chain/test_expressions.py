"""The parser of expressions: what passes, what is refused and where, and that nothing is run."""

import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.chain.expressions import (
    MAX_BRACKETS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_NAME,
    MAX_NODES,
    parse_program,
)
from chainrule.chain.notation import render_text
from chainrule.chain.operations import FUNCTIONS
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS


def list_steps(text):
    return [(step.id, step.kind, step.operands) for step in parse_program(text).steps]


def write_statements(text):
    return [f"{render_text(a)} = {render_text(b)}" for a, b in parse_program(text).statements]


def test_operands_come_before_results_and_the_output_last():
    assert list_steps("x + sigmoid(w*x)") == [
        ("x", "variable", ()),
        ("w", "variable", ()),
        ("u1", "multiply", (1, 0)),
        ("u2", "sigmoid", (2,)),
        ("p", "add", (0, 3)),
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("(x*w) + (x*w)", 4),
        ("x*w + w*x", 4),  # the order of a product's operands does not matter
        ("max(x, w) - max(w, x)", 4),
        ("(x - w) * (w - x)", 5),  # that of a difference does
        ("tanh(x)**2 + tanh(x)", 5),
        ("h = x*w; g = x*w; h + g", 4),
        ("2*x + 2.0*w", 6),
        ("h = x; h*x", 2),
    ],
)
def test_equal_parts_are_one_node(text, count):
    assert len(parse_program(text).steps) == count


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_can_be_called(name):
    arguments = ", ".join("xw"[: FUNCTIONS[name].count])
    (*_, last) = parse_program(f"{name}({arguments})").steps
    assert last.kind == name


def test_all_activations_of_the_table_are_functions():
    assert set(ACTIVATIONS) < set(FUNCTIONS)


@pytest.mark.parametrize("text", ["σ(w·x₁)", "sigmoid(w×x1)", "Sigmoid( w * x1 )", "σ(w*x₁)"])
def test_formulas_as_they_are_written_can_be_read(text):
    assert write_statements(text) == ["p = σ(w · x₁)"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a - (b - c)", "p = a − (b − c)"),
        ("a - b - c", "p = a − b − c"),
        ("a/(b*c)", "p = a/(b · c)"),
        ("a/b*c", "p = a/b · c"),
        ("(a + b)*c", "p = (a + b) · c"),
        ("-x**2", "p = −x²"),
        ("(-x)**2", "p = (−x)²"),
        ("x**-0.5", "p = x^(−0.5)"),
        ("x**0.5", "p = x^0.5"),
        ("a**b**c", "p = a^(b^c)"),
        ("(a**b)**c", "p = (a^b)^c"),
        ("(a*b)**2", "p = (a · b)²"),
        ("+x * -2", "p = x · (−2)"),
        ("a - -b", "p = a − (−b)"),
        ("max(relu(x), 3)", "p = max(ReLU(x), 3)"),
        ("learning_rate*θ", "p = learning_rate · θ"),
    ],
)
def test_brackets_stand_where_they_are_needed(text, written):
    assert write_statements(text) == [written]


def test_statements_name_their_nodes():
    text = "h1 = tanh(w*x)\n\nh2 = tanh(w*h1);  y = h1*h2 ;"
    assert [step.id for step in parse_program(text).steps] == [
        "w",
        "x",
        "u1",
        "h1",
        "u2",
        "h2",
        "y",
    ]
    assert write_statements(text) == ["h₁ = tanh(w · x)", "h₂ = tanh(w · h₁)", "y = h₁ · h₂"]


def test_a_last_statement_may_be_a_name_alone():
    assert [step.id for step in parse_program("h = tanh(x); h").steps] == ["x", "h"]
    assert [step.id for step in parse_program("x").steps] == ["x"]


def test_names_that_are_free_are_given():
    assert [step.id for step in parse_program("p*exp(u1 + u)").steps][-3:] == ["v1", "v2", "y"]


@pytest.mark.parametrize(
    ("text", "at", "facts"),
    [
        ("", 1, "formula nothing"),
        (" ; \n", 1, "formula nothing"),
        ("x +", 4, "+ end"),
        ("x + * y", 5, "formula '*"),
        ("x y", 3, "formula 'y'"),
        ("2x", 2, "sign 'x' *x"),
        ("3 4", 3, "formula '4'"),
        ("x^2", 2, "'^' **"),
        ("x $ y", 3, "'$'"),
        ("θ + $", 5, "'$'"),
        ("x.y", 2, "'.'"),
        ("x[0]", 2, "'['"),
        ("x\x00", 2, "x00"),
        ("sigmod(x)", 1, "'sigmod' 'sigmoid' leaky_relu"),
        ("x + w(x+1)", 5, "'w' w*("),
        ("max(x)", 1, "max two 1 max(max(a, b), c)"),
        ("σ(x, y)", 1, "sigmoid one 2"),
        ("(x + y", 1, "closed ')'"),
        ("(x; y)", 1, "closed"),
        ("x)", 2, "opening"),
        ("lambda*x", 1, "'lambda'"),
        ("x if y", 3, "'if'"),
        ("__import__('os')", 1, "'__import__'"),
        ("h = tanh(x); x", 1, "h used"),
        ("x; y", 1, "name h"),
        ("x = 3; x = 4", 8, "once 'x'"),
        ("h = x; x = 2; h*x", 8, "before 'x'"),
        ("exp = x; exp", 1, "function 'exp'"),
        ("x == y", 4, "="),
        ("h =", 4, "formula end"),
        ("max(a=1, b)", 6, "= brackets"),
        ("x, y", 1, "names numbers 'x, y'"),
        ("1e999*x", 1, "1.8e308 '1e999"),
        ("tanh + x", 1, "bracket 'tanh"),
        ("3 + 4", 1, "name '3 + 4'"),
        ("x" * (MAX_NAME + 1), 1, f"{MAX_NAME}"),
        ("(" * (MAX_BRACKETS + 1) + "x" + ")" * (MAX_BRACKETS + 1), MAX_BRACKETS + 1, "60"),
        ("-" * (MAX_DEPTH + 1) + "x", 1, f"{MAX_DEPTH}"),
        ("+".join(["x"] * (MAX_DEPTH + 2)), 1, f"{MAX_DEPTH}"),
        ("+".join(f"x{n}" for n in range(120)), 391, f"{MAX_NODES}"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(text, at, facts):
    with pytest.raises(SpecError) as caught:
        parse_program(text)
    message = str(caught.value)
    assert message.startswith(f"expression, character {at}: ")
    assert all(fact in message for fact in facts.split()), message
    assert "\n" not in message


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(SpecError, match="expression: must be text"):
        parse_program(value)


def test_long_texts_are_refused_before_they_are_read():
    with pytest.raises(SpecError, match=f"{MAX_CHARACTERS} characters; got 10000000"):
        parse_program("x" * 10**7)


def test_the_largest_that_is_allowed_is_read():
    named = ";".join(f"h{n}=x*h{n - 1}" if n else "h0=x*x" for n in range(140))
    program = parse_program(f"{named};{'+'.join(['h139'] * 60)}")
    assert len(program.steps) == MAX_NODES
    with pytest.raises(SpecError, match=f"at most {MAX_NODES} nodes"):
        parse_program(f"{named};{'+'.join(['h139'] * 61)}")


def test_nothing_is_evaluated(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("evaluated")

    for name in ("eval", "exec", "__import__"):
        monkeypatch.setattr(builtins, name, refuse)
    steps = list_steps("h = x**2; 9**9**9**9*h")
    monkeypatch.undo()
    assert steps[-1][1] == "multiply"


SIGNS = st.sampled_from(
    [
        *["x", "w", "y", "θ", "h", "σ(", "tanh(", "max(", "exp", "2", ".5", "1e3", "lambda", "if"],
        *["+", "-", "*", "/", "**", "(", ")", ",", "=", "; ", " ", "\n", "×", "−", "₁", "²", "_"],
        *["'", "[", ":", "\\", "#"],
    ]
)


@given(st.lists(SIGNS, max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        program = parse_program(text)
    except SpecError:
        return
    assert program.variables
    assert all(max(step.operands, default=-1) < at for at, step in enumerate(program.steps))
    assert len({step.id for step in program.steps}) == len(program.steps)
