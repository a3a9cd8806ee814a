"""Shows that check.py finds faults: it puts each kind into a copy of the built site. check_test.py HTML_FOLDER"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FAULTS = {
    "leads to no file": lambda root: add(root / "docs/usernames.html", '<a href="gone.html">x</a>'),
    "there is no such anchor": lambda root: add(root / "docs/usernames.html", '<a href="operations.html#gone">x</a>'),
    "from another server": lambda root: add(root / "docs/usernames.html", '<img src="https://example.com/x.png">'),
    "more than two clicks away": lambda root: shutil.copy(root / "docs/usernames.html", root / "docs/lonely.html"),
    "no list of pages without JavaScript": lambda root: change(root / "docs/usernames.html", "toc.html", "other.html"),
    "hardly any text": lambda root: (root / "docs/usernames.html").write_text("<main>x</main>"),
}


def change(path, old, new):
    text = path.read_text()
    assert old in text, f"{path} does not contain {old}"
    path.write_text(text.replace(old, new))


def add(path, what):
    change(path, "</main>", f"{what}</main>")


for says, break_it in FAULTS.items():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "html"
        shutil.copytree(sys.argv[1], root)
        break_it(root)
        asked = [sys.executable, str(Path(__file__).with_name("check.py")), str(root)]
        found = subprocess.run(asked, capture_output=True, text=True)
        if found.returncode == 0 or says not in found.stderr:
            sys.exit(f"check.py does not find this fault: {says}\n{found.stdout}{found.stderr}")
