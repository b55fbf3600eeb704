"""docs/symptoms.md: what is felt, and the command that says why.

python -m scripts.symptoms > docs/symptoms.md
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.lab.incidents import Symptom, incidents


@dataclass(frozen=True, slots=True)
class Row:
    """`diagnoses` are what is behind it most often; each has a row in docs/diagnoses.md."""

    felt: Symptom | str  # a string where the lab has no incident for it
    command: str
    diagnoses: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.felt.value if isinstance(self.felt, Symptom) else self.felt

    @property
    def incidents(self) -> list[str]:
        return [name for name, incident in incidents().items() if incident.symptom is self.felt]


ROWS = (
    Row(
        "Something is wrong with a Service, and nobody knows what",
        "kubectl genainet diagnose svc/NAME",
        (),
    ),
    Row(
        "It is over when somebody looks (with `deploy --record`)",
        "kubectl genainet timeline svc/NAME --since 6h; kubectl genainet diagnose svc/NAME --at 03:12",
        (),
    ),
    Row(
        Symptom.HANGS,
        "kubectl genainet trace svc/NAME --verdict dropped,unanswered",
        ("policy-drop", "rule-drop", "stale-endpoint", "rp-filter", "listen-overflow"),
    ),
    Row(
        Symptom.REFUSED,
        "kubectl genainet trace svc/NAME --verdict rejected,reset",
        ("no-endpoints", "closed-port", "rejected-by-rule"),
    ),
    Row(
        "A client fails, and `trace svc/NAME` sees no connection of it: it may call a port that the Service does not have",
        "kubectl genainet drops svc/NAME",
        ("no-such-port", "unacknowledged", "no-route"),
    ),
    Row(
        Symptom.SOME_FAIL,
        "kubectl genainet trace svc/NAME; kubectl genainet rules svc/NAME",
        ("stale-endpoint", "stale-endpoint-rules", "nodes-disagree", "missing-endpoint-rules"),
    ),
    Row(
        Symptom.RESET,
        "kubectl genainet trace svc/NAME --verdict reset",
        ("reset-by-app", "reset-by-client", "reset-on-path", "idle-time"),
    ),
    Row(
        Symptom.CUT_SHORT,
        "kubectl genainet trace svc/NAME",
        ("mtu-blackhole", "icmp-dropped", "packet-too-big", "stopped-arriving", "early-end"),
    ),
    Row(
        Symptom.SLOW,
        "kubectl genainet trace svc/NAME --slow 500ms",
        (
            "slow-backend",
            "slow-first-token",
            "slow-first-reply",
            "stream-stalled",
            "stream-held-up",
            "pinned-connection",
        ),
    ),
    Row(
        Symptom.NAMES,
        "kubectl genainet dns deploy/NAME",
        ("dns-policy", "dns-timeout", "dns-conntrack-race", "dns-slow-upstream", "dns-ndots-waste"),
    ),
    Row(
        Symptom.POLICY_WITHOUT_EFFECT,
        "kubectl genainet drops -n NAMESPACE",
        ("policy-not-enforced", "policy-disagreement"),
    ),
    Row(
        "May this pod reach that Service? What would admit it?",
        "kubectl genainet explain deploy/CLIENT svc/NAME --patch",
        ("policy-drop",),
    ),
    Row(
        "What would change if these policies were applied?",
        "kubectl genainet matrix --manifests DIR --diff NEW_DIR",
        (),
    ),
    Row(
        Symptom.ONE_NODE,
        "kubectl genainet drops -A --node NODE",
        ("conntrack-full", "snat-ports-exhausted", "proxy-mode-mismatch", "no-proxy-rules"),
    ),
    Row(
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
    for row in ROWS:
        commands = "<br>".join(f"`{command.strip()}`" for command in row.command.split(";"))
        often = ", ".join(f"`{name}`" for name in row.diagnoses) or "–"
        in_the_lab = ", ".join(f"`{name}`" for name in row.incidents) or "–"
        lines.append(f"| {row.text} | {commands} | {often} | {in_the_lab} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(symptoms_markdown(), end="")
