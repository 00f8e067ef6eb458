"""Constrained search and scoring over exported models."""
