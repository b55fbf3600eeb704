"""Where no objects were recorded, names are those of now, and policies are not known."""

from __future__ import annotations

from kubectl_genainet.assets import recordings
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.history import HistorySource, TimeRange


def test_policies_of_now_do_not_judge_what_was_then() -> None:
    now = BundleSource(recordings() / "policy-service-port.gnb")
    assert any(obj.kind == "NetworkPolicy" for obj in now.snapshot().objects)
    warnings: list[str] = []
    then = HistorySource(now, TimeRange(0, 1), warn=warnings.append).snapshot()
    assert not any(obj.kind == "NetworkPolicy" for obj in then.objects)
    assert "NetworkPolicy" in {left_out.kind for left_out in then.left_out}
    assert then.services and len(warnings) == 1 and "policies are not known" in warnings[0]
