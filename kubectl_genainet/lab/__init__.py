"""A cluster on one machine: nodes and pods are network namespaces, every packet crosses the real kernel."""
