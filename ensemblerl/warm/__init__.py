"""What somebody knew before a campaign began: an earlier one, a table, a guess.

Its points steer where a campaign begins. They are no members: none of them enters the answer, the
ledger or a density.
"""
