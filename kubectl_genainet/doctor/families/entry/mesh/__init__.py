"""Service meshes: Istio with sidecars, Istio Ambient, Linkerd."""
