"""One LightningDataModule per kind of data."""
