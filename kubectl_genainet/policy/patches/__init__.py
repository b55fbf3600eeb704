"""The smallest change that admits a flow."""
