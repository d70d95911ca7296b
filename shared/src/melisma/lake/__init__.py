"""A lake: streams as directories of files, with their partitions, and the commit that makes them visible."""
