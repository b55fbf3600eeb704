"""What is wrong between GPUs: collectives on kernel TCP, RDMA ports and counters."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Topic
from kubectl_genainet.model.finding import Severity

NCCL_ON_TCP = Diagnosis(
    Topic.FABRIC,
    "nccl-on-tcp",
    Severity.WARNING,
    "GPU pods of one job move bulk data over kernel TCP while their nodes' RDMA devices stand still",
    "Collectives (NCCL, RCCL, Gloo) that fell back to sockets look so: a tenth of the bandwidth, and the CPU copies every byte.",
    "Run the job with NCCL_DEBUG=INFO: its lines NET/… say which transport it took, and why; see that the pods request devices.",
    "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html",
)
RDMA_PORT_NOT_ACTIVE = Diagnosis(
    Topic.FABRIC,
    "rdma-port-not-active",
    Severity.WARNING,
    "a pod holds queue pairs on an RDMA port that is not ACTIVE",
    "Nothing moves over that port: the job waits, or goes on with fewer devices.",
    "Look at the cable, the switch's port, the subnet manager (InfiniBand) or the driver's messages on that node.",
    "https://docs.kernel.org/admin-guide/abi-stable.html (sysfs-class-infiniband)",
)
RDMA_TROUBLE = Diagnosis(
    Topic.FABRIC,
    "rdma-trouble",
    Severity.WARNING,
    "counters of lost, late or repeated packets of an RDMA device grew while it was measured",
    "The fabric loses packets or a peer does not answer: collectives slow down to the slowest of their members.",
    "See which peers are concerned, and whether the fabric's flow control (PFC, ECN) or a placement across networks is why.",
    "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-working-monitor.html",
)
