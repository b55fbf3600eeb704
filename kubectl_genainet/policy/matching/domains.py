"""Patterns for domain names, matched in a time that no pattern makes long.

`*` stands for any characters of one label, a leading `**.` for one label or more, `*` alone for every name. Cilium's
matchPattern is such a pattern (pkg/fqdn/matchpattern); the `*.` of network-policy-api's domainNames is `**.` here.
"""

from __future__ import annotations

import string

MAX_DOMAIN = 255  # characters of a name or a pattern; RFC 1035 2.3.4
_LABEL = frozenset(string.ascii_lowercase + string.digits + "-_")


def domain_matches(pattern: str, domain: str) -> bool:
    """Whether a name, without its last dot, is one that the pattern stands for."""
    if pattern == "*":
        return True
    labels = domain.lower().split(".")
    if pattern.startswith("**."):
        wanted = pattern[3:].split(".")
        before = labels[: len(labels) - len(wanted)]
        if not before or not all(label and set(label) <= _LABEL for label in before):
            return False
        labels = labels[len(before) :]
    else:
        wanted = pattern.split(".")
    return len(wanted) == len(labels) and all(map(_label_matches, wanted, labels))


def _label_matches(pattern: str, label: str) -> bool:
    """By the places in the label that a beginning of the pattern can reach."""
    reached = {0}
    for character in pattern:
        if character == "*":
            for i in range(min(reached), len(label)):
                if i in reached and label[i] in _LABEL:
                    reached.add(i + 1)
        else:
            reached = {i + 1 for i in reached if i < len(label) and label[i] == character}
        if not reached:
            return False
    return len(label) in reached
