"""NetworkPolicies of the chatbot cluster."""

from __future__ import annotations

from tests.unit.doctor.worlds.world import NS, Raw, meta


def policy(name: str, target: str, port: int, *callers: str, namespace: str = NS) -> Raw:
    """Ingress to `target` from `callers` on a TCP port, as the reference application has them."""
    label = "app.kubernetes.io/name"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(name, namespace),
        "spec": {
            "podSelector": {"matchLabels": {label: target}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {label: c}}} for c in callers],
                    "ports": [{"protocol": "TCP", "port": port}],
                }
            ],
        },
    }


def egress_policy(name: str, target: str, *rules: Raw, namespace: str = NS) -> Raw:
    selector = {"matchLabels": {"app.kubernetes.io/name": target}} if target else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(name, namespace),
        "spec": {"podSelector": selector, "policyTypes": ["Egress"], "egress": list(rules)},
    }
