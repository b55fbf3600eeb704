"""The verbs that bring agents and labs, look at them, and take them away."""
