"""The drawn world: faces drawn from known attribute values."""
