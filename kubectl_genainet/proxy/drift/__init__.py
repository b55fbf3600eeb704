"""What kube-proxy has programmed on the nodes against what the API says, as findings."""

from kubectl_genainet.proxy.drift.compare import compare, comparison
from kubectl_genainet.proxy.drift.nodes import configured_mode

__all__ = ["compare", "comparison", "configured_mode"]
