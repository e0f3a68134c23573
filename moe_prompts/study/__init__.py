"""5 STUDY: a grid of cells becomes a tidy table, with addressed seeds, resumable blocks and any executor."""
