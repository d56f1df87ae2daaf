"""Disputes over exact-level receipts: from a wrong token to one small operation that anybody can recompute."""
