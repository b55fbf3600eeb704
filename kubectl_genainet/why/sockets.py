"""Why TCP, or the look-up of a socket, freed a packet."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.sockets import (
    CLOSED_PORT,
    LATE_ANSWER,
    REPEATED_SEGMENT,
    REPLY_NOT_TRANSLATED,
    UNKNOWN_CONNECTION,
)
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.reasons import NO_REASON, function_of
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, assumed, observed, sentence
from kubectl_genainet.why.redirect import own_redirect


def no_socket(context: DropContext) -> DropExplanation:
    """The packet arrived and no socket takes it: a closed port, a connection that is not known here, or an answer that
    its client does not wait for (any more)."""
    if context.request is not None and context.request != context.event.flow:
        return _unwanted_answer(context)
    if context.established and context.flow.protocol is Protocol.TCP and context.event.tunnel is None:
        return unknown_connection(context)
    statement = f"nothing listens on {context.flow.protocol.value} port {context.flow.dport} in {context.place}"
    evidence = [observed(f"kernel reason {context.event.reason}", context.event.node)]
    redirected = own_redirect(context)
    if redirected is not None:
        return redirected
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if pod is not None and pod.ports:
        declared = sorted({p.container_port for p in pod.ports if p.protocol == context.flow.protocol.value})
        if declared and context.flow.dport not in declared:
            listed = ", ".join(map(str, declared))
            statement += f"; its containers declare {listed}: is the Service's targetPort right?"
            evidence.append(assumed(f"containerPorts of the pod: {listed}"))
    return DropExplanation(CLOSED_PORT, statement, Certainty.OBSERVED, evidence=tuple(evidence))


def _unwanted_answer(context: DropContext) -> DropExplanation:
    """An answer reached its client's namespace, and no socket there waits for it."""
    answer = f"an answer from {context.flow.source} reached {context.place}, where no socket waits for it"
    evidence: tuple[Evidence, ...] = (observed(f"kernel reason {context.event.reason}", context.event.node),)
    asked = context.asked
    if asked is not None and (asked.dst, asked.dport) != (context.flow.src, context.flow.sport):
        statement = (
            f"{answer}: the client had asked {asked.destination}, and the translation was not undone on the way back"
        )
        host = context.identity.host_of(context.event.node)
        invalid = context.identity.grown(context.event.node, host.inode, "conntrack_invalid") if host is not None else 0
        if invalid > 0:
            statement += (
                "; connection tracking translates no packet that it takes for INVALID"
                " (outside the window, a bad checksum)"
            )
            evidence = (*evidence, observed(f"conntrack -S: invalid grew by {invalid}", context.event.node))
        return DropExplanation(REPLY_NOT_TRANSLATED, statement, Certainty.DERIVED, evidence=evidence)
    if asked is None and context.identity.is_endpoint(context.flow.src, context.flow.sport, context.flow.protocol):
        statement = (
            f"{answer}: the client had closed it, or asked a Service whose translation was not undone on the way back"
        )
    else:
        statement = f"{answer}: the client had closed it"
    return DropExplanation(LATE_ANSWER, statement, Certainty.DERIVED, evidence=evidence)


def unknown_connection(context: DropContext) -> DropExplanation:
    """A segment of a connection reached a namespace that has no such connection."""
    statement = (
        f"a segment of a running connection reached {context.place}, whose TCP has no such connection: it was closed or lost "
        "there, or the connection's entry in a node's connection table was gone and the Service's rules chose anew"
    )
    return DropExplanation(
        UNKNOWN_CONNECTION,
        statement,
        Certainty.DERIVED,
        evidence=(observed(f"kernel reason {context.event.reason}, no SYN", context.event.node),),
    )


def out_of_place(context: DropContext) -> DropExplanation | None:
    """TCP_FLAGS in the server's namespace: a segment without SYN met the listening socket (tcp_rcv_state_process)."""
    towards_server = context.request is None or context.request == context.event.flow
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if context.established and towards_server and pod is not None and context.flow.dst in pod.ips:
        return unknown_connection(context)
    return sentence(context)


def second_syn(context: DropContext) -> DropExplanation | None:
    """TCP_INVALID_SYN: a SYN for a connection that is open here. Where it is the answer to a SYN, the client has that already
    (tcp_validate_incoming)."""
    tcp = context.event.tcp
    if tcp is None or not tcp.is_ack:
        return sentence(context)
    statement = (
        f"a SYN-ACK came again to {context.place}, where the connection is open: the server had not seen the client's ACK yet, "
        "or a repeated SYN was answered"
    )
    return DropExplanation(REPEATED_SEGMENT, statement, Certainty.DERIVED)


def no_socket_perhaps(context: DropContext) -> DropExplanation | None:
    """A kernel without reasons (before 5.17) freed a datagram, or the packet of a connection, where it looks for a socket.

    One with reasons that gives none here (NOT_SPECIFIED) has freed a segment that a half-open or closing connection had no
    use for, as a repeated SYN (tcp_check_req). A reason that the kernel gives says more than the place.
    """
    if context.event.reason not in NO_REASON:
        return sentence(context)
    if context.event.reason:
        if context.flow.protocol is not Protocol.TCP:
            return None
        statement = (
            f"TCP of {context.place} had no use for the segment and gives no reason, as with a repeated SYN of a connection that "
            "is half open: its SYN-ACK was lost, or is late"
        )
        return DropExplanation(REPEATED_SEGMENT, statement, Certainty.DERIVED)
    certain = no_socket(context)
    statement = (
        f"most likely {certain.explanation}: this kernel gives no reason, and {function_of(context.event.location)}"
        " frees packets with a wrong checksum, or by an IPsec policy, as well"
    )
    return DropExplanation(
        certain.diagnosis, statement, Certainty.ASSUMED, evidence=tuple(e for e in certain.evidence[1:])
    )
