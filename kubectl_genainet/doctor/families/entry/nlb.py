"""Network load balancers of AWS: who makes them, what they send to, when they cut a stream."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotate, annotation, items, kubectl, q, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.load_balancers import (
    AUTO_MODE_CLASS,
    CONTROLLER_CLASS,
    DEFAULT_IDLE_S,
    LISTENER_ATTRIBUTES,
    MAX_IDLE_S,
    PREFIX,
    TARGET_TYPE,
    TYPE,
    by_controller,
    load_balancers,
    only_on_aws,
)
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service


@check(Area.NLB, Severity.WARNING, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_target_type(cluster: Cluster) -> Problems:
    """An NLB sends to instances, not to pods.

    Looks at the annotation service.beta.kubernetes.io/aws-load-balancer-nlb-target-type of LoadBalancer Services
    that the aws-load-balancer-controller makes; absent means `instance` there (EKS Auto Mode: `ip`).

    Why: with `instance` every connection goes to a node port, through kube-proxy and perhaps to another node and
    zone; with `ip` the pods themselves are the targets and the NodePort hop is gone. A warning in front of models, whose
    long streams break with a node that they only pass; else information: requests are answered, with a detour.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/nlb/
    """
    for service, _, lb_class in load_balancers(cluster):
        target = service.metadata.annotations.get(TARGET_TYPE)
        if not by_controller(service, lb_class) or service.metadata.annotations.get(TYPE) == "nlb-ip":
            continue
        if target == "ip" or (target is None and lb_class == AUTO_MODE_CLASS):
            continue
        setting = "absent: the default is instance" if target is None else f"target type {target}"
        yield Problem(
            f"the NLB sends to node ports ({'no target type is set' if target is None else target})",
            service.ref,
            (seen(service.ref, annotation(TARGET_TYPE), target, setting),),
            Remedy("Register the pods themselves.", command=annotate(service.ref, TARGET_TYPE, "ip")),
            severity=None if cluster.serves_models(service) else Severity.INFO,
        )


@check(Area.NLB, Severity.WARNING, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_legacy(cluster: Cluster) -> Problems:
    """A load balancer is left to the in-tree AWS controller.

    Looks at LoadBalancer Services without loadBalancerClass and without the annotation
    service.beta.kubernetes.io/aws-load-balancer-type: external; `nlb` (in-tree NLB) and `nlb-ip` (old spelling) are
    reported too. In manifests without nodes, a Service with annotations of other clouds as well is not checked, and neither
    is one without any of AWS where no controller or device of AWS is installed: the annotations of another Service do not
    say which cloud this one is on. The webhook of the aws-load-balancer-controller (2.5 and later) gives its class to new
    Services: one of manifests without the annotation is not checked, unless they are the whole cluster, without the
    controller or with an older one.

    Why: the in-tree controller gets no features any more, knows no pod targets, and without an annotation makes a
    Classic Load Balancer. A warning in front of models that are served here, and where annotations are set that it
    ignores (target type, listener and load balancer attributes, a scheme of internal); else information: what exists
    works on.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/annotations/#lb-type
    """
    for service, _, lb_class in load_balancers(cluster):
        kind = service.metadata.annotations.get(TYPE)
        if lb_class or kind == "external":
            continue
        if kind is None and (unknown := _taker_unknown(cluster, service)):
            yield NotChecked(str(service.ref), unknown)
            continue
        what = {"nlb": "an in-tree NLB", "nlb-ip": "the old spelling of an NLB with pod targets"}.get(
            kind or "", "a Classic Load Balancer"
        )
        yield Problem(
            f"the type annotation asks for {what}" if kind else f"without the type annotation it becomes {what}",
            service.ref,
            (seen(service.ref, annotation(TYPE), kind, f"{'absent' if kind is None else kind}: {what}"),),
            Remedy(
                "Make a new Service for the aws-load-balancer-controller and move clients over: changing the type of "
                "a living load balancer leaks the old one.",
                yaml=_of_the_controller(service),
            ),
            severity=None if cluster.waits_for_a_model(service) or _ignored(service) else Severity.INFO,
        )


def _ignored(service: Service) -> bool:
    """Whether annotations are set that the in-tree controller does not read, and that change what is made."""
    notes = service.metadata.annotations
    return (
        notes.get(f"{PREFIX}scheme") == "internal"
        or notes.get(TARGET_TYPE) == "ip"
        or any(key in notes for key in (LISTENER_ATTRIBUTES, f"{PREFIX}attributes"))
    )


def _taker_unknown(cluster: Cluster, service: Service) -> str:
    """Why it is not known that the in-tree controller takes a Service without the annotation; "" where it does."""
    if cluster.from_files and not cluster.nodes and (unknown := _cloud_unknown(cluster, service)):
        return f"{unknown}, and no node tells which cloud it is on"
    if not cluster.extent.of_a_cluster:
        taken = "the aws-load-balancer-controller gives its class to new Services where it runs"
        return f"{taken}, and these manifests do not tell"
    if _class_is_given(cluster, service):
        return "the aws-load-balancer-controller is among the manifests, and gives its class to new Services"
    return ""


def _of_the_controller(service: Service) -> str:
    """The YAML of a Service like it that the aws-load-balancer-controller takes."""
    selector = "".join(f"    {q(k)}: {q(v)}\n" for k, v in service.spec.selector.items())
    ports = "".join(
        f"  - {{name: {q(p.name or f'p{p.port}')}, port: {p.port}, targetPort: "
        f"{q(p.target_port) if isinstance(p.target_port, str) else p.target_port or p.port}}}\n"
        for p in service.spec.ports
    )
    return (
        f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {q(service.metadata.name + '-nlb')}\n"
        f"  namespace: {q(service.metadata.namespace)}\n  annotations:\n"
        f"    {TYPE}: external\n    {TARGET_TYPE}: ip\nspec:\n  type: LoadBalancer\n"
        f"  loadBalancerClass: {CONTROLLER_CLASS}\n  selector:\n{selector}  ports:\n{ports}"
    )


_BEFORE_ITS_WEBHOOK = re.compile(r":v?(1\.|2\.[0-4](\.|$))")  # the class is given since 2.5


def _class_is_given(cluster: Cluster, service: Service) -> bool:
    """Whether a Service of manifests is still to be made, and the controller's webhook among them gives it a class then."""
    controller = cluster.running("aws-load-balancer-controller") if cluster.from_files else None
    if controller is None or service.metadata.uid:
        return False
    images = (text(c, "image") for c in items(controller.raw, "spec", "template", "spec", "containers"))
    return not any(_BEFORE_ITS_WEBHOOK.search(image) for image in images)


# Annotations that Contour's manifests carry for whichever cloud they are applied to.
_FOR_ANY_CLOUD = (PREFIX + "backend-protocol",)
_OTHER_CLOUDS = (
    "azure-load-balancer",
    "networking.gke.io/",
    "cloud.google.com/",
    "oci-load-balancer",
    "do-loadbalancer",
)


def _cloud_unknown(cluster: Cluster, service: Service) -> str:
    """Why manifests without nodes do not show that a Service is for AWS; empty where they do."""
    notes = service.metadata.annotations
    if any(word in key for key in notes for word in _OTHER_CLOUDS):
        return "its annotations are for several clouds"
    own = any(key.startswith(PREFIX) and key not in _FOR_ANY_CLOUD for key in notes)
    return "" if own or cluster.aws_installed else "it has no annotation of AWS"


@check(Area.NLB, Severity.ERROR, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_controller(cluster: Cluster) -> Problems:
    """A Service asks for the aws-load-balancer-controller, and it does not run.

    Looks at Services of type external or class service.k8s.aws/nlb, and for a Deployment of the controller with a
    ready replica. EKS Auto Mode brings its own and is not reported.

    Why: nothing makes the load balancer, or keeps its targets up to date when pods move. An error: users reach
    nothing, or pods that are gone.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/aws-load-balancer-controller.html
    """
    controller = cluster.running("aws-load-balancer-controller")
    ready = controller is not None and (
        "status" not in controller.raw or controller.raw["status"].get("readyReplicas", 0) > 0
    )
    for service, _, lb_class in load_balancers(cluster):
        if ready or lb_class == AUTO_MODE_CLASS or not by_controller(service, lb_class):
            continue
        elsewhere = cluster.partial("Deployment") if controller is None else ""
        if elsewhere:
            yield NotChecked(str(service.ref), elsewhere)
            continue
        field = annotation(TYPE) if TYPE in service.metadata.annotations else "spec.loadBalancerClass"
        value = service.metadata.annotations.get(TYPE, lb_class)
        evidence = [seen(service.ref, field, value, "left to the aws-load-balancer-controller")]
        if controller is not None:
            evidence.append(seen(controller.ref, "status.readyReplicas", 0, f"{controller.ref} has no ready replica"))
        yield Problem(
            "the aws-load-balancer-controller does not run",
            service.ref,
            tuple(evidence),
            Remedy(
                "Install or repair the controller.",
                command="helm repo add eks https://aws.github.io/eks-charts && helm upgrade -i "
                "aws-load-balancer-controller eks/aws-load-balancer-controller -n kube-system --set "
                "clusterName=CLUSTER",
            ),
        )


def _terminates_tls(service: Service, port: int) -> bool:
    """Whether the load balancer ends TLS on a port: ssl-cert is set, and ssl-ports names the port or is absent.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/annotations/#ssl-ports
    """
    notes = service.metadata.annotations
    if PREFIX + "ssl-cert" not in notes:
        return False
    names = {p.strip() for p in notes.get(PREFIX + "ssl-ports", "*").split(",")}
    return bool({"*", str(port)} & names or names & {p.name for p in service.spec.ports if p.port == port and p.name})


def _with_idle_timeout(attributes: str) -> str:
    """A listener's attributes with the longest idle timeout; the others are kept."""
    others = [a for a in attributes.split(",") if a and not a.strip().startswith("tcp.idle_timeout.seconds=")]
    return ",".join([*others, f"tcp.idle_timeout.seconds={MAX_IDLE_S}"])


def idle_timeouts(service: Service) -> list[tuple[int, str, int | None]]:
    """(port, annotation, seconds or None for the default) of every TCP port of an NLB's Service."""
    timeouts: list[tuple[int, str, int | None]] = []
    for port in service.spec.ports:
        if port.protocol != "TCP":
            continue
        key = f"{LISTENER_ATTRIBUTES}.TCP-{port.port}"
        match = re.search(r"tcp\.idle_timeout\.seconds=([0-9]+)", service.metadata.annotations.get(key, ""))
        timeouts.append((port.port, key, int(match[1]) if match else None))
    return timeouts


@check(Area.NLB, Severity.WARNING, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_idle_timeout(cluster: Cluster) -> Problems:
    """An NLB in front of a model closes connections that are silent for 350 s.

    Looks at tcp.idle_timeout.seconds in the annotation
    service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-PORT of NLB Services whose pods serve
    models, or pass their tokens on; 350 s or less is reported. TLS listeners cannot be changed and are named as such.

    Why: a long prompt, a queue or a tool call in the middle of a token stream is silence. The NLB forgets the
    connection without telling anyone; the next token is answered by a reset. A warning: only streams with a long
    silence are cut. Information where no server of the model is seen here: a hosted one answers within seconds.

    Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html
    """
    for service, _, lb_class in load_balancers(cluster):
        in_tree = not by_controller(service, lb_class) and service.metadata.annotations.get(TYPE) == "nlb"
        is_nlb = by_controller(service, lb_class) or in_tree
        if not is_nlb or not cluster.streams(service):
            continue
        for port, key, timeout in idle_timeouts(service):
            if _terminates_tls(service, port):
                yield NotChecked(
                    str(service.ref),
                    f"port {port} terminates TLS: the idle timeout of a TLS listener is 350 s and can't be changed",
                )
                continue
            if in_tree:  # attributes of listeners are the controller's: an in-tree NLB keeps the default
                timeout = None
            if timeout is None or timeout <= DEFAULT_IDLE_S:
                yield Problem(
                    f"port {port}: the NLB forgets connections after {timeout or DEFAULT_IDLE_S} s of silence",
                    service.ref,
                    (
                        seen(
                            service.ref,
                            annotation(key),
                            service.metadata.annotations.get(key),
                            f"idle timeout {timeout} s"
                            if timeout
                            else f"without effect on an in-tree NLB: {DEFAULT_IDLE_S} s"
                            if in_tree
                            else f"absent: the default is {DEFAULT_IDLE_S} s",
                        ),
                    ),
                    Remedy("Let the aws-load-balancer-controller make the NLB (see nlb-legacy), then set it there.")
                    if in_tree
                    else Remedy(
                        f"Set it to the longest silence of a stream (60 to {MAX_IDLE_S} s), or send TCP keepalives more "
                        "often than that.",
                        command=annotate(
                            service.ref, key, _with_idle_timeout(service.metadata.annotations.get(key, ""))
                        ),
                    ),
                    severity=None if cluster.waits_for_a_model(service) else Severity.INFO,
                )


@check(Area.NLB, Severity.INFO, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_cross_zone(cluster: Cluster) -> Problems:
    """An NLB with pod targets in fewer zones than nodes, and cross-zone balancing off.

    Looks at NLB Services with target type ip whose ready endpoints are all in one zone while the nodes span several,
    without load_balancing.cross_zone.enabled=true in aws-load-balancer-attributes.

    Why: the NLB has an address in each zone; without cross-zone balancing the addresses in zones without a target
    answer nobody (they are taken out of DNS only while they are unhealthy). Information: clients are served as long
    as DNS leads them to a zone with targets.

    Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/network/network-load-balancers.html
    """
    zones = {cluster.zone(n.name) for n in cluster.nodes} - {""}
    for service, _, lb_class in load_balancers(cluster):
        attributes = service.metadata.annotations.get(PREFIX + "attributes", "")
        if not by_controller(service, lb_class) or "load_balancing.cross_zone.enabled=true" in attributes:
            continue
        if not service.spec.ports:
            continue
        backends = [b for b in cluster.snapshot.backends(service, service.spec.ports[0]) if b.ready and b.node]
        used = {cluster.zone(b.node) for b in backends} - {""}
        if len(used) == 1 and len(zones) > 1:
            yield Problem(
                f"all targets are in {next(iter(used))}, the nodes are in {len(zones)} zones",
                service.ref,
                (
                    seen(
                        service.ref,
                        annotation(PREFIX + "attributes"),
                        attributes or None,
                        "cross-zone balancing is off by default",
                    ),
                ),
                Remedy(
                    "Switch cross-zone balancing on, or spread the pods over the zones.",
                    command=annotate(service.ref, PREFIX + "attributes", "load_balancing.cross_zone.enabled=true"),
                ),
            )


PROXY_PROTOCOL = PREFIX + "proxy-protocol"


@check(Area.NLB, Severity.ERROR, needs=("Service",), applies=only_on_aws, own_namespace=True)
def nlb_proxy_protocol(cluster: Cluster) -> Problems:
    """An NLB sends the PROXY protocol to a server that does not speak it.

    Looks at the annotation aws-load-balancer-proxy-protocol (or proxy_protocol_v2.enabled among the target group's
    attributes) of NLB Services that lead to a known model server or vector database. Routers and gateways, which can be
    told to expect it, are left out. An error: every request fails.

    Why: the connection begins with a binary header instead of a request; the server answers 400 or closes.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/annotations/#proxy-protocol-v2
    """
    for service, _, _ in load_balancers(cluster):
        notes = service.metadata.annotations
        attributes = notes.get(PREFIX + "target-group-attributes", "")
        by_attribute = "proxy_protocol_v2.enabled=true" in attributes
        if PROXY_PROTOCOL not in notes and not by_attribute:
            continue
        key = PROXY_PROTOCOL if PROXY_PROTOCOL in notes else PREFIX + "target-group-attributes"
        roles = (Role.MODEL_SERVER, Role.VECTOR_DATABASE)
        server = next(
            (w for w in cluster.workloads_of(service) if cluster.role(w) in roles and cluster.stack(w) is not None),
            None,
        )
        if server is None:
            continue
        stack = cluster.stack(server)
        yield Problem(
            f"the NLB sends the PROXY protocol, and {stack.name if stack else server.ref} does not speak it",
            service.ref,
            (
                seen(service.ref, annotation(key), notes[key], "each connection begins with a PROXY header"),
                seen(server.ref, server.field(), stack.name if stack else None, f"{server.ref} serves HTTP"),
            ),
            Remedy("Take the annotation away.", command=kubectl(service.ref, "annotate", f"{key}-")),
        )
