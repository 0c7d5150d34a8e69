"""What `ensemblerl.space` and `ensemblerl.parameters` are made of."""
