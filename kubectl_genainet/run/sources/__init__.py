"""Where the facts of a run come from: a cluster, a lab, a bundle or manifests, behind one interface."""
