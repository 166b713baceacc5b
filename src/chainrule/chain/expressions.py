"""From the text of an expression to the operations that compute it; nothing is ever evaluated.

Python's own parser reads the text, after every character, name and bracket of it has been checked;
of what it finds, only names, numbers, + − × ÷ **, calls of known functions and assignments pass.
"""

import ast
import keyword
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from chainrule.chain.operations import ALIASES, FUNCTIONS, OPERATIONS, write_value_symbol
from chainrule.chain.terms import Number, Symbol, Term
from chainrule.chain.wide_float import WideFloat
from chainrule.errors import SpecError, suggest

MAX_NODES = 200
MAX_CHARACTERS = 2000
MAX_DEPTH = 200
"""Most operations that stand inside each other."""

MAX_BRACKETS = 60
MAX_NAME = 20

_SPELLINGS = str.maketrans("×·÷−₀₁₂₃₄₅₆₇₈₉", "**/-0123456789")
"""Signs as formulas have them, by those that the parser knows; one character each."""

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_α-ωΦ][A-Za-z_α-ω0-9]*)"
    r"|(?P<sign>\*\*|[-+*/(),=])|(?P<end>[;\n])|(?P<space>[ \t\r]+)"
)
_BINARY = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
}
_WHAT = "names, numbers, + − × ÷ **, brackets and functions"
_EXAMPLE = "For example x + sigmoid(w*x)."
_SHARE = "Give inner parts a name: h = tanh(w*x); h*h."

_OUTPUTS = ("p", "y", "f", "out", "result")
"""Names of a result that has none."""

_LETTERS = "uvaqgrst"
"""Letters of intermediate values that have no name: the first one that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node before it has a value: a variable, a number or an operation.

    Attributes:
        id: Its name in the graph: "w1", "number-1", "u2", "p".
        kind: "variable", "number", or the name of an operation.
        symbol: How it is written: a `Number` for a number.
        operands: Positions of its operands among the steps.
        at: Position in the text, from 0: of a name, a number or a function its first character, of
            other operations the second operand.
    """

    id: str
    kind: str
    symbol: Symbol | Number
    operands: tuple[int, ...] = ()
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What an expression computes, step by step.

    Attributes:
        text: The expression as it was written.
        steps: Operands before results; the last one is the output.
        statements: Name and formula of each statement as it was written.
        largest: Exponent of two of the largest number that a function or a power is given; with a
            larger one, calculating takes long.
    """

    text: str
    steps: tuple[Step, ...]
    statements: tuple[tuple[Symbol, Term], ...]
    largest: int = 2**12

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that need a value, in the order in which they appear."""
        return tuple(step.id for step in self.steps if step.kind == "variable")


def parse_program(text: str) -> Program:
    """Return what an expression computes; equal sub-expressions are one step.

    Args:
        text: One expression, or several statements divided by ";" or line breaks of which all but
            the last give names to expressions: "h = tanh(w*x); h*h".

    Raises:
        SpecError: If it is not such an expression, or too long; says where.

    Example:
        >>> [step.id for step in parse_program("x + sigmoid(w*x)").steps]
        ['x', 'w', 'u1', 'u2', 'p']
    """
    if not isinstance(text, str):
        raise SpecError(
            f"expression: must be text, for example 'x + sigmoid(w*x)'; got {text!r:.60}."
        )
    if len(text) > MAX_CHARACTERS:
        raise SpecError(
            f"expression: must have at most {MAX_CHARACTERS} characters; got {len(text)}. {_SHARE}"
        )
    return _parse_text(text)


@lru_cache(maxsize=32)
def _parse_text(text: str) -> Program:
    statements = list(_split(text, list(_read_tokens(text))))
    if not statements:
        _fail(text, 0, "must be a formula", _EXAMPLE, "nothing")
    builder = _Builder(text)
    for number, statement in enumerate(statements, 1):
        builder.add(statement, last=number == len(statements))
    return builder.build()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement: its name, if it has one, and where its expression begins and ends."""

    name: _Token | None
    start: int
    end: int


def _fail(text: str, at: int, must: str, fix: str, got: str | None = None) -> NoReturn:
    """Raise an error that says where in the text something is wrong.

    Args:
        text: The expression.
        at: Position of the character, from 0.
        must: What must hold.
        fix: How to mend it.
        got: What came instead; by default the text from there on.
    """
    rest = text[at : at + 20].partition("\n")[0].rstrip()
    came = got if got is not None else repr(rest) if rest else "the end"
    raise SpecError(f"expression, character {at + 1}: {must}; got {came}. {fix}")


def _read_tokens(text: str) -> Iterator[_Token]:
    """Yield names, numbers, signs and ends of statements, each of them checked by itself."""
    spelled = text.translate(_SPELLINGS)
    opened: list[int] = []
    at, before = 0, ""
    while at < len(spelled):
        found = _TOKEN.match(spelled, at)
        if not found:
            fix = "For a power write **." if spelled[at] == "^" else "Leave it out."
            _fail(text, at, f"must consist of {_WHAT}", fix, repr(text[at]))
        kind, token = str(found.lastgroup), found[0]
        if kind in ("name", "number") and before == "number":
            fix = f"Write *{token}, or begin the name with a letter."
            _fail(text, at, "a number must be followed by a sign", fix)
        if kind == "name":
            _check_name(text, at, token)
        if kind == "number" and not math.isfinite(float(token)):
            _fail(text, at, "a number must be at most 1.8e308", "Use a smaller one.")
        _check_brackets(text, at, token, opened)
        if kind != "space" and not (kind == "end" and opened):
            yield _Token(kind, token, at)
        at, before = found.end(), kind
    if opened:
        _fail(text, opened[-1], "every bracket must be closed", "Add ')'.")


def _check_brackets(text: str, at: int, token: str, opened: list[int]) -> None:
    """Check what a sign means for the brackets that are open, and keep note of them.

    Args:
        text: The expression.
        at: Position of the sign.
        token: The sign, or anything else.
        opened: Positions of the open brackets.
    """
    if token == "(":
        opened.append(at)
        if len(opened) > MAX_BRACKETS:
            _fail(text, at, f"brackets must stand at most {MAX_BRACKETS} deep", _SHARE)
    elif token == ")":
        if not opened:
            _fail(text, at, "a closing bracket must have an opening one", "Leave it out.")
        opened.pop()
    elif token == "=" and opened:
        _fail(text, at, "= must stand outside brackets", "Give names before: h = w*x; tanh(h).")
    elif token == ";" and opened:
        _fail(text, opened[-1], "every bracket must be closed", "Add ')'.")


def _check_name(text: str, at: int, name: str) -> None:
    if len(name) > MAX_NAME:
        _fail(text, at, f"a name must have at most {MAX_NAME} characters", "Use a shorter one.")
    if keyword.iskeyword(name) or name.startswith("_"):
        must = "a name must begin with a letter and must not be a word of Python's grammar"
        _fail(text, at, must, f"For example {name.strip('_')[:1] or 'x'}1.", repr(name))


def _split(text: str, tokens: list[_Token]) -> Iterator[_Statement]:
    """Yield the statements; of what stands between two ends, only what is not empty."""
    row: list[_Token] = []
    for token in (*tokens, _Token("end", "", len(text))):
        if token.kind != "end":
            row.append(token)
        elif row:
            named = len(row) > 1 and row[0].kind == "name" and row[1].text == "="
            body = row[2:] if named else row
            for each in body:
                if each.text == "=":
                    fix = "For example h = tanh(w*x); h*h."
                    _fail(text, each.at, "= must follow one name at the start", fix)
            if not body:
                _fail(text, token.at, "= must be followed by a formula", _EXAMPLE)
            if body[-1].kind == "sign" and body[-1].text != ")":
                must = f"{body[-1].text} must be followed by a name, a number or a bracket"
                _fail(text, body[-1].at + len(body[-1].text), must, "Add it.", "the end")
            yield _Statement(row[0] if named else None, body[0].at, token.at)
            row = []


class _Builder:
    """Collects the steps of statements, each different one once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps: list[Step] = []
        self.found: dict[tuple[object, ...], int] = {}
        self.named: dict[str, tuple[int, _Token]] = {}
        self.unused: set[str] = set()
        self.names: dict[int, str] = {}
        self.statements: list[tuple[str | None, Term]] = []
        self.root = -1

    def add(self, statement: _Statement, *, last: bool) -> None:
        """Read a statement."""
        name = statement.name
        if name is not None:
            self._check_new(name)
        elif not last:
            fix = "Begin it with a name: h = …"
            _fail(
                self.text, statement.start, "all statements but the last must name something", fix
            )
        tree = self._parse(statement)
        position, term = self._build(tree, statement.start)
        self.statements.append((name.text if name else None, term))
        self.root = position
        if name is not None:
            self.named[name.text] = position, name
            if not last:
                self.unused.add(name.text)
            if self.steps[position].operands:
                self.names.setdefault(position, name.text)

    def build(self) -> Program:
        """Return the program of all statements."""
        for name in self.named:
            if name in self.unused:
                at = self.named[name][1].at
                _fail(self.text, at, f"{name} must be used in a later statement", "Leave it out.")
        taken = {*self.named, *(step.id for step in self.steps if step.kind == "variable")}
        if all(step.kind != "variable" for step in self.steps):
            _fail(self.text, 0, "must contain at least one name", _EXAMPLE)
        output = next(name for name in (*_OUTPUTS, "") if name not in taken)
        if self.steps[self.root].operands:
            output = self.names.setdefault(self.root, output)
        else:
            output = self.steps[self.root].id
        letter = next(
            each
            for each in (*_LETTERS, "node_")
            if not any(name.rstrip("0123456789") == each for name in taken)
        )
        count = 0
        steps = []
        for position, step in enumerate(self.steps):
            if not step.operands:
                steps.append(step)
                continue
            name = self.names.get(position, "")
            if not name:
                count += 1
                name = f"{letter}{count}"
            steps.append(
                Step(
                    id=name,
                    kind=step.kind,
                    symbol=write_value_symbol(name),
                    operands=step.operands,
                    at=step.at,
                )
            )
        return Program(
            text=self.text,
            steps=tuple(steps),
            statements=tuple(
                (write_value_symbol(name or output), term)
                for name, term in self.statements
                if name or term != write_value_symbol(output)
            ),
        )

    def _check_new(self, name: _Token) -> None:
        text, at = name.text, name.at
        if text in FUNCTIONS or text in ALIASES:
            _fail(
                self.text, at, "a name must not be that of a function", "Use another.", repr(text)
            )
        if text in self.named:
            _fail(self.text, at, "a name must be given once", "Use another.", repr(text))
        if ("variable", text) in self.found:
            fix = "Use another, or put this statement first."
            _fail(self.text, at, "a name must be given before it is used", fix, repr(text))

    def _parse(self, statement: _Statement) -> ast.expr:
        """Return the tree of a statement's expression, which Python's parser reads."""
        start, end = statement.start, statement.end
        body = self.text[start:end].translate(_SPELLINGS)
        body = re.sub(r"[\n\r\t]", " ", body)
        try:
            tree = ast.parse(body, mode="eval").body
        except SyntaxError as error:
            at = start + min((error.offset or 1) - 1, len(body.rstrip()))
            fix = "A sign, a name or a number is missing there, or one too many."
            _fail(self.text, at, "must be a formula", fix)
        except (ValueError, RecursionError, MemoryError):
            _fail(self.text, start, f"operations must be at most {MAX_DEPTH} deep", _SHARE)
        level: list[ast.AST] = [tree]
        for _ in range(MAX_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if any(isinstance(node, ast.expr) for node in level):
            _fail(self.text, start, f"operations must be at most {MAX_DEPTH} deep", _SHARE)
        return tree

    def _build(self, node: ast.expr, start: int) -> tuple[int, Term]:  # noqa: PLR0911
        """Return the position of a tree's step, and the tree as a formula."""
        at = start + self._find_column(node, start)
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._add_number(float(value), at)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self._add_number(-float(value), at)
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return self._build(inner, start)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self._add_operation("negate", at, [self._build(inner, start)])
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
                operands = [self._build(left, start), self._build(right, start)]
                at = start + self._find_column(right, start)
                return self._add_operation(_BINARY[type(sign)], at, operands)
            case ast.Name(id=name):
                return self._read_name(name, at)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                kind = self._find_function(name, at, len(arguments))
                operands = [self._build(argument, start) for argument in arguments]
                return self._add_operation(kind, at, operands)
            case ast.Call():
                _fail(self.text, at, "two factors must have a sign between them", "Write *.")
        _fail(self.text, at, f"must consist of {_WHAT}", _EXAMPLE)

    def _find_column(self, node: ast.expr, start: int) -> int:
        """Return a node's first character; the parser counts bytes."""
        before = self.text[start : start + node.col_offset].encode()[: node.col_offset]
        return len(before.decode(errors="ignore"))

    def _find_function(self, name: str, at: int, count: int) -> str:
        kind = ALIASES.get(name, name.lower())
        if kind not in FUNCTIONS:
            fix = f"{suggest(name, FUNCTIONS)} For a product write {name}*( … )."
            _fail(self.text, at, "a name before a bracket must be a function", fix, repr(name))
        wanted = OPERATIONS[kind].count
        if count != wanted:
            words = "one value" if wanted == 1 else "two values"
            inner = "For three write" if wanted == 2 else "Write"
            fix = f"{inner} {kind}({f'{kind}(a, b), c' if wanted == 2 else 'a'})."
            _fail(self.text, at, f"{kind} must be given {words}", fix, str(count))
        return kind

    def _read_name(self, name: str, at: int) -> tuple[int, Term]:
        if name in self.named:
            self.unused.discard(name)
            return self.named[name][0], write_value_symbol(name)
        if name in FUNCTIONS or name in ALIASES:
            fix = f"Write {name}( … ), or use another name for a variable."
            _fail(self.text, at, "a function must be followed by a bracket", fix)
        symbol = write_value_symbol(name)
        step = Step(id=name, kind="variable", symbol=symbol, at=at)
        return self._add(("variable", name), step), symbol

    def _add_number(self, value: float, at: int) -> tuple[int, Term]:
        symbol = Number(WideFloat.from_float(value + 0.0))  # + 0.0: no minus before zero
        count = sum(step.kind == "number" for step in self.steps)
        step = Step(id=f"number-{count + 1}", kind="number", symbol=symbol, at=at)
        return self._add(("number", value), step), symbol

    def _add_operation(
        self, kind: str, at: int, operands: Sequence[tuple[int, Term]]
    ) -> tuple[int, Term]:
        operation = OPERATIONS[kind]
        positions = tuple(position for position, _ in operands)
        key = tuple(sorted(positions)) if operation.commutes else positions
        step = Step(id="", kind=kind, symbol=Symbol(""), operands=positions, at=at)
        term = operation.write([term for _, term in operands])
        return self._add((kind, *key), step), term

    def _add(self, key: tuple[object, ...], step: Step) -> int:
        if key not in self.found:
            if len(self.steps) == MAX_NODES:
                fix = "Use a shorter one."
                must = f"the graph must have at most {MAX_NODES} nodes"
                _fail(self.text, step.at, must, fix, "more from here on")
            self.found[key] = len(self.steps)
            self.steps.append(step)
        return self.found[key]
