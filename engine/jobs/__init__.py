"""Jobs on stored frames that may run next to a site: tenants' rights, migration, rebuilt journals, recovery."""
