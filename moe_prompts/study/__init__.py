"""Turn a grid of cells into a tidy table, with addressed seeds, resumable blocks and any executor."""
