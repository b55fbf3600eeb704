"""Policies that are not in force as they are written: refused, misspelt, or of a version that is no longer served."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import TEMPLATE, unfilled
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.policy.left_out.served import KUBECTL_REFUSES, RefusedBy
from kubectl_genainet.policy.where import NO_SUCH_FIELD

_PLACEHOLDER = re.compile(rf"{TEMPLATE}|\$\(\w+\)")


def _placeholder(reason: str, name: str) -> str:
    match = _PLACEHOLDER.search(reason)
    return match[0] if match else unfilled(reason, name)


@check(Area.POLICY, Severity.ERROR)
def policy_refused(cluster: Cluster) -> Problems:
    """A policy is refused by its API or by the agent that enforces it, or has a field that its kind does not have.

    Looks at every policy as its API server validates it (types, selectors, blocks, ports, required fields) and, for Cilium and
    Calico, as their agents do; names API versions that are no longer served and kinds spelt wrongly. A value of a manifest
    that is a placeholder of a template (`${NAME}`, `{{ name }}`, SERVICE_PORT of an object that is called SERVICE_NAME) is
    not checked.

    Why: a manifest that is refused segments nothing, and a misspelt field is dropped in silence where the client
    does not validate: `podSelectr` selects every pod, `egres` isolates nothing. An error: what it was to protect is
    open, or what it was to admit is closed.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation,
    https://kubernetes.io/docs/reference/using-api/deprecation-guide/
    """
    for unevaluated in cluster.policy.unevaluated:
        if unevaluated.refused_by is RefusedBy.NOBODY or not cluster.in_scope(unevaluated.ref.namespace):
            continue
        placeholder = _placeholder(unevaluated.reason, unevaluated.ref.name) if cluster.from_files else ""
        if placeholder:
            yield NotChecked(str(unevaluated.ref), f"{placeholder} is a placeholder that is not filled in")
            continue
        said = KUBECTL_REFUSES in unevaluated.reason
        yield Problem(
            unevaluated.reason if said else f"the {unevaluated.refused_by.value} refuses it: {unevaluated.reason}",
            unevaluated.ref,
            (seen(unevaluated.ref, unevaluated.field, None, unevaluated.reason),),
            Remedy(
                unevaluated.hint
                or f"Correct {unevaluated.field or 'the policy'}; `kubectl apply --dry-run=server` shows what is refused."
            ),
        )
    reported = set()
    for policy in cluster.policy.policies:
        for field, reason in policy.not_evaluated:
            if (
                reason.startswith(NO_SUCH_FIELD)
                and cluster.in_scope(policy.ref.namespace)
                and (policy.ref, field) not in reported
            ):
                reported.add((policy.ref, field))
                what, _, near = reason.partition(":")
                yield Problem(
                    f"there is {what}: {field}" + (f";{near}" if near else ""),
                    policy.ref,
                    (seen(policy.ref, field, None, reason),),
                    Remedy(f"Correct the spelling of {field}: the API server drops fields that it does not know."),
                )
