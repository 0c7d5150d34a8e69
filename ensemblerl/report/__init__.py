"""What a campaign looks like from outside: ``ds.erl``."""
