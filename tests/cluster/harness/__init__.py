"""A real Kubernetes on this machine: control plane, kube-proxy, nodes, each in network namespaces of their own.

Everything is a real binary (scripts/kubernetes.sh); nothing listens on the machine's own addresses but one
loopback port that leads to the API server. All names begin with `gnk`; what a killed run left is removed by the next.
"""
