"""Networks of pods that enforce no policy: every policy is inert where one of them is the only network there is.

Source: Flannel, README ("Flannel does not control how containers are networked to the host … no network policy").
"""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, agent, first_of
from kubectl_genainet.policy.enforcers.kube_router import without_policies

_FIND = first_of(
    agent(r"flannel|(mirrored|hardened)-flannel(cni)?(-flannel)?"),
    agent(r"amazon-k8s-cni"),
    agent(r"kindnetd"),
    without_policies,
)


NONE = Known(
    Enforcer(EnforcerName.NONE, "no enforcer"),
    _FIND,
)
