"""Reading and writing files that may be torn, hostile or far away. Every package may import this; it imports none of them."""
