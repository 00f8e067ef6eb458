"""A run directory: who has it, how far it is, whether it is whole, and what its models say."""
