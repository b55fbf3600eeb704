"""The kubeconfig: which context, and how its user logs in."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet.deadline import in_time
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.credentials import LOGIN_S, CredentialPlugin, PluginSettings, RenewedCredential, is_terminal


def kubeconfig_paths(kubeconfig: str) -> list[Path]:
    """--kubeconfig, else $KUBECONFIG (a list), else ~/.kube/config."""
    if kubeconfig:
        return [Path(kubeconfig)]
    listed = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return [Path(p).expanduser() for p in listed] or [Path.home() / ".kube" / "config"]


class Kubeconfig(msgspec.Struct, frozen=True):
    """The merged kubeconfig as the official library keeps it, and the files it came from."""

    node: Any
    contexts: tuple[dict[str, Any], ...]
    current: str
    files: tuple[Path, ...]


def read_kubeconfig(kubeconfig: str) -> Kubeconfig:
    import yaml  # the agent's image has none, and no kubeconfig
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigMerger

    from kubectl_genainet.kube.yaml_text import parse_text

    paths = kubeconfig_paths(kubeconfig)
    files = tuple(p for p in paths if p.is_file())
    if not files:
        raise GenainetError(
            f"there is no kubeconfig: {', '.join(map(str, paths))} {'does' if len(paths) == 1 else 'do'} not exist",
            "Give --kubeconfig FILE or set KUBECONFIG; --lab, --manifests and --from work without a cluster.",
        )
    for file in files:  # the library reads whatever depth and however many aliases
        try:
            parse_text(str(file), file.read_text(errors="replace"), lambda _: None)
        except OSError as error:
            raise GenainetError(f"the kubeconfig {file} can't be read: {error.strerror}") from None
    try:
        node = KubeConfigMerger(os.pathsep.join(map(str, files))).config
        content = node.value
        listed = [getattr(c, "value", c) for c in content.get("contexts") or ()]
        contexts = tuple(c for c in listed if isinstance(c, dict) and c.get("name"))
        return Kubeconfig(node, contexts, str(content.get("current-context") or ""), files)
    except (ConfigException, yaml.YAMLError, AttributeError, TypeError, OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise GenainetError(f"the kubeconfig {files[0]} can't be read: {problem}") from None


def context_of(content: Kubeconfig, context: str) -> dict[str, Any]:
    name = context or content.current
    if not name:
        raise GenainetError(
            f"the kubeconfig {content.files[0]} sets no current context",
            "Choose one with --context or `kubectl config use-context NAME`.",
        )
    for entry in content.contexts:
        if entry["name"] == name:
            return entry
    from kubectl_genainet.model.target import not_found

    raise not_found("context", name, [c["name"] for c in content.contexts])


def namespace_of(entry: Mapping[str, Any]) -> str:
    return str(_mapping(entry.get("context")).get("namespace") or "default")


def load(configuration: Any, content: Kubeconfig, context: str, *, within_s: float, may_ask: bool) -> None:
    """Fills `configuration` with server, certificates and credentials; runs the credential plugin if there is one. `may_ask`:
    it may ask somebody at the terminal.

    Raises GenainetError for what can't be used, and where the credentials are not there in time.
    """
    from kubernetes.config.kube_config import KubeConfigLoader

    begun = time.monotonic()
    entry = context_of(content, context)
    user = _mapping(_member(content, "users", str(_mapping(entry.get("context")).get("user") or "")).get("user"))
    credential = None
    if (plugin := _plugin(content, entry, user)) is not None:
        credential = RenewedCredential(plugin, within_s, at_terminal=may_ask and is_terminal())
        _as_user(user, credential)
    _verify_identity_provider(user)
    left_s = min(LOGIN_S, within_s - (time.monotonic() - begun))
    try:
        loader = KubeConfigLoader(content.node, context, config_base_path=None)
        in_time(lambda: loader.load_and_set(configuration), left_s, name="kubeconfig")
    except TimeoutError:
        raise GenainetError(
            f"the kubeconfig's context {context!r} can't be used: its user's credentials were not there within {left_s:g} s",
            "Log in again, or choose another --context.",
        ) from None
    except Exception as error:  # of the library's, urllib3's, an identity provider's client
        problem = " ".join(str(error).split()) or type(error).__name__
        raise GenainetError(f"the kubeconfig's context {context!r} can't be used: {problem}") from None
    if credential is not None and credential.now().token:
        renewed = credential

        def renew(of: Any) -> None:
            of.api_key["BearerToken"] = f"Bearer {renewed.now().token}"

        configuration.refresh_api_key_hook = renew


def _mapping(value: object) -> dict[str, Any]:
    """A part of the kubeconfig. What is none has nothing in it: the library says what is wrong there."""
    return value if isinstance(value, dict) else {}


def _member(content: Kubeconfig, members: str, name: str) -> dict[str, Any]:
    """What the kubeconfig says of a user or a cluster, and the file it says it in (`path`); {} where it has none of that name."""
    listed = content.node.value.get(members)
    for member in listed if isinstance(listed, list) else ():
        value = getattr(member, "value", member)
        if isinstance(value, dict) and value.get("name") == name:
            return {**value, "path": getattr(member, "path", None) or content.files[0]}
    return {}


def _plugin(content: Kubeconfig, entry: Mapping[str, Any], user: Mapping[str, Any]) -> CredentialPlugin | None:
    """The plugin, where the user has no other credentials that come before it."""
    if "exec" not in user or any(user.get(other) for other in ("auth-provider", "token", "tokenFile")):
        return None
    of = _mapping(entry.get("context"))
    cluster = _mapping(_member(content, "clusters", str(of.get("cluster") or "")).get("cluster"))
    name = str(of.get("user"))
    folder = os.path.dirname(os.path.abspath(_member(content, "users", name)["path"]))
    try:
        settings = msgspec.convert(user["exec"], PluginSettings, strict=False)
    except msgspec.ValidationError as error:
        raise GenainetError(f"the kubeconfig's user {name!r} can't be used: exec: {error}") from None
    return CredentialPlugin(name, settings, folder, cluster)


def _as_user(user: dict[str, Any], credential: RenewedCredential) -> None:
    """The user with what the plugin gave in the plugin's place."""
    now = credential.now()
    user.pop("exec")
    if now.token:
        user["token"] = now.token
    if now.certificate:
        user["client-certificate-data"] = base64.b64encode(now.certificate.encode()).decode()
        user["client-key-data"] = base64.b64encode(now.key.encode()).decode()


def _verify_identity_provider(user: Mapping[str, Any]) -> None:
    """The library sends the refresh token to whoever answers where the kubeconfig names no authority for the provider."""
    provider = user.get("auth-provider")
    settings = provider.get("config") if isinstance(provider, dict) else None
    if isinstance(settings, dict) and not settings.get("idp-certificate-authority-data"):
        import certifi

        settings["idp-certificate-authority"] = settings.get("idp-certificate-authority") or certifi.where()
