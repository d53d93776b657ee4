"""Imports every module of lta_thinker, and prints their names and where each class of model.py says that it is from."""

import importlib
import json
import pkgutil

import lta_thinker
from lta_thinker import LatentThoughtModel

names = [module.name for module in pkgutil.walk_packages(lta_thinker.__path__, "lta_thinker.")]
names += ["lta_thinker.data.convert"]
modules = [importlib.import_module(name) for name in names]
model = importlib.import_module("lta_thinker.model")
door = importlib.import_module("lta_thinker.api").LatentThoughtModel
assert LatentThoughtModel is door and importlib.import_module("lta_thinker.build").Models is model.Models
said = {"modules": sorted(names), "file": lta_thinker.__file__}
print(json.dumps(said))
