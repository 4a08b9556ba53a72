"""A world of one's own: looking at images and a table, preparing them, and writing the world's files."""
