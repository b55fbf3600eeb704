"""What files of manifests hold besides objects, or stand for: places of objects, charts, the pods of workloads."""
