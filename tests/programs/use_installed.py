"""What the installed package does: a question solved by each checkpoint, its commands, modules of ours at the top, and
what import_all.py says.

use_installed.py QUESTION CHECKPOINT...
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import runpy
import sys
from pathlib import Path

import lta_thinker
from lta_thinker import LatentThoughtModel

question, *names = sys.argv[1:]
package, said = Path(lta_thinker.__file__).parent, {}
for name in names:
    solution = LatentThoughtModel.from_pretrained(name).solve(question, num_samples=3, max_new_tokens=8)
    said.setdefault("solutions", []).append(vars(solution))
(installed,) = importlib.metadata.distributions(path=[str(package.parent)], name="lta-thinker")
for command in installed.entry_points:
    sys.argv, text = [command.name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        command.load()()
    said[command.name] = text.getvalue()
specs = [importlib.util.find_spec(path.stem) for path in package.glob("*.py")]
said["at_the_top"] = [spec.origin for spec in specs if spec and str(package.parent) in str(spec.origin)]
said |= runpy.run_path(str(Path(__file__).with_name("import_all.py")))["said"]
print(json.dumps(said | {"package": str(package)}))
