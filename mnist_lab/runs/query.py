"""Conditions on runs, as `--where` takes them: `test/acc > 0.98 and model == lenet and tag == keep`."""

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
MAX_DEPTH = 50  # nested conditions
Values = Mapping[str, Any]
Test = Callable[[Values], bool]


@dataclass(frozen=True)
class Comparison:
    """A comparison of the value that a run has by a name with one that was given."""

    name: str
    sign: str  # one of COMPARISONS
    given: str

    def holds(self, values: Values) -> bool:
        """Return whether it holds for a run; a value of another type is unequal."""
        found = self.compare(values.get(self.name))
        return self.sign == "!=" if found is None else found

    def compare(self, own: Any, sign: str = "") -> bool | None:
        """Compare a run's value, or each of a list, with the given one; None if that makes no sense."""
        sign, given = sign or self.sign, self.given
        compare, is_equality = COMPARISONS[sign], sign in ("==", "!=")  # Lists and texts have no others.
        if isinstance(own, Sequence) and not isinstance(own, str):
            members = [self.compare(each, "==") for each in own]
            fits = is_equality and not (members and all(each is None for each in members))
            return any(members) is (sign == "==") if fits else None
        if given in ("null", "None"):
            return is_equality and compare(own is None, True)
        if isinstance(own, bool):
            return compare(str(own), given.capitalize()) if is_equality and given.lower() in ("true", "false") else None
        if isinstance(own, int | float) or (own is None and self.name in METRIC_NAMES):
            if not NUMBER.fullmatch(given):
                return None
            number = float(given.rstrip("%")) / (100 if given[-1] == "%" else 1)
            return sign == "!=" if own is None else compare(own, number)
        if own is None:
            return sign == "!="
        if self.name == "date":
            return compare(own, given.replace(" ", "T")) if DATE.fullmatch(given) else None
        return compare(format_value(own), given) if is_equality else None


@dataclass(frozen=True)
class Condition:
    """A condition on the values of a run: the comparisons that it is made of, and the test whether it holds."""

    text: str
    comparisons: tuple[Comparison, ...]
    holds: Test

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition that a text says, or raise UsageError.

        Python's parser reads it with a name in place of each word, so that nothing of the text is executed.
        """
        words: dict[str, str] = {}
        code: list[str] = []
        for token in TOKEN.findall(text):
            if token in (*COMPARISONS, "(", ")", "and", "or", "not", *"=!'\""):
                code.append(token)
            else:
                code.append(f"_{len(words)}")
                words[code[-1]] = token.strip("\"'")
        comparisons: list[Comparison] = []

        def test(node: ast.expr, depth: int) -> Test:
            match node:
                case ast.BoolOp(ast.And() | ast.Or() as word, parts) if depth:
                    tests = [test(part, depth - 1) for part in parts]
                    combine = all if isinstance(word, ast.And) else any
                    return lambda values: combine(each(values) for each in tests)
                case ast.UnaryOp(ast.Not(), part) if depth:
                    negated = test(part, depth - 1)
                    return lambda values: not negated(values)
                case ast.Compare(ast.Name(name), [sign], [ast.Name(given)]):
                    comparisons.append(Comparison(words[name], SIGNS[type(sign)], words[given]))
                    return comparisons[-1].holds
            raise SyntaxError

        try:
            holds = test(ast.parse(" ".join(code), mode="eval").body, MAX_DEPTH)
        except (SyntaxError, MemoryError, RecursionError):  # The last two are of very deep nesting.
            problem = "not a condition of NAME SIGN VALUE, joined by and, or, not and brackets"
            raise UsageError(f"--where={shorten(text)!r}: {problem}; an example: {EXAMPLE}") from None
        return cls(text, tuple(comparisons), holds)

    def require_fit(self, rows: Sequence[Values]) -> None:
        """Raise UsageError for a comparison that makes sense for none of the runs' values."""
        for each in self.comparisons:
            column = [row[each.name] for row in rows if row.get(each.name) is not None] or [None]
            if all(each.compare(own) is None for own in column):
                remedy = f"a run's is {shorten(str(column[0]))}; write 0.5, 50%, true, or 2026-11-21"
                words = f"{each.name} {each.sign} {shorten(each.given)} makes no sense"
                raise UsageError(f"--where={shorten(self.text)!r}: {words}: {remedy}")
