"""What improves a policy from results that come late, one algorithm a file."""
