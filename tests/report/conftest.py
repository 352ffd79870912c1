"""The finished study of tests/study, for pages about it."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("study_fixtures", Path(__file__).parents[1] / "study" / "conftest.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

write_recipe = _module.write_recipe
no_collection = _module.no_collection
finished_study = _module.finished_study
study_folder = _module.study_folder
