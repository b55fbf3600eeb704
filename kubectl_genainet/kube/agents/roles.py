"""The rules of the role genainet-view: exactly the kinds that the tool reads.

python -m kubectl_genainet.kube.agents.roles writes them into daemonset/manifests/roles.yaml.
"""

from __future__ import annotations

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.kube.resources import KINDS

_BEGIN = "rules: # exactly the kinds that kubectl_genainet/kube/resources.py lists; no Secrets\n"


def view_rules() -> str:
    """The rules as YAML, one per API group."""
    groups: dict[str, set[str]] = {}
    for resource in KINDS:
        groups.setdefault(resource.group, set()).add(resource.plural)
    lines = []
    for group, plurals in groups.items():
        lines += [f'  - apiGroups: ["{group}"]', "    resources:", *(f"      - {plural}" for plural in sorted(plurals))]
        lines.append("    verbs: [get, list, watch]")
    return "\n".join(lines) + "\n"


def with_rules(manifest: str) -> str:
    """roles.yaml with these rules."""
    head, rest = manifest.split(_BEGIN)
    _, separator, others = rest.partition("---\n")
    return f"{head}{_BEGIN}{view_rules()}{separator}{others}"


if __name__ == "__main__":
    path = asset_dir("daemonset") / "manifests" / "roles.yaml"
    path.write_text(with_rules(path.read_text()))
