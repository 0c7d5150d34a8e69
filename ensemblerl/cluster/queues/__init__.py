"""Talk with a batch queue: submit, look, cancel; Slurm and PBS, each in a file of its own."""
