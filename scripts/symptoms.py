"""docs/symptoms.md: what is felt, and the command that says why.

python -m scripts.symptoms > docs/symptoms.md
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symptom:
    """`diagnoses` are what is behind it most often; each has a row in docs/diagnoses.md."""

    felt: str
    command: str
    diagnoses: tuple[str, ...]
    incidents: tuple[str, ...] = ()


SYMPTOMS = (
    Symptom(
        "Something is wrong with a Service, and nobody knows what",
        "kubectl genainet diagnose svc/NAME",
        (),
    ),
    Symptom(
        "It is over when somebody looks (with `deploy --record`)",
        "kubectl genainet timeline svc/NAME --since 6h; kubectl genainet diagnose svc/NAME --at 03:12",
        (),
    ),
    Symptom(
        "Requests hang, and time out in the end",
        "kubectl genainet trace svc/NAME --verdict dropped,unanswered",
        ("policy-drop", "rule-drop", "stale-endpoint", "rp-filter", "listen-overflow"),
        ("policy-drop", "policy-service-port", "policy-drop-egress", "rp-filter", "listen-overflow"),
    ),
    Symptom(
        "Connection refused",
        "kubectl genainet trace svc/NAME --verdict rejected,reset",
        ("no-endpoints", "closed-port", "no-such-port", "rejected-by-rule"),
        ("no-endpoints", "nothing-listens", "no-local-endpoint"),
    ),
    Symptom(
        "One request in a few fails",
        "kubectl genainet trace svc/NAME; kubectl genainet rules svc/NAME",
        ("stale-endpoint", "stale-endpoint-rules", "nodes-disagree", "missing-endpoint-rules"),
        ("stale-endpoint", "disagreement"),
    ),
    Symptom(
        "Connection reset by peer",
        "kubectl genainet trace svc/NAME --verdict reset",
        ("reset-by-app", "reset-by-client", "reset-on-path", "idle-time"),
        ("reset-by-app",),
    ),
    Symptom(
        "Short answers arrive, long ones stop in the middle",
        "kubectl genainet trace svc/NAME",
        ("mtu-blackhole", "icmp-dropped", "packet-too-big", "stopped-arriving"),
        ("mtu-blackhole", "stream-stall", "stream-reset"),
    ),
    Symptom(
        "Answers are slow, or the first token is late",
        "kubectl genainet trace svc/NAME --slow 500ms",
        ("slow-backend", "slow-first-token", "slow-first-reply", "stream-stalled", "pinned-connection"),
        ("slow-backend", "slow-first-token", "pinned-connections"),
    ),
    Symptom(
        "Names are not found, or lookups take seconds",
        "kubectl genainet dns deploy/NAME",
        ("dns-policy", "dns-timeout", "dns-conntrack-race", "dns-slow-upstream", "dns-ndots-waste"),
        ("dns-policy-egress", "dns-timeout", "dns-slow-upstream", "ndots-waste", "dns-nxdomain-storm"),
    ),
    Symptom(
        "A policy was applied, and traffic passes all the same",
        "kubectl genainet drops -n NAMESPACE",
        ("policy-not-enforced", "policy-disagreement"),
        ("policy-bypassed", "disagreement"),
    ),
    Symptom(
        "May this pod reach that Service? What would admit it?",
        "kubectl genainet explain deploy/CLIENT svc/NAME --patch",
        ("policy-drop",),
    ),
    Symptom(
        "What would change if these policies were applied?",
        "kubectl genainet matrix --manifests DIR --diff NEW_DIR",
        (),
    ),
    Symptom(
        "New connections fail on one node only",
        "kubectl genainet drops -A --node NODE",
        ("conntrack-full", "snat-ports-exhausted", "proxy-mode-mismatch", "no-proxy-rules"),
        ("conntrack-full",),
    ),
    Symptom(
        "Nothing is wrong yet: is the cluster fit for these workloads?",
        "kubectl genainet doctor -A",
        (),
    ),
)


def symptoms_markdown() -> str:
    """The page, with its last newline."""
    lines = [
        "# Symptom → command",
        "",
        "<!-- Made by `python -m scripts.symptoms > docs/symptoms.md`. -->",
        "",
        "What is felt, the command that says why, and what is behind it most often ([all diagnoses](diagnoses.md)).",
        "All of it can be tried in the [lab](lab.md): `kubectl genainet lab incident NAME`, then the command with `--lab`",
        "([the incidents](incidents/README.md)).",
        "",
        "| symptom | command | often | in the lab |",
        "|---|---|---|---|",
    ]
    for one in SYMPTOMS:
        commands = "<br>".join(f"`{command.strip()}`" for command in one.command.split(";"))
        often = ", ".join(f"`{name}`" for name in one.diagnoses) or "–"
        incidents = ", ".join(f"`{name}`" for name in one.incidents) or "–"
        lines.append(f"| {one.felt} | {commands} | {often} | {incidents} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(symptoms_markdown(), end="")
