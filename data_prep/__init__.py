"""Data preparation: one command a data set, all writing verl's parquet schema."""
