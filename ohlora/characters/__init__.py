"""Characters: a generator, a latent and directions in one file; how they move; which of them follow."""
