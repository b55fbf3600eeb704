"""IPVS virtual servers, read."""
