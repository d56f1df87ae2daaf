"""Nouns and pure rules: types, encoding, hashing, signing, receipts, verdicts, errors, ports."""
