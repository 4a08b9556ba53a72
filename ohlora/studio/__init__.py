"""``ohlora studio``: annotate images, choose characters and steer them, in the browser."""
