"""Critics: what foretells rewards, so that a policy improves between results."""
