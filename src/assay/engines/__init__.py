"""What turns a request into tokens, and the model files that it needs."""
