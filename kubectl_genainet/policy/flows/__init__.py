"""The flows of a question: what its ends stand for, how a packet arrives, whether the client may look up the name."""
