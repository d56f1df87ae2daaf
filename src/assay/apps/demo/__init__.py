"""The demonstration: a small network of real processes on loopback, with one provider that cheats."""
