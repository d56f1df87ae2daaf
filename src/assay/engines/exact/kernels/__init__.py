"""The exact semantics at the speed of memory: compiled forms of what reference.py says, held equal to it by tests."""
