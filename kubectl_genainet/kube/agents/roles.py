"""The rules of the role genainet-view: exactly the kinds that the tool reads.

python -m kubectl_genainet.kube.agents.roles writes them into daemonset/manifests/roles.yaml.
"""

from __future__ import annotations

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.kube.resources import KINDS

_BEGIN = "rules: # exactly the kinds that kubectl_genainet/kube/resources.py lists; no Secrets\n"


def view_rules() -> str:
    """The rules as YAML: one per API group, and one for kinds that are listed in part and never watched (warning Events)."""
    groups: dict[tuple[str, str], set[str]] = {}
    for resource in KINDS:
        verbs = "list" if resource.query else "list, watch"
        groups.setdefault((resource.group, verbs), set()).add(resource.plural)
    lines = []
    for (group, verbs), plurals in groups.items():
        lines += [f'  - apiGroups: ["{group}"]', "    resources:", *(f"      - {plural}" for plural in sorted(plurals))]
        lines.append(f"    verbs: [{verbs}]")
    return "\n".join(lines) + "\n"


def with_rules(manifest: str) -> str:
    """roles.yaml with these rules."""
    head, tail = manifest.split(_BEGIN)
    _, separator, others = tail.partition("---\n")
    return f"{head}{_BEGIN}{view_rules()}{separator}{others}"


if __name__ == "__main__":
    path = asset_dir("daemonset") / "manifests" / "roles.yaml"
    path.write_text(with_rules(path.read_text()))
