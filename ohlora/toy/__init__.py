"""The toy world: faces that are drawn from known attribute values, and the accuracy of what is measured on them."""
