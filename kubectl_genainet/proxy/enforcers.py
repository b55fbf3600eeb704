"""Which NetworkPolicy is behind a rule of a policy enforcer: kube-router, Calico, kube-network-policies, and those that register.

Enforcers name policies in different ways: kube-router in comments (pkg/controllers/netpol), Calico in chain names,
hashed where they are long (felix rules/naming.go), kube-network-policies not at all (its verdicts are taken in user
space). A rule that drops is behind no single policy: every policy that isolates the pod is, by admitting nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from kubectl_genainet.proxy.evaluator.ir import Chain
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import calico_policy_chain
from kubectl_genainet.proxy.ruleset import Ruleset


class PolicyBehind(msgspec.Struct, frozen=True):
    """What is behind an enforcer's rule. `policies` are "namespace/name"; `unnamed` are chains of policies whose
    names can't be told (a hash of none of the known policies)."""

    enforcer: str  # "kube-router", "calico", "kube-network-policies", or the name of a registered one
    policies: tuple[str, ...] = ()
    direction: str = ""  # "ingress", "egress"; empty where the rule serves both
    pod: str = ""  # "namespace/name", where the rule is for one pod
    unnamed: tuple[str, ...] = ()
    note: str = ""


Recognise = Callable[[RuleRef], PolicyBehind | None]
_REGISTERED: list[Recognise] = []
_ROUTER_POLICY = re.compile(r"policy name:? ?([^\s;]+) namespace:? ?([^\s;]+)")
_ROUTER_NFT = re.compile(r"^([^\s/]+)/([^\s/]+) (ingress|egress)\b")  # kube-router's nft mode: "ns/policy ingress any"
_ROUTER_SIDE = re.compile(r"(-[sd]|[sd]addr) ([0-9a-fA-F.:]+)")
_ROUTER_RUN = re.compile(r"run through nw policy (\S+)")
_ROUTER_POD = re.compile(r"POD name: ?(\S+) namespace: ?(\S+)")
_TARGET = re.compile(r" -[jg] (\S+)")


def register_enforcer(recognise: Recognise) -> Recognise:
    """Adds an enforcer whose rules name their policies themselves; its function gives None for a rule that is not its own."""
    if recognise not in _REGISTERED:
        _REGISTERED.append(recognise)
    return recognise


def policy_behind(
    rule: RuleRef,
    ruleset: Ruleset | None = None,
    policies: Iterable[tuple[str, str]] = (),
    packet: tuple[str, str] | None = None,
) -> PolicyBehind | None:
    """The policies behind a rule; None where no known enforcer wrote it.

    `ruleset` lets the other rules of the chain be read, which a drop rule needs (Calico, kube-router). `policies` are
    the (namespace, name) of the cluster's NetworkPolicies: Calico's hashed chain names are looked up among them. With a
    `packet` (source and destination address), only policies of its direction are named where the chain tells them apart.
    """
    if rule.chain.startswith(("KUBE-POD-FW-", "KUBE-NWPLCY-")):
        return _kube_router(rule, _chain(ruleset, rule), packet)
    if rule.chain.startswith(("cali-", "filter-cali-")):
        return _calico(rule, _chain(ruleset, rule), policies)
    if rule.table.endswith("kube-network-policies"):
        return PolicyBehind(
            "kube-network-policies",
            note="The verdict is taken in user space by the agent that reads the queue; no rule names the policy.",
        )
    return next((behind for recognise in _REGISTERED if (behind := recognise(rule)) is not None), None)


def enforcers_in(ruleset: Ruleset, title: str) -> frozenset[str]:
    """The enforcers that have chains in the tables of that title."""
    known = ruleset.known_enforcers.get(title)
    if known is None:
        chains = (c for table in ruleset.tables if table.title == title for c in table.chains.values() if c.rules)
        behind = (policy_behind(chain.rules[0].ref, ruleset) for chain in chains)
        known = ruleset.known_enforcers[title] = frozenset(found.enforcer for found in behind if found is not None)
    return known


def _chain(ruleset: Ruleset | None, rule: RuleRef) -> Chain | None:
    if ruleset is None:
        return None
    return ruleset.chain(rule.table, rule.chain, 4) or ruleset.chain(rule.table, rule.chain, 6)


def _kube_router(rule: RuleRef, chain: Chain | None, packet: tuple[str, str] | None) -> PolicyBehind:
    if match := _ROUTER_POLICY.search(rule.comment):
        return PolicyBehind("kube-router", (f"{match.group(2)}/{match.group(1)}",))
    if match := _ROUTER_NFT.match(rule.comment):
        return PolicyBehind("kube-router", (f"{match.group(1)}/{match.group(2)}",), match.group(3))
    comments = [r.ref.comment for r in chain.rules] if chain is not None else [rule.comment]
    pod = next((m for c in (rule.comment, *comments) if (m := _ROUTER_POD.search(c))), None)
    if rule.chain.startswith("KUBE-NWPLCY-"):
        named = next((m for c in comments if (m := _ROUTER_POLICY.search(c))), None)
        names: Sequence[str] = [f"{named.group(2)}/{named.group(1)}"] if named else []
    else:
        namespace = pod.group(2) if pod else "?"
        names = [f"{namespace}/{name}" for name in _router_policies(rule, chain, packet)]
    return PolicyBehind("kube-router", tuple(dict.fromkeys(names)), pod=f"{pod.group(2)}/{pod.group(1)}" if pod else "")


def _router_policies(rule: RuleRef, chain: Chain | None, packet: tuple[str, str] | None) -> list[str]:
    """The policies that a pod's chain runs through: `-d POD` those of ingress, `-s POD` those of egress.

    Of a packet (source, destination) only those of its own direction.
    """
    refs = [r.ref for r in chain.rules] if chain is not None else [rule]
    policies = []
    for ref in refs:
        match = _ROUTER_RUN.search(ref.comment)
        side = _ROUTER_SIDE.search(ref.bare_text)
        if match is None:
            continue
        if packet is not None and side is not None:
            address = packet[0] if side.group(1) in ("-s", "saddr") else packet[1]
            if side.group(2) != address:
                continue
        policies.append(match.group(1))
    return policies


def _calico(rule: RuleRef, chain: Chain | None, policies: Iterable[tuple[str, str]]) -> PolicyBehind:
    name = rule.chain.removeprefix("filter-")
    direction = "ingress" if name.startswith(("cali-pi-", "cali-tw-")) else "egress"
    if name.startswith(("cali-pi-", "cali-po-")):
        chains = [name]
    elif name.startswith(("cali-tw-", "cali-fw-")) and chain is not None:
        chains = _chains_before(chain, rule.index)
    else:
        return PolicyBehind("calico")
    known = {calico_policy_chain(ns, policy, direction): f"{ns}/{policy}" for ns, policy in policies}
    names = [known.get(c) or _unhashed(c) for c in chains]
    return PolicyBehind(
        "calico",
        tuple(p for p in names if p),
        direction,
        unnamed=tuple(c for c, p in zip(chains, names, strict=True) if not p),
    )


def _chains_before(chain: Chain, index: int) -> list[str]:
    """The policy chains that a workload's chain jumps to before rule `index`, from "Start of policies" on."""
    chains: list[str] = []
    for rule in chain.rules[: index or None]:
        ref = rule.ref
        if "Start of policies" in ref.comment or "Start of tier" in ref.comment:
            chains = []
        target = _TARGET.search(ref.bare_text)
        if target and target.group(1).startswith(("cali-pi-", "cali-po-")):
            chains.append(target.group(1))
    return chains


def _unhashed(chain: str) -> str | None:
    """ "alpha/web" of "cali-pi-alpha/knp.default.web"; None for a hashed name."""
    namespace, slash, name = chain[len("cali-pi-") :].partition("/")
    if chain[len("cali-pi-")] == "_" or not slash:
        return None
    return f"{namespace}/{name.removeprefix('knp.default.')}"
