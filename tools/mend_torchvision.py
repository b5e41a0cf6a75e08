"""Makes `import torchvision` work beside a CPU-only torch, where the two wheels do not match; otherwise does nothing.

torchvision's compiled operators need the very torch build they were made with. On a platform that has a CPU build of
torch but no CPU build of torchvision, importing torchvision dies with "operator torchvision::nms does not exist", and
with it timm, transformers' vision models and peft. None of them calls that operator here: it only has to be declared
before torchvision registers its meta kernels. That must hold in every process of the environment (Ray workers, a
plain timm script), so the cure is a lazy import hook in site-packages, started by a `.pth` file.

Run it with the environment's own python after installing. On matched wheels it writes nothing.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

SYMPTOM = "operator torchvision::nms does not exist"
MODULE = "_torchvision_ops_declared"
HOOK = '''"""Declares torchvision's two operators just before torchvision is first imported (written by tools/mend_torchvision.py)."""
import sys


class _Declare:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys._torchvision_ops_library = library
        return None


sys.meta_path.insert(0, _Declare())
'''


def import_error() -> str:
    """What `import torchvision` prints in a fresh process; empty when it works."""
    run = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else ""


def main() -> int:
    """Install the hook if and only if the import fails for this one reason; 1 if the import still fails afterwards."""
    site = Path(sysconfig.get_path("purelib"))
    error = import_error()
    if SYMPTOM in error:
        (site / f"{MODULE}.py").write_text(HOOK)
        (site / f"{MODULE}.pth").write_text(f"import {MODULE}\n")
        print("torchvision: CPU torch without a matching torchvision build; operators declared by an import hook")
        error = import_error()
    if error:
        print(f"torchvision cannot be imported:\n{error}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
