"""How providers are found: sources of signed records, and the book that keeps them."""
