"""Random connections of two families over an overlay, each compared with what its client and its server say of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kubectl_genainet.lab.spec import AddressFamily, LabSpec, Overlay, ProxyMode
from scripts import truth
from tests.lab.labtest import fresh_name, running

CONNECTIONS, SEED = 135, 7


def test_every_connection_is_told_as_it_was_or_as_unknown(tmp_path: Path) -> None:
    for number, obj in enumerate(truth.OBJECTS):
        (tmp_path / f"{number}.json").write_bytes(msgspec.json.encode(obj))
    spec = LabSpec(
        name=fresh_name(),
        proxy_mode=ProxyMode.NFTABLES,
        overlay=Overlay.VXLAN,
        families=(AddressFamily.IPV4, AddressFamily.IPV6),
        manifests=str(tmp_path),
    )
    with running(spec) as lab:
        score, errors = truth.run(lab.record, CONNECTIONS, SEED)
    assert (score.wrong, score.missing) == (0, 0), errors
    assert score.right >= truth.WANTED * (score.right + score.unknown), errors
