"""Models and their training: batches, layers, the zoo, the loop, metrics and gates."""
