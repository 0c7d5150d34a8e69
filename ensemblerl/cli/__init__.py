"""The command line, ``ensemblerl``: demo, check, show, plot, export, rerun."""
