"""The verbs about the agents themselves."""
