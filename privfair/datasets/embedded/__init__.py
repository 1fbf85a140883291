"""Files of the embedded differentially private synthetic editions, with their certificates."""
