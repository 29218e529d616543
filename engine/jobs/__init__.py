"""Work on what is stored, beside a running site: tenants' rights, migration, mended journals, recovery."""
