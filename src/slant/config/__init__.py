"""slant.yaml: what it can say, how it is read, how it is explained."""
