"""The OpenAI API as bytes and objects: reading bodies, shaping replies, server-sent events."""
