"""Between JSON and Arrow: schemas, blocks of lines decoded and encoded, columns validated."""
