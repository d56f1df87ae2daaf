"""The window: pages that a node and a gateway serve to people, read-only but for the owner. See docs/window.md."""
