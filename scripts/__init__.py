"""Steps that train nothing and predict nothing."""
