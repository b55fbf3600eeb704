"""DNS packets to exchanges, and what is wrong with name lookup."""
