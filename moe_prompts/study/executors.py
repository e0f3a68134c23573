"""Give executors the name that scripts of earlier versions import: see ``moe_prompts.engine.executors``."""

from moe_prompts.engine.executors import Dask, InProcess, Joblib, executor_for

__all__ = ["Dask", "InProcess", "Joblib", "executor_for"]
