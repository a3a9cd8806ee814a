"""Checks the built site, without network: check.py HTML_FOLDER

- Each link inside the site leads to a file of the site, and its anchor exists there.
- A reader without JavaScript reaches each page from the first page by two clicks at most, on links in the text of pages.
- A reader without JavaScript has the list of pages at the side.
- The pages load nothing from other servers.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Written by mdBook for other uses than reading.
NOT_PAGES = {"404.html", "toc.html", "print.html"}


class Page(HTMLParser):
    """What a page contains: the links of its text, all its links, its anchors, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.main, self.links, self.anchors, self.loaded, self.frames = [], [], set(), [], []
        self.depth = 0
        self.letters = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "main":
            self.depth += 1
        for name in ("id", "name"):
            if found.get(name):
                self.anchors.add(found[name])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
            if self.depth:
                self.main.append(found["href"])
        if tag in ("img", "script", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("href"):
            self.loaded.append(found["href"])
        if tag == "iframe":
            self.frames.append(found.get("src", ""))

    def handle_endtag(self, tag):
        if tag == "main":
            self.depth -= 1

    def handle_data(self, text):
        if self.depth:
            self.letters += len(text.strip())


def inside(page, link):
    """The file that a link leads to and its anchor, or None if it leads out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (file / "index.html" if file.is_dir() else file), unquote(parts.fragment)


def main(folder):
    root = Path(folder).resolve()
    pages = {path: Page(path.read_text()) for path in sorted(root.rglob("*.html"))}
    reading = {path for path in pages if path.name not in NOT_PAGES}
    faults, links = [], 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the root of a server
        shown = path.relative_to(root)
        for link in page.links + page.loaded:
            found = inside(path, link)
            if found is None:
                if link in page.loaded:
                    faults.append(f"{shown} loads {link} from another server")
                continue
            links += 1
            file, anchor = found
            if not file.is_relative_to(root) or not file.is_file():
                faults.append(f"{shown}: {link} leads to no file")
            elif anchor and anchor not in pages[file].anchors if file in pages else False:
                faults.append(f"{shown}: {link}: there is no such anchor")
        if path in reading:
            if page.letters < 200:
                faults.append(f"{shown} has hardly any text without JavaScript")
            if not any(frame.endswith("toc.html") for frame in page.frames):
                faults.append(f"{shown} has no list of pages without JavaScript")

    def reached(start):
        return {file for page in start for file, _ in filter(None, (inside(page, link) for link in pages[page].main)) if file in reading}

    first = {root / "index.html"}
    one = first | reached(first)
    two = one | reached(one)
    faults += [f"{page.relative_to(root)} is more than two clicks away" for page in sorted(reading - two)]
    if len(reading) < 20 or links < 500:
        faults.append(f"only {len(reading)} pages and {links} links were found")
    if faults:
        sys.exit("the site has faults:\n  " + "\n  ".join(faults))
    print(f"{len(reading)} pages: {len(one) - 1} one click away, {len(two) - len(one)} two clicks away; {links} links and anchors exist")


if __name__ == "__main__":
    main(sys.argv[1])
