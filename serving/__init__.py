"""The ranking engine and the BentoML service around it."""
