"""The agents in the cluster: which pod serves which node, how to reach it."""

from __future__ import annotations

import base64
import binascii
import os
import socket
from collections.abc import Callable

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.base import AGENT, CAPABILITY, NAMESPACE, VERSION_LABEL
from kubectl_genainet.kube.agents.portforward import ForwardedSocket, dial_pod
from kubectl_genainet.kube.agents.record import HISTORY_CAPABILITY, OBJECTS, OBJECTS_PORT
from kubectl_genainet.kube.client import KubeClient, connect
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.resources import POD, Served
from kubectl_genainet.kube.snapshot import list_objects
from kubectl_genainet.model.kube import KubeObject, Pod
from kubectl_genainet.model.packet import AGENT_PORT
from kubectl_genainet.model.user import NOBODY_ELSE, Impersonation
from kubectl_genainet.shell import sh


class Agent(msgspec.Struct, frozen=True):
    """The agent of one node. `version` is that of the client that deployed it."""

    node: str
    pod: str
    namespace: str
    ready: bool
    version: str
    raw: KubeObject


def find_agents(client: KubeClient, namespace: str = NAMESPACE) -> tuple[Agent, ...]:
    """The agents' pods, sorted by node; one that is being replaced counts only where there is no other."""
    selector = (("labelSelector", f"app.kubernetes.io/name={AGENT}"),)
    objects, _ = list_objects(client, Served(POD, "v1"), namespace, selector)
    by_node: dict[str, Agent] = {}
    for obj in sorted(objects, key=lambda o: not o.metadata.get("deletionTimestamp")):
        pod = obj.decode(Pod)
        version = pod.metadata.labels.get(VERSION_LABEL, "")
        agent = Agent(pod.spec.node_name, pod.metadata.name, namespace, pod.ready, version, obj)
        if pod.spec.node_name:
            by_node[agent.node] = agent
    return tuple(by_node[node] for node in sorted(by_node))


def read_capability(client: KubeClient, namespace: str = NAMESPACE, name: str = CAPABILITY) -> str:
    """The token that agents ask for. Raises GenainetError with what to do where it is missing or may not be read."""
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    try:
        secret = client.json("GET", path, doing=f"read the agents' capability (Secret {namespace}/{name})")
        return base64.b64decode(secret["data"]["token"]).decode().strip()
    except ApiError as error:
        if error.status == 404 and name == HISTORY_CAPABILITY:
            raise GenainetError(
                f"nothing is recorded: there are no recorders in namespace {namespace}",
                "`kubectl genainet deploy --record` runs them.",
            ) from None
        if error.status == 404:
            raise GenainetError(
                f"there are no agents in namespace {namespace}", "Run `kubectl genainet deploy` first."
            ) from None
        if error.status == 403:
            raise GenainetError(
                f"you may not use the agents: {error.message}",
                f"It needs the ClusterRole {name} in namespace {namespace}: `kubectl -n {sh(namespace)} "
                f"create rolebinding NAME --clusterrole {name} --user YOU`",
            ) from None
        raise
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        raise GenainetError(
            f"the Secret {namespace}/{name} holds no token", "Delete it, and run `kubectl genainet deploy` again."
        ) from None


def dialler(client: KubeClient, agent: Agent) -> Callable[[], ForwardedSocket]:
    """What a stream to an agent begins with: a connected socket at each call."""
    return lambda: dial_pod(client, agent.namespace, agent.pod, AGENT_PORT)


def _unready(agent: Agent) -> Callable[[], ForwardedSocket]:
    """For an agent that is not ready: its node fails at once, and by name; one that was left out would pass for a healthy one."""

    def dial() -> ForwardedSocket:
        raise GenainetError(f"the agent on node {agent.node} is not ready", "`kubectl genainet status` says why.")

    return dial


def agent_namespace() -> str:
    """The namespace that live commands look for agents in: $GENAINET_NAMESPACE, else deploy's default."""
    return os.environ.get("GENAINET_NAMESPACE") or NAMESPACE


def objects_recorder(
    *, context: str = "", kubeconfig: str = "", user: Impersonation = NOBODY_ELSE
) -> tuple[dict[str, Callable[[], socket.socket]], str] | None:
    """A dialler for the recorder of the cluster's objects, and the token that it asks for; None where none is ready."""
    client, namespace = connect(context=context, kubeconfig=kubeconfig, user=user), agent_namespace()
    token = read_capability(client, namespace, HISTORY_CAPABILITY)
    selector = (("labelSelector", f"app.kubernetes.io/name={OBJECTS}"),)
    pods, _ = list_objects(client, Served(POD, "v1"), namespace, selector)
    ready = next((pod for pod in (obj.decode(Pod) for obj in pods) if pod.ready), None)
    if ready is None:
        return None
    name = ready.metadata.name
    return {OBJECTS: lambda: dial_pod(client, namespace, name, OBJECTS_PORT)}, token


def cluster_agents(
    *, context: str = "", kubeconfig: str = "", user: Impersonation = NOBODY_ELSE, capability: str = CAPABILITY
) -> tuple[dict[str, Callable[[], socket.socket]], str]:
    """A dialler for every node that has an agent, and the token that agents ask for: that of the Secret `capability`. Where the
    agent is not ready the dialler says so.

    Raises GenainetError with what to do where there is none, or where the user may not use them.
    """
    if user.name or user.groups:
        raise GenainetError(
            "agents can't be reached with --as: the connection to their pods carries your own credentials",
            "Leave --as out for live commands; explain, matrix and doctor take it.",
        )
    client, namespace = connect(context=context, kubeconfig=kubeconfig, user=user), agent_namespace()
    token = read_capability(client, namespace, capability)
    agents = find_agents(client, namespace)
    if not any(agent.ready for agent in agents):
        raise GenainetError(
            f"none of the {len(agents)} agents in namespace {namespace} is ready",
            "`kubectl genainet status` says why.",
        )
    return {a.node: dialler(client, a) if a.ready else _unready(a) for a in agents}, token
