"""The cluster's DNS: real CoreDNS behind kube-dns, and one that stands for the internet's, which CoreDNS forwards to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import Daemon, wait_for

EXTERNAL_NAME, EXTERNAL_ADDRESS = "models.example.com", "198.51.100.7"
_UPSTREAM = """\
.:53 {{
    bind {ip}
    hosts {{
        {address} {name}
        fallthrough
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def start_upstream(plane: ControlPlane) -> Daemon:
    """A name server on the underlay that knows one name of the internet's; the nodes' pods reach it."""
    corefile = plane.folder / "upstream.Corefile"
    corefile.write_text(_UPSTREAM.format(ip=plane.ip, address=EXTERNAL_ADDRESS, name=EXTERNAL_NAME))
    started = plane.daemon("upstream", "coredns", "-conf", str(corefile))
    wait_for("the upstream name server", lambda: f"{plane.ip}:53" in plane.netns.run("ss", "-Hlun"))
    return started


def coredns_objects(plane: ControlPlane, image: str, node: str) -> list[dict[str, Any]]:
    """What is applied to have CoreDNS on a node."""
    text = (Path(__file__).parents[1] / "dns.yaml").read_text()
    program = plane.binaries.path("coredns").parent
    text = text.replace("localhost/kubectl-genainet-agent:test", image)
    objects = list(yaml.safe_load_all(text.replace("UPSTREAM", plane.ip).replace("PROGRAM", str(program))))
    deployment = next(obj for obj in objects if obj["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return objects
