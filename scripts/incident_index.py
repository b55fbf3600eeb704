"""docs/incidents/README.md: the incidents of the lab, and what the kernel reports of each.

python -m scripts.incident_index > docs/incidents/README.md
"""

from __future__ import annotations

from kubectl_genainet.lab.incidents import Incident, incidents

_HEAD = """# Incidents, with transcripts

<!-- Made by `python -m scripts.incident_index > docs/incidents/README.md`. -->

Each is a reproducible fault of the [lab](../lab.md); each page has the real transcript of its diagnosis.

| incident | fault | verdict | kernel's reason | hook | dropped in |
|---|---|---|---|---|---|
"""
_FOOT = """
Reasons and functions were measured on Linux 6.18 with iptables-nft, by bpftrace on skb:kfree_skb;
tests/lab/itself/test_lab_incidents.py measures them again.
"""


def _row(incident: Incident) -> str:
    expected = incident.expected
    name = f"[{incident.name}]({incident.name}.md)"
    cells = (name, incident.summary, expected.verdict.value, expected.reason, expected.hook, expected.location)
    return f"| {' | '.join(cells)} |\n"


def index_markdown() -> str:
    """The page, with its last newline."""
    return _HEAD + "".join(map(_row, incidents().values())) + _FOOT


if __name__ == "__main__":
    print(index_markdown(), end="")
