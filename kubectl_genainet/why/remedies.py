"""The smallest change of policies that would admit a flow that was dropped: tried by the policy engine, remembered."""

from __future__ import annotations

import msgspec

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.finding import Remedy
from kubectl_genainet.policy import PolicyEndpoint, PolicyEngine, PolicyFlow, patch
from kubectl_genainet.shell import command, sh

MAX_TRIED = 20  # flows for which a change is sought: each is evaluated for all pods


class Remedies:
    """Answers for flows; flows between the same workloads' pods to the same port get the same answer."""

    def __init__(self, engine: PolicyEngine, identity: Identity) -> None:
        self._engine, self._identity = engine, identity
        self._known: dict[tuple[object, ...], Remedy | None] = {}

    def of(self, flow: PolicyFlow) -> Remedy | None:
        """The change, or None where there is none or too many were sought already."""
        key = (self._kind(flow.source), self._kind(flow.destination), flow.protocol, flow.port)
        if key not in self._known and len(self._known) < MAX_TRIED:
            self._known[key] = self._sought(flow)
        known = self._known.get(key)
        return None if known is None else msgspec.structs.replace(known, command=explain_command(flow))

    def _kind(self, end: PolicyEndpoint) -> object:
        pod = self._identity.snapshot.pod(end.namespace, end.name) if end.name else None
        return (end.namespace, tuple(sorted(pod.metadata.labels.items()))) if pod else end.ip

    def _sought(self, flow: PolicyFlow) -> Remedy | None:
        fix = patch(self._engine, flow)
        if fix is None:
            return None
        option = fix.smallest
        changes = "; ".join(f"{c.ref}: {c.what}" for c in option.changes)
        others = f"; it also admits {len(option.also_admits)} other pairs of pods" if option.also_admits else ""
        return Remedy(
            text=f"{changes}{others}",
            yaml="---\n".join(msgspec.yaml.encode(c.object).decode() for c in option.changes),
        )


def explain_command(flow: PolicyFlow) -> str:
    ends = (_spelled(flow.source), f"{_spelled(flow.destination)}:{flow.port}")
    protocol = "" if flow.protocol == "TCP" else f" --protocol {sh(flow.protocol)}"
    return f"kubectl genainet explain {command(*ends)}{protocol} --patch"


def _spelled(end: PolicyEndpoint) -> str:
    return f"pod/{end.namespace}/{end.name}" if end.name else end.ip
