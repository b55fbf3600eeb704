"""What is not evaluated, and why: kinds of policy that no dialect reads, objects and fields that are refused."""
