"""Clusters to examine: the chatbot application on EKS, GKE and kubeadm, sound in every respect."""

from __future__ import annotations

from tests.unit.doctor.worlds.policies import policy
from tests.unit.doctor.worlds.world import (
    NS,
    Builder,
    Raw,
    World,
    config_map,
    container,
    daemon,
    http_probe,
    ingress,
    meta,
    node,
    proxy_conf,
)

COREFILE = """.:53 {
    errors
    health { lameduck 5s }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa { pods insecure }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
"""


def chatbot(build: Builder, on: list[str], gpu: list[str]) -> None:
    """The reference application: chatbot-ui → rag-app and the model, rag-app → qdrant and the model."""
    name = "app.kubernetes.io/name"
    ui = container(
        "ui",
        "ghcr.io/acme/chatbot-ui:1.4",
        8080,
        readinessProbe=http_probe("/healthz", 8080),
        env=[{"name": "RAG_URL", "value": "http://rag-app"}, {"name": "MODEL_URL", "value": "http://my-llama-svc/v1"}],
    )
    rag = container(
        "rag",
        "ghcr.io/acme/rag-app:2.0",
        80,
        readinessProbe=http_probe("/healthz", 80),
        env=[
            {"name": "QDRANT_URL", "value": "http://qdrant:6333"},
            {"name": "OPENAI_BASE_URL", "value": "http://my-llama-svc.chatbot.svc/v1"},
        ],
    )
    model = container(
        "vllm",
        "vllm/vllm-openai:v0.8.4",
        8080,
        args=["--model", "/models/my-llama-finetuned", "--port", "8080"],
        readinessProbe=http_probe("/health", 8080),
        startupProbe=http_probe("/health", 8080, 10, 120),
        livenessProbe=http_probe("/health", 8080),
        resources={"limits": {"nvidia.com/gpu": "1"}},
    )
    db = container("qdrant", "qdrant/qdrant:v1.13.4", 6333, readinessProbe=http_probe("/readyz", 6333))
    build.controller("Deployment", "chatbot-ui", NS, {name: "chatbot-ui"}, {"containers": [ui]}, on[:2])
    build.controller("Deployment", "rag-app", NS, {name: "rag-app"}, {"containers": [rag]}, on[:2])
    build.controller("Deployment", "my-llama-finetuned", NS, {name: "my-llama-finetuned"}, {"containers": [model]}, gpu)
    build.controller("StatefulSet", "qdrant", NS, {name: "qdrant"}, {"containers": [db]}, on[:1])
    near = {"trafficDistribution": "PreferClose"}
    port = {"name": "http", "protocol": "TCP"}
    build.service("chatbot-ui", NS, {name: "chatbot-ui"}, [{**port, "port": 80, "targetPort": "http"}], **near)
    build.service("rag-app", NS, {name: "rag-app"}, [{**port, "port": 80, "targetPort": 80}], **near)
    build.service("my-llama-svc", NS, {name: "my-llama-finetuned"}, [{**port, "port": 80, "targetPort": 8080}], **near)
    build.service("qdrant", NS, {name: "qdrant"}, [{**port, "port": 6333, "targetPort": 6333}], **near)
    build.world.add(
        policy("rag-app-ingress-policy", "rag-app", 80, "chatbot-ui"),
        policy("my-llama-ingress-policy", "my-llama-finetuned", 8080, "chatbot-ui", "rag-app"),
        policy("qdrant-ingress-policy", "qdrant", 6333, "rag-app"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": meta(NS, labels={"kubernetes.io/metadata.name": NS})},
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": meta("kube-system", labels={"kubernetes.io/metadata.name": "kube-system"}),
        },
    )


def dns(build: Builder, deployment: str, on: list[str]) -> None:
    labels = {"k8s-app": "kube-dns"}
    main = "coredns" if deployment == "coredns" else "kubedns"
    pod = container(
        main,
        f"registry.k8s.io/{deployment}:v1.11.4",
        resources={"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
    )
    pod["ports"] = [
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
    ]
    build.controller("Deployment", deployment, "kube-system", labels, {"containers": [pod], "dnsPolicy": "Default"}, on)
    build.service(
        "kube-dns",
        "kube-system",
        labels,
        [
            {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"},
        ],
    )
    scaler = container("autoscaler", "registry.k8s.io/cpa/cluster-proportional-autoscaler:1.8.9")
    build.controller(
        "Deployment", "dns-autoscaler", "kube-system", {"k8s-app": "dns-autoscaler"}, {"containers": [scaler]}, on[:1]
    )
    build.world.add(config_map("coredns", {"Corefile": COREFILE}))


def eks() -> World:
    """EKS 1.31: Amazon VPC CNI with its policy agent, an NLB with pod targets, GPU nodes in two zones."""
    world = World()
    nodes = {
        "ip-10-0-1-10.ec2.internal": "10.0.1.10",
        "ip-10-0-2-10.ec2.internal": "10.0.2.10",
        "ip-10-0-1-20.ec2.internal": "10.0.1.20",
        "ip-10-0-2-20.ec2.internal": "10.0.2.20",
    }
    names = list(nodes)
    for index, (name, ip) in enumerate(nodes.items()):
        zone, gpu = f"us-east-1{'ab'[index % 2]}", index >= 2
        more: Raw = {"nvidia.com/gpu": "1"} if gpu else {}
        world.add(
            node(
                name,
                ip,
                zone=zone,
                kind="g5.2xlarge" if gpu else "m5.xlarge",
                provider=f"aws:///{zone}/i-0abc{index}",
                labels={"eks.amazonaws.com/nodegroup": "gpu" if gpu else "general"},
                cores=8 if gpu else 4,
                allocatable=more,
            )
        )
        if gpu:
            world.get("Node", name, "")["spec"]["taints"] = [
                {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "true"}
            ]
    build = Builder(world, nodes, "10.0.7")
    agent = container(
        "aws-eks-nodeagent",
        "602401143452.dkr.ecr.us-east-1.amazonaws.com/amazon/aws-network-policy-agent:v1.1.6",
        args=["--enable-ipv6=false", "--enable-network-policy=true"],
    )
    daemon(
        build, "aws-node", "602401143452.dkr.ecr.us-east-1.amazonaws.com/amazon-k8s-cni:v1.19.2", names, beside=[agent]
    )
    daemon(build, "kube-proxy", "602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/kube-proxy:v1.31.2", names)
    world.spec("DaemonSet", "aws-node", "kube-system")["containers"][0]["env"] = [
        {"name": "WARM_ENI_TARGET", "value": "1"},
        {"name": "ENABLE_PREFIX_DELEGATION", "value": "false"},
        {"name": "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "value": "false"},
    ]
    world.add(config_map("kube-proxy-config", {"config": proxy_conf()}))
    dns(build, "coredns", names[:2])
    build.controller(
        "Deployment",
        "aws-load-balancer-controller",
        "kube-system",
        {"app.kubernetes.io/name": "aws-load-balancer-controller"},
        {"containers": [container("controller", "public.ecr.aws/eks/aws-load-balancer-controller:v2.11.0")]},
        names[:2],
    )
    chatbot(build, names[:2], names[2:])
    world.get("Namespace", NS, "")["metadata"]["labels"]["elbv2.k8s.aws/pod-readiness-gate-inject"] = "enabled"
    front = world.get("Service", "chatbot-ui")
    front["spec"] |= {"type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb"}
    front["status"]["loadBalancer"] = {
        "ingress": [{"hostname": "k8s-chatbot-chatbotu-0a1.elb.us-east-1.amazonaws.com"}]
    }
    prefix = "service.beta.kubernetes.io/aws-load-balancer-"
    front["metadata"]["annotations"] = {
        prefix + "type": "external",
        prefix + "nlb-target-type": "ip",
        prefix + "healthcheck-protocol": "http",
        prefix + "healthcheck-path": "/healthz",
        prefix + "healthcheck-port": "8080",
        prefix + "listener-attributes.TCP-80": "tcp.idle_timeout.seconds=3600",
    }
    return world


def kubeadm() -> World:
    """kubeadm 1.31: Calico without encapsulation, ingress-nginx, three nodes in one room."""
    world = World()
    nodes = {"cp1": "192.168.10.11", "worker1": "192.168.10.12", "worker2": "192.168.10.13"}
    names = list(nodes)
    for index, (name, ip) in enumerate(nodes.items()):
        gpu: Raw = {"nvidia.com/gpu": "2"} if index else {}
        world.add(
            node(
                name,
                ip,
                zone="room1",
                kind="",
                provider="",
                labels={"nvidia.com/gpu.present": "true"} if gpu else {},
                pods=110,
                cores=16,
                cidr=f"10.244.{index}.0/24",
                allocatable=gpu,
            )
        )
        del world.get("Node", name, "")["metadata"]["labels"]["node.kubernetes.io/instance-type"]
    build = Builder(world, nodes, "10.244.7")
    daemon(build, "calico-node", "docker.io/calico/node:v3.29.1", names)
    daemon(build, "kube-proxy", "registry.k8s.io/kube-proxy:v1.31.4", names)
    world.add(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPPool",
            "metadata": meta("default-ipv4-ippool"),
            "spec": {"cidr": "10.244.0.0/16", "vxlanMode": "Never", "ipipMode": "Never", "natOutgoing": True},
        },
        config_map("kubeadm-config", {"ClusterConfiguration": "kind: ClusterConfiguration\n"}),
        config_map("kube-proxy", {"config.conf": proxy_conf(iptables="minSyncPeriod: 1s;syncPeriod: 30s")}),
        config_map("kubelet-config", {"kubelet": "clusterDNS:\n- 10.100.0.10\nclusterDomain: cluster.local\n"}),
        config_map("calico-config", {"veth_mtu": "0"}),
    )
    dns(build, "coredns", names[1:])
    chatbot(build, names[1:], names[1:])
    world.add({"apiVersion": "v1", "kind": "Namespace", "metadata": meta("ingress-nginx")})
    build.controller(
        "Deployment",
        "ingress-nginx-controller",
        "ingress-nginx",
        {"app.kubernetes.io/name": "ingress-nginx"},
        {"containers": [container("controller", "registry.k8s.io/ingress-nginx/controller:v1.12.0")]},
        names[1:2],
    )
    world.add(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": meta("nginx"),
            "spec": {"controller": "k8s.io/ingress-nginx"},
        },
        ingress("chat", "chat.acme.test", "chatbot-ui", 80),
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("chat-tls", NS), "type": "kubernetes.io/tls"},
    )
    return world


def gke() -> World:
    """GKE 1.31 with Dataplane V2: kube-dns, a Gateway with an InferencePool for the model."""
    world = World()
    nodes = {"gke-pool-1": "10.128.0.2", "gke-pool-2": "10.128.0.3"}
    names = list(nodes)
    for name, ip in nodes.items():
        world.add(
            node(
                name,
                ip,
                zone="europe-west4-a",
                kind="g2-standard-8",
                provider=f"gce://acme/europe-west4-a/{name}",
                labels={"cloud.google.com/gke-nodepool": "gpu", "cloud.google.com/gke-accelerator": "nvidia-l4"},
                pods=110,
                cores=8,
                cidr=f"10.8.{names.index(name)}.0/24",
                allocatable={"nvidia.com/gpu": "1"},
            )
        )
    build = Builder(world, nodes, "10.8.0")
    daemon(build, "anetd", "gke.gcr.io/cilium/cilium:v1.15", names)
    world.add(config_map("cilium-config", {"routing-mode": "native", "kube-proxy-replacement": "strict"}))
    dns(build, "kube-dns", names)
    chatbot(build, names, names)
    epp = container("epp", "registry.k8s.io/gateway-api-inference-extension/epp:v1.0.1", 9002)
    build.controller("Deployment", "my-llama-epp", NS, {"app": "my-llama-epp"}, {"containers": [epp]}, names[:1])
    build.service("my-llama-epp", NS, {"app": "my-llama-epp"}, [{"name": "grpc", "port": 9002, "targetPort": 9002}])
    group = "gateway.networking.k8s.io"
    accepted = [{"type": t, "status": "True", "reason": t, "message": ""} for t in ("Accepted", "Programmed")]
    world.add(
        {
            "apiVersion": f"{group}/v1",
            "kind": "Gateway",
            "metadata": meta("inference", NS),
            "spec": {
                "gatewayClassName": "gke-l7-regional-external-managed",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
            "status": {
                "conditions": accepted,
                "listeners": [
                    {
                        "name": "http",
                        "conditions": [
                            {"type": "Accepted", "status": "True"},
                            {"type": "ResolvedRefs", "status": "True"},
                        ],
                    }
                ],
            },
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "HTTPRoute",
            "metadata": meta("my-llama", NS),
            "spec": {
                "parentRefs": [{"name": "inference"}],
                "rules": [
                    {
                        "backendRefs": [
                            {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "my-llama"}
                        ],
                        "timeouts": {"request": "3600s"},
                    }
                ],
            },
            "status": {
                "parents": [
                    {
                        "parentRef": {"name": "inference"},
                        "conditions": [
                            {"type": "Accepted", "status": "True"},
                            {"type": "ResolvedRefs", "status": "True"},
                        ],
                    }
                ]
            },
        },
        {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": meta("my-llama", NS),
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": "my-llama-finetuned"}},
                "targetPorts": [{"number": 8080}],
                "endpointPickerRef": {"name": "my-llama-epp", "port": {"number": 9002}},
            },
        },
    )
    return world


def training(world: World) -> None:
    """Two p4d nodes in one placement group with EFA, and an MPIJob on them; for the EKS world."""
    nodes = {}
    for index in range(2):
        name, ip = f"ip-10-0-3-{index + 10}.ec2.internal", f"10.0.3.{index + 10}"
        nodes[name] = ip
        world.add(
            node(
                name,
                ip,
                zone="us-east-1a",
                kind="p4d.24xlarge",
                provider=f"aws:///us-east-1a/i-0ddd{index}",
                labels={"topology.k8s.aws/network-node-layer-3": "nn-0c3"},
                cores=96,
                allocatable={"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4", "hugepages-2Mi": "10Gi"},
            )
        )
    build = Builder(world, nodes, "10.0.8")
    for kind, name in (("DaemonSet", "aws-node"), ("DaemonSet", "kube-proxy")):
        world.get(kind, name, "kube-system")["status"] = {"desiredNumberScheduled": 6, "numberReady": 6}
    daemon(
        build,
        "aws-efa-k8s-device-plugin",
        "602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/aws-efa-k8s-device-plugin:v0.5.7",
        list(nodes),
    )
    devices = {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4", "hugepages-2Mi": "5120Mi"}
    worker = container(
        "worker",
        "public.ecr.aws/hpc-cloud/nccl-tests:latest",
        command=["torchrun", "train.py"],
        resources={"limits": devices, "requests": devices},
        env=[{"name": "FI_PROVIDER", "value": "efa"}, {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}],
    )
    build.controller("StatefulSet", "llama-train", NS, {"app": "llama-train"}, {"containers": [worker]}, list(nodes))
