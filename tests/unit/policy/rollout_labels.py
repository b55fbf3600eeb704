"""Labels that people and their tools write into a pod template, with what a release makes of them."""

from __future__ import annotations

from tests.unit.policy.rollouts import sha, uid


def of_a_release(name: str, release: int) -> dict[str, str]:
    commit = sha(name, release)
    return {
        "app.kubernetes.io/version": f"1.{release}.0",
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": f"{name}-0.{release}.3",
        "chart": f"{name}-0.{release}.3",
        "release-id": f"r{release}",
        "build-id": str(4710 + release),
        "buildNumber": str(4710 + release),
        "build": f"b{release}x",
        "git-commit": commit[:7],
        "gitSha": commit,
        "image-tag": f"main-{commit[:8]}",
        "imageTag": f"main-{commit[:8]}",
        "version": f"v{release}",
        "model-version": f"2026.{release}",
        "config-hash": commit[:10],
        "checksum/config": commit[:32],
        "deployed-at": f"2026-0{release}-01",
        "skaffold.dev/run-id": uid(name, release, "skaffold"),
        "deploy.cloud.google.com/release-id": f"rel-{release}",
        "harness.io/track": "canary" if release == 1 else "stable",
        "app-build": f"{name}-{commit[:8]}",
        "unit": f"{name}-{commit[:8]}",
        "image": f"{name}-1.{release}.0",
        "generation": str(release),
        "revision": str(release),
    }


def of_a_person(name: str) -> dict[str, str]:
    return {
        "app": name,
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": f"{name}-prod",
        "app.kubernetes.io/component": "server",
        "app.kubernetes.io/part-of": "chat",
        "k8s-app": name,
        "tier": "backend",
        "team": "search",
        "model": "llama-3.1-8b-instruct",
    }
