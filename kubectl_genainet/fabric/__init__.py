"""Two readings of the nodes' fabrics made into who talks by RDMA and who by kernel TCP. No I/O."""
