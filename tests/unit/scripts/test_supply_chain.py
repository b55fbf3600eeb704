"""What is shipped is pinned, listed and made the same way twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from scripts import sbom

ROOT = Path(__file__).parents[3]


def test_every_wheel_of_the_image_is_pinned_with_its_hashes() -> None:
    text = (ROOT / "daemonset/requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[0-9.]+ +--hash=sha256:[0-9a-f]{64}", line), line
    assert "--require-hashes" in (ROOT / "scripts/build-image.sh").read_text()


def test_an_sbom_lists_what_is_installed_and_is_the_same_twice() -> None:
    command = [sys.executable, str(ROOT / "scripts/sbom.py")]
    once, again = (subprocess.run(command, capture_output=True, check=True, timeout=60).stdout for _ in range(2))
    assert once == again
    found = json.loads(once)
    names = {package["name"] for package in found["packages"]}
    assert found["spdxVersion"] == "SPDX-2.3" and {"kubectl-genainet", "msgspec", "h11"} <= names
    assert len({package["SPDXID"] for package in found["packages"]}) == len(found["packages"])


def test_the_images_packages_are_in_it() -> None:
    debian = sbom.debian_packages(["python3=3.11.2-1+b1\n", "iptables=1.8.9-2", ""])
    found = sbom.document([("kubectl-genainet", "0.1.0", "Apache-2.0")], debian, 0)
    locators = [package["externalRefs"][0]["referenceLocator"] for package in found["packages"]]
    assert locators == [
        "pkg:pypi/kubectl-genainet@0.1.0",
        "pkg:deb/debian/iptables@1.8.9-2",
        "pkg:deb/debian/python3@3.11.2-1+b1",
    ]
    assert found["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
