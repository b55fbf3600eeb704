"""`explain`: whether policies admit a flow, why, and what would admit it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.context.unread import unread_kinds
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.target import Target, TargetKind, parse_target
from kubectl_genainet.policy import (
    Explanation,
    Patch,
    Patcher,
    PatchOption,
    PolicyEngine,
    PolicyFlow,
    PolicyVerdict,
    patch_all,
)
from kubectl_genainet.policy.enforcers import Deviation, named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.flows.dns_way import DnsWay, DnsWays
from kubectl_genainet.policy.flows.targets import SentFlow, flows_between
from kubectl_genainet.policy.left_out.served import RefusedBy
from kubectl_genainet.policy.model import NOT_IN_FORCE, Direction
from kubectl_genainet.policy.patches.corrected import Corrections
from kubectl_genainet.policy.patches.unmade import why_no_patch
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source

_MOST_NAMED = 20
_DNS_PORT = 53
_MOST_ARRIVING = 32  # nodes that a patch names by their addresses
# Its last part has a letter, so it is no address.
_DOMAIN = re.compile(r"([A-Za-z0-9_-]+\.)+(?=[0-9-]*[A-Za-z])[A-Za-z0-9-]+\.?(:\w+)?")


@dataclass(frozen=True, slots=True)
class JudgedFlow:
    """What the policies say of a flow. `service` is the Service that it was asked through, "" for none."""

    explanation: Explanation
    service: str = ""
    dns: DnsWay | None = None  # the client's way to its resolver, where the destination was given by name
    deviations: tuple[Deviation, ...] = ()  # of the enforcer, that decide it

    @property
    def admitted(self) -> bool:
        return self.explanation.verdict is PolicyVerdict.ALLOW

    @property
    def starts(self) -> bool:
        """Whether the connection may begin: the policies admit it, and do not keep the client from looking its name up."""
        return self.admitted and (self.dns is None or self.dns.verdict is not PolicyVerdict.DENY)


class Explainer:
    """Explains flows as they arrive, with what goes with them."""

    def __init__(self, snapshot: ClusterSnapshot, enforcer: str = "") -> None:
        self.engine = PolicyEngine(snapshot, named_enforcer(enforcer) if enforcer else None)
        self._dns = DnsWays(self.engine)

    def explained(self, sent: SentFlow, *, by_name: bool) -> JudgedFlow:
        """`by_name`: the client has the destination's name, and looks it up first."""
        flow, service = sent.flow, sent.service
        explanation = explain_arriving(self.engine, flow, service, sent.entry)
        deviations = dict.fromkeys(d for side in Direction for d in self.engine.deviations(explanation, side))
        lookup = self._dns.of(flow.source, _name(flow, service)) if by_name and flow.port != _DNS_PORT else None
        return JudgedFlow(explanation, service, lookup, tuple(deviations))


def _name(flow: PolicyFlow, service: str) -> str:
    """The name that a client looks up for a flow; "" where it has the address."""
    return flow.destination.domain or (_name_of(service) if service else "")


def _name_of(service: str) -> str:
    """The name of a Service in DNS, in the usual cluster domain."""
    namespace, _, name = service.partition("/")
    return f"{name}.{namespace}.svc.cluster.local"


def is_name(end: Target | str) -> bool:
    """Whether clients reach this destination by a name that they look up."""
    return isinstance(end, str) or end.kind is TargetKind.SERVICE


class FlowsBetween:
    """The flows from one end to another, explained; their patches are computed when they are asked for.

    An end is pod/NAME, deploy/NAME, svc/NAME or an IP address, the destination also a domain name. Raises InputError,
    with near matches, for what does not exist.
    """

    def __init__(
        self,
        source: Source,
        start: str,
        end: str,
        *,
        protocol: str = "",
        enforcer: str = "",
    ) -> None:
        ends = end_of(start), end_of(end)
        snapshot = source.snapshot()
        namespace = source.default_namespace
        chosen = flows_between(snapshot, *ends, namespace=namespace, protocol=protocol.upper())
        explainer = Explainer(snapshot, enforcer)
        self.engine = explainer.engine
        self._patcher = Patcher(self.engine)
        self.flows = [explainer.explained(sent, by_name=is_name(ends[1])) for sent in chosen]
        self._arriving = {f.explanation.flow: f.explanation.arriving for f in self.flows}

    @property
    def all_admitted(self) -> bool:
        return all(flow.admitted for flow in self.flows)

    @property
    def all_start(self) -> bool:
        return all(flow.starts for flow in self.flows)

    def lookups_denied(self, option: PatchOption | None) -> list[str]:
        """What there is to say of clients that policies keep from their resolver, once an option is applied."""
        objects = [KubeObject(change.object) for change in option.changes] if option is not None else []
        changed = self.engine.with_changes(objects)
        judge = DnsWays(changed.engine if changed is not None else self.engine)
        ways = [
            judge.of(flow.explanation.flow.source, _name(flow.explanation.flow, flow.service))
            for flow in self.flows
            if flow.dns is not None
        ]
        return list(dict.fromkeys(w.text for w in ways if w is not None and w.verdict is PolicyVerdict.DENY))

    def check_refused(self) -> None:
        """Raises InputError where an answer hangs on a policy of a file that the API server would not take."""
        unknown = [f.explanation for f in self.flows if f.explanation.verdict is PolicyVerdict.UNKNOWN]
        notes = (note for explanation in unknown for note in explanation.not_evaluated)
        named = {note.policy for note in notes if not note.reason.startswith(NOT_IN_FORCE)}
        for policy in self.engine.unevaluated:
            if policy.source and policy.refused_by is RefusedBy.API and str(policy.ref) in named:
                raise InputError(
                    policy.reason, source=policy.source, obj=str(policy.ref), field=policy.field, hint=policy.hint
                )

    def patch(self, flow: PolicyFlow) -> Patch | None:
        """What would admit one flow, by whichever node it comes; None where nothing is needed or nothing helps."""
        arriving = self._arriving.get(flow, ())
        if len(arriving) <= 1:
            judged = arriving[0] if arriving else flow
            return self._patcher.patch(judged) or self._corrected(judged)
        if len(arriving) > _MOST_ARRIVING:
            return None
        option = patch_all(self.engine, arriving)
        if option is None:
            return None
        new = all(change.is_new for change in option.changes)
        return Patch(flow, None if new else option, option if new else None)

    def why_no_patch(self, explanation: Explanation, patch: Patch | None) -> str:
        """What keeps a denied flow from having a patch, or one of a new policy; "" where there is nothing to say."""
        nodes = len(explanation.arriving)
        if patch is None and nodes > _MOST_ARRIVING:
            return f"Any of {nodes} nodes may send it on: a patch would have to name each. Name their addresses with an ipBlock."
        return why_no_patch(self.engine, explanation, patch)

    def _corrected(self, flow: PolicyFlow) -> Patch | None:
        """The patch of a flow that hangs on policies which are refused as they are written."""
        explanation = next(
            (f.explanation for f in self.flows if flow in (f.explanation.flow, *f.explanation.arriving)), None
        )
        if explanation is None or explanation.verdict is not PolicyVerdict.UNKNOWN:
            return None
        return self._corrections.patch(flow, (note.policy for note in explanation.not_evaluated))

    @cached_property
    def _corrections(self) -> Corrections:
        return Corrections(self.engine)

    def patch_all(self) -> PatchOption | None:
        """One change that admits every flow that is not admitted now; None where none was found."""
        denied = [f.explanation for f in self.flows if not f.admitted]
        flows = [flow for explanation in denied for flow in explanation.arriving or (explanation.flow,)]
        if len(flows) == 1 and (corrected := self._corrected(flows[0])) is not None:
            return corrected.smallest
        return patch_all(self.engine, flows) if len(flows) <= len(denied) * _MOST_ARRIVING else None


def warn_of_unknown(source: Source, engine: PolicyEngine, warn: Warn) -> None:
    """Names what of the source's objects is not known, and the policies that are not evaluated."""
    for missing in source.unknown_at_begin():
        warn(f"{missing}; policies and names are as they were known before")
    warn_of_unevaluated(engine, warn)


def warn_of_unevaluated(engine: PolicyEngine, warn: Warn) -> None:
    """Names the kinds that may not be listed, and the policies that are not evaluated."""
    if unread := unread_kinds(engine.snapshot):
        warn(unread)
    for policy in engine.unevaluated[:_MOST_NAMED]:
        warn(str(policy))
    more = len(engine.unevaluated) - _MOST_NAMED
    if more > 0:
        warn(f"{more} more policies are not evaluated")


def end_of(text: str) -> Target | str:
    """A target, or a domain name as text. Raises InputError for what is neither."""
    return text if _DOMAIN.fullmatch(text) else parse_target(text)
