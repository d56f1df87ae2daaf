"""How requests and steps travel between machines."""
