"""models.yaml as tasks of doit: the only room that knows its task dictionaries."""
