"""Providers that take no connections are reached through a relay, which passes on what it cannot read."""
