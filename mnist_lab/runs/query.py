"""Conditions on runs, as `--where` takes them: `test/acc > 0.98 and model == lenet and tag == keep`."""

import contextlib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
MAX_LENGTH, MAX_DEPTH = 10_000, 50  # characters; brackets and nots within each other
Values = Mapping[str, Any]
Test = Callable[[Values], bool]


@dataclass(frozen=True)
class Condition:
    """A condition on the values of a run: the names that it compares, and the test whether it holds."""

    names: frozenset[str]
    holds: Test

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition that a text says, or raise UsageError; nothing of the text is executed."""
        parser = _Parser(text)
        test = parser.any_of()
        parser.expect("", "and, or, or the end")
        return cls(frozenset(parser.names), test)


class _Parser:
    """A parser by recursive descent: `or` binds less than `and`, and this less than `not`."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise UsageError(f"--where={shorten(text)!r}: has more than {MAX_LENGTH:,} characters; shorten it")
        self.text, self.depth = text, 0
        self.names: list[str] = []
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
        compare = COMPARISONS[self.advance()]
        value = self.word("a value")
        self.names.append(name)
        return lambda values: _compare(values.get(name), compare, value)

    def word(self, wanted: str) -> str:
        if self.token in ("", *COMPARISONS, "(", ")", "and", "or", "not", *"=!'\""):
            raise self.error(wanted)
        return self.advance().strip("\"'")


def _compare(own: Any, compare: Callable[[Any, Any], bool], given: str) -> bool:
    """Compare a run's value with one that was given: as numbers if both are, else as texts.

    A list, such as the tags, is equal to each of its members; a missing value is unequal to all.
    """
    if isinstance(own, list):
        members = [_compare(each, operator.eq, given) for each in own]
        return any(members) if compare is operator.eq else compare is operator.ne and not any(members)
    if own is None or given == "null":
        is_equal = own is None and given == "null"
        return {operator.eq: is_equal, operator.ne: not is_equal}.get(compare, False)
    if isinstance(own, int | float) and not isinstance(own, bool):
        with contextlib.suppress(ValueError):
            number = float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
            return compare(own, number)
    return compare(format_value(own), given)
