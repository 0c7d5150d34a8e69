"""What `ensemblerl.campaign` is made of: each a small rule of the loop."""
