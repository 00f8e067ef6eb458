"""Shards: one model searched over one run of queries, a chunk of the cube each.

`plan` cuts a study into shards, `task` computes and writes one, `ledger` says which are done.
"""
