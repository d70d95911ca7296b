"""Who is measured beside us, and where they run."""
