"""``ohlora studio``: label images, choose characters and steer them, in the browser."""
