"""What is learned: VTAB-1K and FGVC from folders, and procedural stand-ins that need no download."""
