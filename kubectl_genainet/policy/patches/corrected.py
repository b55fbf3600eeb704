"""The patch where the answer hangs on policies that no API server takes as they are written: they are written anew, as their kind
is served now, and what else would admit the flow is found among policies that are in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.left_out.served import Doubtful, RefusedBy, all_doubtful
from kubectl_genainet.policy.model import PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.patches.patch import Patch, Patcher
from kubectl_genainet.policy.patches.proposal import cleaned
from kubectl_genainet.policy.patches.trial import PatchOption, PolicyChange, tried

_MOST = 200  # policies that are written anew


class Corrections:
    """The refused policies of one engine as they would be taken; made when a flow first hangs on one."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        doubtful = [one for one in all_doubtful(engine.snapshot) if one.by in (RefusedBy.API, RefusedBy.CLIENT)]
        self._doubtful = doubtful if len(doubtful) <= _MOST else []
        self._engines: tuple[PolicyEngine, PolicyEngine] | None = None

    def patch(self, flow: PolicyFlow, named: Iterable[str]) -> Patch | None:
        """The patch for a flow whose verdict hangs on the policies that are `named`, where some of them are such."""
        named = frozenset(named)
        concerned = [one for one in self._doubtful if str(one.written.ref) in named]
        if not concerned:
            return None
        without, corrected = self._engines = self._engines or self._made()
        if corrected.explain(flow).verdict is PolicyVerdict.ALLOW:
            changes = [_change(one) for one in concerned]
            trial = tried(without, flow, changes)
            return Patch(flow, trial.option(), None) if trial is not None else None
        patch = Patcher(corrected).patch(flow)
        return Patch(flow, self._named(patch.edit), self._named(patch.new)) if patch is not None else None

    def _made(self) -> tuple[PolicyEngine, PolicyEngine]:
        """Without the policies, and with them as they would be taken."""
        written = {id(one.written) for one in self._doubtful}
        snapshot = self._engine.snapshot
        others = tuple(obj for obj in snapshot.objects if id(obj) not in written)
        meant = tuple(one.meant for one in self._doubtful)
        return (
            PolicyEngine(replace(snapshot, objects=others), self._engine.enforcer),
            PolicyEngine(replace(snapshot, objects=(*others, *meant)), self._engine.enforcer),
        )

    def _named(self, option: PatchOption | None) -> PatchOption | None:
        """An option in which a policy that is edited says how it is to be written."""
        if option is None:
            return None
        how = {one.meant.ref: _how(one) for one in self._doubtful}
        changes = tuple(
            c if c.is_new or c.ref not in how else msgspec.structs.replace(c, what=f"{how[c.ref]}; {c.what}")
            for c in option.changes
        )
        return msgspec.structs.replace(option, changes=changes)


def _change(one: Doubtful) -> PolicyChange:
    return PolicyChange(one.meant.ref, False, _how(one), cleaned(KubeObject(one.meant.raw)), file=one.written.source)


def _how(one: Doubtful) -> str:
    """What to write in the policy in place of what it says."""
    if one.written.name != one.meant.name or not one.written.name:
        return "a name"
    if one.written.kind != one.meant.kind:
        return f"kind: {one.meant.kind} of {one.meant.api_version}"
    written = one.written.api_version
    return f"apiVersion: {one.meant.api_version}" + (f" in place of {written}" if written else "")
