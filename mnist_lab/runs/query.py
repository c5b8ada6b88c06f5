"""Conditions on runs, as `--where` takes them: `test/acc > 0.98 and model == lenet and tag == keep`."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_lab.config.metric_names import METRIC_NAMES
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value, shorten

TOKEN = re.compile(r""""[^"]*"|'[^']*'|==|!=|<=|>=|[<>()]|[^\s()<>=!"']+|\S""")  # \S is an error wherever it stands
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EXAMPLE = "test/acc > 0.98 and (model == lenet or tag == keep)"
NUMBER = re.compile(r"(?i)[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?%?")
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ].*)?)?)?")
MAX_DEPTH = 50  # brackets and nots within each other
Values = Mapping[str, Any]
Test = Callable[[Values], bool]


@dataclass(frozen=True)
class Comparison:
    """A comparison of the value that a run has by a name with one that was given."""

    name: str
    sign: str  # a key of COMPARISONS
    given: str

    def holds(self, values: Values) -> bool:
        """Return whether it holds for a run; a value of another type is unequal."""
        found = self.compare(values.get(self.name))
        return self.sign == "!=" if found is None else found

    def compare(self, own: Any, sign: str = "") -> bool | None:
        """Compare a run's value, or each of a list, with the given one; None if that makes no sense."""
        sign, given = sign or self.sign, self.given
        compare, is_equality = COMPARISONS[sign], sign in ("==", "!=")  # the only ones of lists, booleans and texts
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
        """Return the condition that a text says, or raise UsageError; nothing of the text is executed."""
        parser = _Parser(text)
        test = parser.any_of()
        parser.expect("", "and, or, or the end")
        return cls(text, tuple(parser.comparisons), test)

    def require_fit(self, rows: Sequence[Values]) -> None:
        """Raise UsageError for a comparison that makes sense for none of the runs' values."""
        for each in self.comparisons:
            column = [row[each.name] for row in rows if row.get(each.name) is not None] or [None]
            if all(each.compare(own) is None for own in column):
                remedy = f"a run's is {shorten(str(column[0]))}; write 0.5, 50%, true, or 2026-11-21"
                words = f"{each.name} {each.sign} {shorten(each.given)} makes no sense"
                raise UsageError(f"--where={shorten(self.text)!r}: {words}: {remedy}")


class _Parser:
    """A parser by recursive descent: `or` binds less than `and`, and this less than `not`."""

    def __init__(self, text: str) -> None:
        self.text, self.depth = text, 0
        self.comparisons: list[Comparison] = []
        self.tokens = [*((found[0], found.start()) for found in TOKEN.finditer(text)), ("", len(text))]

    @property
    def token(self) -> str:
        """The current token; the empty token is the end."""
        return self.tokens[0][0]

    def advance(self) -> str:
        """Return the current token, and go to the next one."""
        return self.tokens.pop(0)[0]

    def error(self, wanted: str) -> UsageError:
        rest = shorten(self.text[self.tokens[0][1] :])
        where = f"before {rest!r}" if rest else "at the end"
        return UsageError(f"--where={shorten(self.text)!r}: {wanted} is missing {where}; an example: {EXAMPLE}")

    def expect(self, token: str, wanted: str) -> None:
        if self.token != token:
            raise self.error(wanted)
        self.advance()

    def any_of(self) -> Test:
        return self.joined("or", self.all_of, any)

    def all_of(self) -> Test:
        return self.joined("and", self.negation, all)

    def joined(self, word: str, part: Callable[[], Test], combine: Callable[[Iterable[bool]], bool]) -> Test:
        """Parse parts with a word between them, and return the test that combines theirs."""
        tests = [part()]
        while self.token == word:
            self.advance()
            tests.append(part())
        return lambda values: combine(test(values) for test in tests)

    def negation(self) -> Test:
        if self.token not in ("not", "("):
            return self.comparison()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UsageError(f"--where={shorten(self.text)!r}: nested more than {MAX_DEPTH} times; simplify it")
        negated = self.advance() == "not"
        test = self.negation() if negated else self.any_of()
        if not negated:
            self.expect(")", ")")
        self.depth -= 1
        return (lambda values: not test(values)) if negated else test

    def comparison(self) -> Test:
        name = self.word("a name")
        if self.token not in COMPARISONS:
            raise self.error(f"one of {' '.join(COMPARISONS)}")
        comparison = Comparison(name, self.advance(), self.word("a value"))
        self.comparisons.append(comparison)
        return comparison.holds

    def word(self, wanted: str) -> str:
        if self.token in ("", *COMPARISONS, "(", ")", "and", "or", "not", *"=!'\""):
            raise self.error(wanted)
        return self.advance().strip("\"'")
