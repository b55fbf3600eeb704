"""kube-proxy's rules on a node, in every mode: parsed, evaluated, attributed, compared with the API. No I/O.

>>> ruleset = parse_ruleset(dumps, node_ips=("192.168.0.2",))
>>> evaluate(ruleset, Packet(src="10.0.0.2", dst="10.96.0.1", dport=443, protocol=Protocol.TCP)).verdict
"""

from kubectl_genainet.proxy.attribute import attribute_nat
from kubectl_genainet.proxy.drift import compare, configured_mode
from kubectl_genainet.proxy.dumps.forms import detect_source, dump_of, dumps_of
from kubectl_genainet.proxy.enforcers import PolicyBehind, policy_behind
from kubectl_genainet.proxy.evaluator.evaluate import evaluate, evaluate_hook
from kubectl_genainet.proxy.evaluator.model import (
    BackendChoice,
    Evaluation,
    NatAttribution,
    Packet,
    RulesetVerdict,
    WalkOutcome,
)
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset
from kubectl_genainet.proxy.services import RuleAddress, RuleBackend, ServiceRules, proxy_modes, service_rules

__all__ = [
    "BackendChoice",
    "Evaluation",
    "Hook",
    "NatAttribution",
    "Packet",
    "PolicyBehind",
    "RuleAddress",
    "RuleBackend",
    "RuleRef",
    "Ruleset",
    "RulesetVerdict",
    "ServiceRules",
    "WalkOutcome",
    "attribute_nat",
    "compare",
    "configured_mode",
    "detect_source",
    "dump_of",
    "dumps_of",
    "evaluate",
    "evaluate_hook",
    "parse_ruleset",
    "policy_behind",
    "proxy_modes",
    "service_rules",
]
