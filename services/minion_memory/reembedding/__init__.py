"""Re-embedding: vectors made after the fact, of memories that wait for one and of those that move to another model."""
