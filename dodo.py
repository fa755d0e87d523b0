import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
