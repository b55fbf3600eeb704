"""`genainet-objects`: keeps how the cluster's objects changed, so that the past is judged by the names and policies of then."""
