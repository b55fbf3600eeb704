"""What the lab adds to the product when it is loaded: its policy enforcer, whose rules name their policies in comments.

datapath/enforcer.py writes these comments.
"""

from __future__ import annotations

import re

from kubectl_genainet.proxy.enforcers import PolicyBehind, register_enforcer
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef

_DROP = re.compile(r"^genainet lab: pod (\S+) is isolated \((ingress|egress)\) by (.+): no rule admits")
_POLICY = re.compile(r"^genainet lab: policy (\S+) (ingress|egress) rule \d+")
_POD = re.compile(r"^genainet lab: pod (\S+) (ingress|egress)")


@register_enforcer
def lab_policy(rule: RuleRef) -> PolicyBehind | None:
    """The policies behind a rule of the lab's enforcer."""
    if match := _DROP.match(rule.comment):
        names = tuple(name.strip() for name in match.group(3).split(","))
        return PolicyBehind("lab", names, match.group(2), match.group(1))
    if match := _POLICY.match(rule.comment):
        return PolicyBehind("lab", (match.group(1),), match.group(2))
    if match := _POD.match(rule.comment):
        return PolicyBehind("lab", (), match.group(2), match.group(1))
    return None
