"""What every correlator knows besides the packets: who is who, rulesets, policies, clocks, the account of losses."""
