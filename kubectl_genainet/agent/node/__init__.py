"""What a node is made of: network namespaces, containers, packet rules, sockets."""
