"""A device's queue had no room: what limits it, and where that limit was asked for."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.kernel import QUEUE_FULL
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.node import Device, Queue
from kubectl_genainet.model.units import quantity, rate_text
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, observed

QUEUE_REASONS = ("QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED")


def queue_full(context: DropContext) -> DropExplanation | None:
    """None where the node did not say what queue the device has: the reason's own sentence is all that is known then.

    The CNI's bandwidth plugin holds what goes to a pod at the node's end of its veth pair, and what comes from it at an ifb
    device. Source: plugins/meta/bandwidth (containernetworking/plugins).
    """
    device = _device(context)
    if device is None or device.queue is None:
        return None
    queue = device.queue
    full = f"the queue of {device.name} ({_words(queue)}) in {context.place} has no room"
    if not queue.rate:
        return DropExplanation(QUEUE_FULL, f"{full}: more is sent than the device takes", Certainty.OBSERVED)
    held = observed(f"{device.name} sends by {_words(queue)}", context.event.node)
    full += ": more is sent than that rate lets through"
    held_back = _held_back(context, device)
    if held_back is None:
        return DropExplanation(QUEUE_FULL, full, Certainty.OBSERVED, evidence=(held,))
    return _asked_for(full, held, queue, *held_back)


def _asked_for(full: str, held: Evidence, queue: Queue, pod: Pod, annotation: str) -> DropExplanation:
    """Whether the pod's annotation, or something else, asks for the queue's rate."""
    value = pod.metadata.annotations.get(annotation)
    name = f"pod {pod.metadata.namespace}/{pod.metadata.name}"
    said = f"{name} has no annotation {annotation}" if value is None else f"{name} has {annotation}: {value}"
    field = f"metadata.annotations[{annotation}]"
    evidence = (held, Evidence(said, Certainty.ASSUMED, pod.ref, field, value))
    if value is not None and int(quantity(value)) // 8 == queue.rate:
        text = f"{full}, which the annotation {annotation}: {value} of {name} asks for: raise it there, and start the pod anew"
        return DropExplanation(QUEUE_FULL, text, Certainty.DERIVED, evidence=evidence)
    text = f"{full}, which no annotation of {name} asks for: look at the network plugin's configuration on the node"
    return DropExplanation(QUEUE_FULL, text, Certainty.OBSERVED, evidence=evidence)


def _device(context: DropContext) -> Device | None:
    event = context.event
    netns = context.identity.namespaces.get((event.node, event.netns))
    devices = netns.devices if netns is not None else ()
    return next((device for device in devices if device.name == event.device), None)


def _words(queue: Queue) -> str:
    waiting = f", at most {queue.limit:,} bytes waiting" if queue.limit else ""
    return f"{queue.kind}, {rate_text(queue.rate)}{waiting}" if queue.rate else queue.kind


def _held_back(context: DropContext, device: Device) -> tuple[Pod, str] | None:
    """The pod of this node whose packets such a device of the node holds back, and the annotation that asks for it."""
    if not context.identity.is_host(context.event.node, context.event.netns):
        return None
    snapshot, flow = context.identity.snapshot, context.flow
    match device.kind:
        case "veth":
            pod, annotation = snapshot.pod_at(flow.dst), "kubernetes.io/ingress-bandwidth"
        case "ifb":
            pod, annotation = snapshot.pod_at(flow.src), "kubernetes.io/egress-bandwidth"
        case _:
            return None
    return (pod, annotation) if pod is not None and pod.spec.node_name == context.event.node else None
