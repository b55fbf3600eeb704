"""What `drops` says: rows of packets that did not arrive (or were reset, or passed against the policies); JSON as
docs/drops.md says. None is "unknown" everywhere; nothing is guessed."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Evidence, Finding, Severity
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.agents import AgentCost
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.results.path import Drop, Party, ServiceRef


class DropOutcome(Enum):
    """What became of the packets of a row."""

    DROPPED = "dropped"  # freed, and the sender was not told
    REJECTED = "rejected"  # freed by a rule that tells the sender (TCP RST or ICMP error)
    REFUSED = "refused"  # nothing listens on the port: the kernel of the destination tells the sender
    RESET = "reset"  # a TCP reset ended the connection
    TOLD = "told"  # an ICMP error reached the sender; where the packet died was not seen
    RETRANSMITTED = "retransmitted"  # sent again; where it was lost was not seen
    PASSED = "passed"  # connections that came about although policies do not admit them


class Agreement(Enum):
    """The kernel's doing beside what the API's policies say of the same flow."""

    AGREE = "agree"  # dropped, and no policy admits it
    API_ADMITS = "api-admits"  # dropped, though the policies admit it
    API_ISOLATES = "api-isolates"  # passed, though the policies do not admit it
    UNKNOWN = "unknown"  # the policies could not be judged


class PolicyView(msgspec.Struct, frozen=True):
    """What the API's policies say of the flow as a new connection. `policies` isolate one of its ends, by
    "namespace/name". `causes` are what may be behind a disagreement; which of them it is, is not known."""

    verdict: str  # "allow", "deny", "unknown"
    agreement: Agreement
    policies: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()


class DropRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="drop"):
    """Packets of one client and server with one fate at one place. `id` is the row's as long as the command runs.

    `packets` counts sk_buffs (a GSO packet is one) since the start; connections for PASSED. `direction` is which way the
    packets went: "request", "reply", or "unknown" where nothing tells the server (`client` is the sender then). `client_hidden`:
    `client` is a node that may have given its address to another's packets (source NAT): who asked is not known. `service` is
    the Service whose address or endpoint the server is. `node`, `pod`: in whose namespace it happened. `t_ns` is when the
    first count came, on the node's clock; `time` the same and `last_time` the last as wall-clock times (RFC 3339, UTC).
    """

    id: int
    outcome: DropOutcome
    check: str
    severity: Severity
    packets: int
    bytes: int
    client: Party | None
    server: Party | None
    service: ServiceRef | None
    protocol: Protocol
    direction: str
    node: str
    pod: str | None
    title: str
    drop: Drop | None = None
    policy: PolicyView | None = None
    evidence: tuple[Evidence, ...] = ()
    client_hidden: bool = False
    t_ns: int = 0
    time: str = ""
    last_time: str = ""


class DropSummary(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="drops_summary"):
    """The sum of a run. `packets` are those of the rows, by outcome, `by_reason` those of dropped packets. `background`
    were freed without anything being lost, and are left out of the rows. `events` are samples: emitted = received + lost.
    `timeline` has, by what was counted ("drop", "reset", "retransmit", …), how many came in a second (of 1970).
    `forgotten` counts what found no room among the rows; `observers` are packets of the agents' own: their questions to their
    nodes, and their port."""

    target: str
    packets: dict[str, int]
    by_reason: dict[str, int]
    rows: int
    background: int
    forgotten: int
    findings: tuple[Finding, ...]
    events: dict[str, int | None]
    nodes: tuple[str, ...]
    silent_nodes: tuple[str, ...]
    lost: tuple[Losses, ...]
    observers: int = 0
    timeline: dict[str, dict[int, int]] = {}
    agents: tuple[AgentCost, ...] = ()
