"""Metadata of the lab's API objects: names, uids and owners like generated ones, but the same every time."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

Object = dict[str, Any]

CREATED = "2025-01-01T00:00:00Z"
_SAFE = "bcdfghjklmnpqrstvwxz2456789"  # the alphabet of generated names (apimachinery, util/rand)


def generated(text: str, length: int) -> str:
    """A suffix like those that controllers generate, the same for the same text."""
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_SAFE[b % len(_SAFE)] for b in digest[:length])


def key(obj: Object) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def uid_of(kind: str, namespace: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"genainet-lab/{kind}/{namespace}/{name}"))


def meta(kind: str, name: str, namespace: str = "", **more: Any) -> Object:
    scope = {"namespace": namespace} if namespace else {}
    return {"name": name, **scope, "uid": uid_of(kind, namespace, name), "creationTimestamp": CREATED, **more}


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
