"""Parts of EnsembleRL for other people's loops; each module wants the package it is named after."""
