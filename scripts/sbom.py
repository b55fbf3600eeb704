"""`python scripts/sbom.py [DPKG_LIST]`: an SPDX 2.3 document of what is installed beside this Python, from its own metadata.

DPKG_LIST is the image's /usr/share/genainet-packages.txt (PACKAGE=VERSION a line), for the image's document. The same
installation gives the same bytes: the time is $SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

NAME = "kubectl-genainet"


def python_packages() -> list[tuple[str, str, str]]:
    """(name, version, licence as its metadata says it) of every installed distribution, as it is imported: of two with one name
    the first on the path, which hides the other."""
    imported: dict[str, tuple[str, str, str]] = {}
    for distribution in metadata.distributions():
        fields = distribution.metadata
        name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
        licences = fields.get_all("License-Expression") or ["NOASSERTION"]
        imported.setdefault(name, (name, distribution.version, licences[0]))
    return sorted(imported.values())


def debian_packages(lines: Iterable[str]) -> list[tuple[str, str]]:
    return sorted(
        (name, version) for name, equals, version in (line.strip().partition("=") for line in lines) if equals
    )


def document(python: list[tuple[str, str, str]], debian: list[tuple[str, str]], time: int) -> dict[str, Any]:
    packages = [_package("pypi", name, version, licence) for name, version, licence in python]
    packages += [_package("deb/debian", name, version, "NOASSERTION") for name, version in debian]
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    main = next((p["SPDXID"] for p in packages if p["name"] == NAME), "NONE")
    others = [p["SPDXID"] for p in packages if p["SPDXID"] != main]
    relationships = [_relationship("SPDXRef-DOCUMENT", "DESCRIBES", main)]
    relationships += [_relationship(main, "DEPENDS_ON", other) for other in others] if main != "NONE" else []
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": NAME,
        "documentNamespace": f"https://spdx.org/spdxdocs/{NAME}-{digest}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: {NAME}"],
        },
        "packages": packages,
        "relationships": relationships,
    }


def _package(kind: str, name: str, version: str, licence: str) -> dict[str, Any]:
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", f"{kind}-{name}-{version}")
    return {
        "SPDXID": f"SPDXRef-{plain}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:{kind}/{name}@{version}",
            }
        ],
    }


def _relationship(subject: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": other}


def main() -> None:
    debian = debian_packages(Path(sys.argv[1]).read_text().splitlines()) if len(sys.argv) > 1 else []
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    print(json.dumps(document(python_packages(), debian, time), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
