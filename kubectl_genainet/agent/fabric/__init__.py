"""What moves between GPUs: RDMA devices, NICs, and the TCP connections that collectives fall back to."""
