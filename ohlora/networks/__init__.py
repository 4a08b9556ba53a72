"""Networks in plain torch: no Lightning, no files, no logging."""
