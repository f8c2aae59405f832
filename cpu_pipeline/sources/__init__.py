"""Where models and data come from, one file each; the only online code."""
