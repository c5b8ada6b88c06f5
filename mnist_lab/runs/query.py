"""Conditions on runs, as `--where` takes them: `test/acc > 0.98 and model == lenet and tag == keep`."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnist_lab.config.metric_names import IMAGES_PER_SECOND, METRIC_NAMES
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
NULL = ("null", "None")
NUMBERS = (*METRIC_NAMES, IMAGES_PER_SECOND, "time", "epochs", "tested_epoch", "parameters", "seed")
KINDS = {  # of columns: what a value must be, and the comparisons that make sense
    "a number, such as 0.5 or 50%": (r"(?i)[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?%?", tuple(COMPARISONS)),
    "true or false": ("(?i)true|false", ("==", "!=")),
    "a date, such as 2026-11-21": (r"\d{4}(-\d\d(-\d\d([T ].*)?)?)?", tuple(COMPARISONS)),
    "a text": (".*", ("==", "!=")),
}
NUMBER, BOOLEAN, DATE, TEXT = KINDS
MAX_LENGTH, MAX_DEPTH = 10_000, 50  # characters; brackets and nots within each other
Values = Mapping[str, Any]
Test = Callable[[Values], bool]


@dataclass(frozen=True)
class Comparison:
    """A comparison of a run's value with one that was given."""

    name: str
    sign: str  # a key of COMPARISONS
    given: str

    def holds(self, values: Values) -> bool:
        """Return whether it holds for a run. A list is equal to each of its members, a missing value to none."""
        return self._holds(values.get(self.name))

    def _holds(self, own: Any) -> bool:
        if _is_list(own):
            return self.sign in ("==", "!=") and any(map(self._equals, own)) == (self.sign == "==")
        if own is None or self.given in NULL or not self.fits(own):
            return self.sign in ("==", "!=") and self._equals(own) == (self.sign == "==")
        return COMPARISONS[self.sign](*self._pair(own))

    def _equals(self, own: Any) -> bool:
        if own is None or self.given in NULL:
            return own is None and self.given in NULL
        return self.fits(own) and operator.eq(*self._pair(own))

    def _pair(self, own: Any) -> tuple[Any, Any]:
        kind = self.kind(own)
        if kind == NUMBER:
            return own, float(self.given.removesuffix("%")) / (100 if self.given.endswith("%") else 1)
        if kind == BOOLEAN:
            return own, self.given.lower() == "true"
        return format_value(own), self.given.replace(" ", "T") if kind == DATE else self.given

    def kind(self, own: Any) -> str:
        """Return which of KINDS a run's value is of; of a missing one, or a list without members, the column's."""
        if isinstance(own, bool):
            return BOOLEAN
        if isinstance(own, int | float) or (own is None and self.name in NUMBERS):
            return NUMBER
        return DATE if self.name == "date" else TEXT

    def fits(self, own: Any) -> bool:
        """Return whether the comparison makes sense for a run's value, or for a member of it."""
        if _is_list(own):
            return self.sign in ("==", "!=") and (not own or any(map(self.fits, own)))
        form, signs = KINDS[self.kind(own)]
        if self.sign in ("==", "!=") and self.given in NULL:
            return True
        return self.sign in signs and re.fullmatch(form, self.given, re.DOTALL) is not None


def _is_list(own: Any) -> bool:
    return isinstance(own, Sequence) and not isinstance(own, str)


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

    @property
    def names(self) -> set[str]:
        """The names that it compares."""
        return {each.name for each in self.comparisons}

    def require_fit(self, rows: Sequence[Values]) -> None:
        """Raise UsageError for a comparison that makes sense for none of the runs' values."""
        for each in self.comparisons:
            column = [row[each.name] for row in rows if row.get(each.name) is not None] or [None]
            if rows and not any(map(each.fits, column)):
                own = next(iter(column[0]), None) if _is_list(column[0]) else column[0]
                kind = each.kind(own)
                how = "" if each.sign in KINDS[kind][1] else f", to be compared by {' or '.join(KINDS[kind][1])}"
                found = f"{each.name} is {kind}{how}, and {each.sign} {shorten(each.given)} does not fit"
                raise UsageError(f"--where={shorten(self.text)!r}: {found}")


class _Parser:
    """A parser by recursive descent: `or` binds less than `and`, and this less than `not`."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise UsageError(f"--where={shorten(text)!r}: has more than {MAX_LENGTH:,} characters; shorten it")
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
