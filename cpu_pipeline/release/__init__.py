"""What comes out: versions, the lockfile, the manifest, and the documents beside it."""
