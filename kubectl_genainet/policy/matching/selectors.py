"""Label selectors: decoded, validated, matched, and turned into bit sets.

Source: Kubernetes API reference, meta/v1 LabelSelector. An empty selector selects everything; NotIn and DoesNotExist
also select objects that lack the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

import msgspec

from kubectl_genainet.policy.where import Where

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


class Operator(Enum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class RawExpression(msgspec.Struct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class RawSelector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[RawExpression, ...] = ()


class Requirement(msgspec.Struct, frozen=True):
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case Operator.IN:
                return f"{self.key} in ({', '.join(self.values)})"
            case Operator.NOT_IN:
                return f"{self.key} not in ({', '.join(self.values)})"
            case Operator.EXISTS:
                return f"{self.key} present"
            case Operator.DOES_NOT_EXIST:
                return f"{self.key} absent"


class Selector(msgspec.Struct, frozen=True):
    """All requirements must hold; without any, everything is selected."""

    requirements: tuple[Requirement, ...] = ()

    def failed(self, labels: Mapping[str, str]) -> Requirement | None:
        """The first requirement that `labels` do not meet."""
        return next((r for r in self.requirements if not r.matches(labels)), None)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return self.failed(labels) is None

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements)) or "any"


EVERYTHING = Selector()


def label_text(labels: Mapping[str, str], key: str = "") -> str:
    """The actual value beside a wanted one: "app=rag", "no label app"; all labels without `key`."""
    if key:
        return f"{key}={labels[key]}" if key in labels else f"no label {key}"
    return ", ".join(f"{k}={v}" for k, v in sorted(labels.items())) or "no labels"


def selector_of(raw: RawSelector, where: Where) -> Selector:
    """Validates a selector as the API server does. Raises InputError with file, object and field."""
    requirements = []
    for key, value in raw.match_labels.items():
        labels_field = where.at("matchLabels")
        check_label_key(key, labels_field)
        check_label_value(value, labels_field.at(key))
        requirements.append(Requirement(key, Operator.IN, (value,)))
    for i, expression in enumerate(raw.match_expressions):
        requirements.append(_requirement(expression, where.at("matchExpressions").item(i)))
    return Selector(tuple(requirements))


def operator_of(raw: RawExpression, where: Where) -> Operator:
    """The expression's operator. Raises InputError where there is no such operator, or it goes with no such values."""
    try:
        operator = Operator(raw.operator)
    except ValueError:
        names = ", ".join(o.value for o in Operator)
        raise where.at("operator").error(f"unknown operator {raw.operator!r}", f"The operators are {names}.") from None
    takes_values = operator in (Operator.IN, Operator.NOT_IN)
    if takes_values and not raw.values:
        raise where.at("values").error(f"operator {operator.value} needs at least one value")
    if not takes_values and raw.values:
        raise where.at("values").error(f"operator {operator.value} takes no values")
    return operator


def _requirement(raw: RawExpression, where: Where) -> Requirement:
    operator = operator_of(raw, where)
    check_label_key(raw.key, where.at("key"))
    for i, value in enumerate(raw.values):
        check_label_value(value, where.at("values").item(i))
    return Requirement(raw.key, operator, raw.values)


def check_label_key(key: str, where: Where) -> None:
    prefix, slash, name = key.rpartition("/")
    if not _LABEL_NAME.fullmatch(name) or (slash and (len(prefix) > 253 or not _LABEL_PREFIX.fullmatch(prefix))):
        raise where.error(f"{key[:400]!r} is not a label key")


def check_label_value(value: str, where: Where) -> None:
    if value and not _LABEL_NAME.fullmatch(value):
        raise where.error(f"{value[:400]!r} is not a label value")


class LabelIndex:
    """Bit sets of items by their labels: bit i stands for the i-th item added."""

    def __init__(self) -> None:
        self.all = 0
        self._by_pair: dict[tuple[str, str], int] = {}
        self._by_key: dict[str, int] = {}

    def add(self, bit: int, labels: Mapping[str, str]) -> None:
        self.all |= bit
        for pair in labels.items():
            self._by_pair[pair] = self._by_pair.get(pair, 0) | bit
            self._by_key[pair[0]] = self._by_key.get(pair[0], 0) | bit

    def select(self, selector: Selector) -> int:
        """The items that a selector selects."""
        selected = self.all
        for requirement in selector.requirements:
            selected &= self._meeting(requirement)
            if not selected:
                break
        return selected

    def _meeting(self, requirement: Requirement) -> int:
        if requirement.operator is Operator.EXISTS:
            return self._by_key.get(requirement.key, 0)
        if requirement.operator is Operator.DOES_NOT_EXIST:
            return self.all & ~self._by_key.get(requirement.key, 0)
        meeting = 0
        for value in requirement.values:
            meeting |= self._by_pair.get((requirement.key, value), 0)
        return meeting if requirement.operator is Operator.IN else self.all & ~meeting
