"""Endpoint selectors: label selectors whose keys may carry a source, over the labels of an identity.

Source: Cilium, pkg/policy/api/selector.go and pkg/k8s/apis/cilium.io/utils (getEndpointSelector, ParseToCiliumRule).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from kubectl_genainet.policy.identity import (
    CLUSTER,
    NAMESPACE_LABELS,
    POD_NAMESPACE,
    IdentityPeer,
    IdentityScheme,
    LabelTerm,
)
from kubectl_genainet.policy.matching.selectors import (
    Operator,
    RawSelector,
    check_label_key,
    check_label_value,
    operator_of,
)
from kubectl_genainet.policy.where import Where

_SOURCE = re.compile(r"[A-Za-z0-9]+")


def subject_peer(raw: RawSelector, identities: IdentityScheme, where: Where) -> IdentityPeer:
    """The pods that a policy applies to. A namespaced policy applies to its own namespace: matchLabels that name
    another are overwritten, other ways to name one have to hold as well."""
    namespace = where.obj.namespace
    if namespace:
        labels = {**raw.match_labels, f"k8s:{POD_NAMESPACE}": namespace}
        raw = RawSelector(labels, raw.match_expressions)
    return IdentityPeer(label_terms(raw, "any", where), identities, where.field, namespace)


def endpoint_peer(raw: RawSelector, identities: IdentityScheme, where: Where, *, init: bool = False) -> IdentityPeer:
    """A peer. Without a reserved key it selects in one cluster, and in the policy's own namespace unless the selector
    names one or a namespace's label; in a clusterwide policy, pods of every namespace. `init`: the policy is for pods
    that are starting.

    Terms that only say what is absent hold for identity 0 too, the wildcard of the policy maps."""
    terms = label_terms(raw, "any", where)
    if any(t.source == "reserved" for t in terms):
        return IdentityPeer(terms, identities, where.field, unknown_too=_asks_for_nothing(terms))
    namespace = where.obj.namespace
    only = ""
    if not any(t.key == POD_NAMESPACE and t.source in ("k8s", "any") for t in terms):
        if not namespace:
            terms = terms if init else (LabelTerm("k8s", POD_NAMESPACE, Operator.EXISTS), *terms)
        elif not any(t.key.startswith(NAMESPACE_LABELS) and t.source in ("k8s", "any") for t in terms):
            terms = (LabelTerm("k8s", POD_NAMESPACE, Operator.IN, (namespace,)), *terms)
            only = namespace
    terms = in_cluster(terms)
    return IdentityPeer(terms, identities, where.field, only, unknown_too=_asks_for_nothing(terms))


def _asks_for_nothing(terms: tuple[LabelTerm, ...]) -> bool:
    """Whether an identity without labels is selected."""
    return all(term.operator in (Operator.DOES_NOT_EXIST, Operator.NOT_IN) for term in terms)


def in_cluster(terms: tuple[LabelTerm, ...]) -> tuple[LabelTerm, ...]:
    """The terms of a selector that names no cluster: of this cluster, so no node and nothing outside."""
    if any(t.key == CLUSTER and t.source in ("k8s", "any") for t in terms):
        return terms
    if any(
        t.source == "k8s" and t.key == POD_NAMESPACE and t.operator in (Operator.IN, Operator.EXISTS) for t in terms
    ):
        return terms  # said already: only pods have a namespace
    return (LabelTerm("k8s", POD_NAMESPACE, Operator.EXISTS), *terms)


def label_terms(raw: RawSelector, source: str, where: Where) -> tuple[LabelTerm, ...]:
    """The requirements of a selector; `source` is that of keys without one. Raises InputError."""
    terms = list(_required_labels(raw.match_labels, source, where.at("matchLabels")))
    for i, expression in enumerate(raw.match_expressions):
        labels_field = where.at("matchExpressions").item(i)
        operator = operator_of(expression, labels_field)
        for j, value in enumerate(expression.values):
            check_label_value(value, labels_field.at("values").item(j))
        terms.append(_term(expression.key, operator, expression.values, source, labels_field.at("key")))
    return tuple(terms)


def _required_labels(labels: Mapping[str, str], source: str, where: Where) -> Iterator[LabelTerm]:
    """The terms of matchLabels. Keys that differ only in a source left out are one key to the agent, which keeps the value
    that its map yields last: any of them."""
    terms: dict[tuple[str, str], LabelTerm] = {}
    for text, value in labels.items():
        check_label_value(value, where.at(text))
        term = _term(text, Operator.IN, (value,), source, where)
        rival = terms.get((term.source, term.key))
        if rival is not None and rival.values != term.values:
            doubt = (
                f"matchLabels gives label {term.key} several values, and which of them the agent keeps is not defined"
            )
            term = msgspec.structs.replace(term, values=(*rival.values, value), doubt=doubt)
        terms[term.source, term.key] = term
    yield from terms.values()


def _term(text: str, operator: Operator, values: tuple[str, ...], default: str, where: Where) -> LabelTerm:
    source, colon, key = text.partition(":")
    if not colon:
        source, key = default, text
    elif not _SOURCE.fullmatch(source):
        raise where.error(f"{text!r} is not a label key: the source before the colon has letters and digits only")
    check_label_key(key, where)
    return LabelTerm(source, key, operator, values)
