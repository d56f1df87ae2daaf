"""What is on the chain: contracts, an EVM that comes with it, and how others' nodes are spoken to."""
