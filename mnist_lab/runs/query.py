"""Parse and test the conditions of `--where`: `test/acc > 0.98 and model == lenet and tag == keep`."""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_lab.config.metric_names import METRIC_NAMES
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value, shorten

TOKEN = re.compile(r""""[^"]*"|'[^']*'|==|!=|<=|>=|[<>()]|[^\s()<>=!"']+|\S""")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SIGNS = dict(zip((ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE), COMPARISONS, strict=True))
EXAMPLE = "test/acc > 0.98 and (model == lenet or tag == keep)"
NUMBER = re.compile(r"(?i)[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?%?")
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ].*)?)?)?")
Values = Mapping[str, Any]
Predicate = Callable[[Values], bool]


@dataclass(frozen=True)
class Comparison:
    """A comparison of a run's value with the operand of a condition."""

    name: str
    sign: str  # one of COMPARISONS
    operand: str

    def holds(self, values: Values) -> bool:
        """Return whether the comparison holds for a run; a value of another type is unequal."""
        result = self.compare(values.get(self.name))
        return self.sign == "!=" if result is None else result

    def compare(self, value: Any, sign: str = "") -> bool | None:
        """Compare a run's value, or each value of a list, with the operand; None if that makes no sense."""
        sign, operand = sign or self.sign, self.operand
        compare, is_equality = COMPARISONS[sign], sign in ("==", "!=")  # Lists and texts are only equal or unequal.
        if isinstance(value, Sequence) and not isinstance(value, str):
            members = [self.compare(member, "==") for member in value]
            makes_sense = is_equality and (not members or any(member is not None for member in members))
            return any(members) is (sign == "==") if makes_sense else None
        if operand in ("null", "None"):
            return is_equality and compare(value is None, True)
        if isinstance(value, bool):
            makes_sense = is_equality and operand.lower() in ("true", "false")
            return compare(str(value), operand.capitalize()) if makes_sense else None
        if isinstance(value, int | float) or (value is None and self.name in METRIC_NAMES):
            if not NUMBER.fullmatch(operand):
                return None
            number = float(operand.rstrip("%")) / (100 if operand[-1] == "%" else 1)
            return sign == "!=" if value is None else compare(value, number)
        if value is None:
            return sign == "!="
        if self.name == "date":
            # A day or a year as the operand means all of it, as the date of a run begins with it.
            date = operand.replace(" ", "T")
            return compare(value[: len(date)], date) if DATE.fullmatch(operand) else None
        return compare(format_value(value), operand) if is_equality else None


@dataclass(frozen=True)
class Condition:
    """A condition on the values of a run, with the comparisons in it."""

    text: str
    comparisons: tuple[Comparison, ...]
    holds: Predicate

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parse a condition, or raise UsageError."""
        # Python's parser reads the text with a name in place of each word, so nothing of the text is executed.
        words: dict[str, str] = {}
        code: list[str] = []
        for token in TOKEN.findall(text):
            if token in (*COMPARISONS, "(", ")", "and", "or", "not", *"=!'\""):
                code.append(token)
            else:
                code.append(f"_{len(words)}")
                words[code[-1]] = token.strip("\"'")
        comparisons: list[Comparison] = []

        def build(node: ast.expr) -> Predicate:
            match node:
                case ast.BoolOp(ast.And() | ast.Or() as word, parts):
                    predicates = [build(part) for part in parts]
                    combine = all if isinstance(word, ast.And) else any
                    return lambda values: combine(holds(values) for holds in predicates)
                case ast.UnaryOp(ast.Not(), part):
                    negated = build(part)
                    return lambda values: not negated(values)
                case ast.Compare(ast.Name(name), [sign], [ast.Name(operand)]):
                    comparisons.append(Comparison(words[name], SIGNS[type(sign)], words[operand]))
                    return comparisons[-1].holds
            raise SyntaxError

        try:
            holds = build(ast.parse(" ".join(code), mode="eval").body)
        except (SyntaxError, MemoryError, RecursionError):  # Very deep nesting raises the last two.
            problem = "not a condition of NAME SIGN VALUE, joined by and, or, not and brackets"
            raise UsageError(f"--where={shorten(text)!r}: {problem}; an example: {EXAMPLE}") from None
        return cls(text, tuple(comparisons), holds)

    def require_fit(self, rows: Sequence[Values]) -> None:
        """Raise UsageError for a comparison that does not make sense for the value of any run."""
        for comparison in self.comparisons:
            name = comparison.name
            column = [row[name] for row in rows if row.get(name) is not None] or [None]
            if all(comparison.compare(value) is None for value in column):
                problem = f"{name} {comparison.sign} {shorten(comparison.operand)} makes no sense"
                remedy = f"a run's is {shorten(str(column[0]))}; write 0.5, 50%, true, or 2026-11-21"
                raise UsageError(f"--where={shorten(self.text)!r}: {problem}: {remedy}")
