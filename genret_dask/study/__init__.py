"""A study, stage by stage, and what is known of it before it works."""
