"""The checks, one module an area (see `kubectl_genainet.doctor.check`)."""
