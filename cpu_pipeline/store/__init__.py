"""The content-addressed cache of built steps: records, objects, leases, collection, sharing."""
