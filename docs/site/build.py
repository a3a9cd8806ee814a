"""Writes the sources of the site, from which mdBook makes the pages: build.py OUT [SCREENSHOTS]

The pages are the documents of the repository. Their folders stay the same, so their links to each other stay true. Links to other files
of the repository lead to GitHub, to the version that the site describes. The page about the API is made from the description that the
gateway serves as /openapi.json.
"""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).parent))
from pages import API, HOME, PAGES

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = ROOT / "src/api/snapshots/exitgate__api__openapi__tests__openapi.snap"
# A link or an image in Markdown, outside code: the text in brackets, then the destination.
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)", re.S)
CODE = re.compile(r"(^ {0,3}```.*?^ {0,3}```[ ]*$|(?:(?<=\n\n)(?: {4}[^\n]*\n|\n(?= {4}))+)|``.+?``|`[^`\n]+`)", re.S | re.M)
SCREENSHOT = re.compile(r"<!-- screenshot: ([a-z-]+): (.+?) -->")


def fail(text):
    sys.exit(f"docs/site/build.py: {text}")


def release():
    """The version, what the title says about it, and the Git revision that links lead to."""
    cargo = (ROOT / "Cargo.toml").read_text()
    version, repository = (re.search(rf'^{key} = "(.+)"', cargo, re.M)[1] for key in ("version", "repository"))
    top = re.search(r"^## \[(.+?)\](.*?)(?=^## \[|\Z)", (ROOT / "CHANGELOG.md").read_text(), re.M | re.S)
    if top and top[1] == version:
        return version, version, f"v{version}", repository
    if top and top[1] == "Unreleased" and version in top[2][:200]:
        asked = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        return version, f"{version}, not released, {commit}", commit, repository
    fail(f"Cargo.toml has the version {version}, but the first section of CHANGELOG.md is about another one")


def target(path):
    """The file of a page in the site. mdBook gives a folder's README the name index.html."""
    path = PurePosixPath(path)
    return path.with_name("index.md") if path.name == "README.md" else path


def relative(to, page):
    up = len(page.parent.parts)
    return "../" * up + str(to)


def rewrite(path, text, pages, revision, repository, images):
    """The text of a page with links that work in the site."""
    page = target(path)

    def link(match):
        words, to = match[1], match[2]
        if re.match(r"[a-z]+:|#", to):
            return match[0]
        to, _, anchor = to.partition("#")
        found = (ROOT / PurePosixPath(path).parent / to).resolve()
        if not found.is_relative_to(ROOT) or not found.exists():
            fail(f"{path} has a link to {to}, which does not exist")
        name = found.relative_to(ROOT).as_posix()
        if found.is_dir() and f"{name}/README.md" in pages:
            name += "/README.md"
        anchor = f"#{anchor}" if anchor else ""
        if name in pages:
            return f"{words}({relative(target(name), page)}{anchor})"
        if words.startswith("!") or found.suffix in {".svg", ".png"}:
            images.add(name)
            return f"{words}({relative(PurePosixPath(name), page)})"
        kind = "tree" if found.is_dir() else "blob"
        return f"{words}({repository}/{kind}/{revision}/{name}{anchor})"

    # Code is taken out and put back, because brackets in it are no links. The text of a link may be code.
    code = []

    def take_out(match):
        code.append(match[0])
        return f"\0{len(code) - 1}\0"

    changed = LINK.sub(link, CODE.sub(take_out, text))
    return re.sub(r"\0([0-9]+)\0", lambda match: code[int(match[1])], changed)


def with_screenshots(text, page, shots, out):
    """Puts the screenshots in the places that the page names."""
    def picture(match):
        name, what = match[1], match[2]
        file = shots / f"{name}.png" if shots else None
        if not file or not file.exists():
            return f"*(No screenshot: {html.escape(what)} The browser test makes it: `.ci/browser screenshots`.)*"
        (out / "screenshots").mkdir(exist_ok=True)
        shutil.copy(file, out / "screenshots" / file.name)
        return f"![{what}]({relative(PurePosixPath('screenshots') / file.name, page)})"

    return SCREENSHOT.sub(picture, text)


def api_page(description):
    """The endpoints, grouped as in the description."""
    cell = lambda text: " ".join((text or "").replace("|", "\\|").split())
    lines = [
        "# API",
        "",
        "Your gateway shows this description, with fields to try each request, at `/docs` of the API's port "
        "(<http://127.0.0.1:8080/docs>). The same description for programs is at `/openapi.json`. This page is made from it, and "
        f"describes version {description['info']['version']}.",
        "",
        cell(description["info"]["description"]),
    ]
    groups = {tag["name"]: (tag.get("description", ""), []) for tag in description.get("tags", [])}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict) and "responses" in operation:
                tag = (operation.get("tags") or ["other"])[0]
                groups.setdefault(tag, ("", []))[1].append((path, method.upper(), operation))
    for name, (about, operations) in groups.items():
        if not operations:
            continue
        lines += ["", f"## {name.capitalize()}", "", cell(about)]
        for path, method, operation in sorted(operations, key=lambda one: (one[0], one[1])):
            lines += ["", f"### {method} `{path}`", "", cell(operation.get("summary")), "", cell(operation.get("description"))]
            rows = [(one["name"], one["in"], one.get("required", False), one.get("description")) for one in operation.get("parameters", [])]
            body = operation.get("requestBody", {}).get("content", {})
            schema = next(iter(body.values()), {}).get("schema", {})
            rows += [(field, "body", needed, about) for field, needed, about in fields(schema, description)]
            if rows:
                lines += ["", "| name | where | required | meaning |", "| --- | --- | --- | --- |"]
                lines += [f"| `{n}` | {where} | {'yes' if needed else 'no'} | {cell(about)} |" for n, where, needed, about in rows]
            answers = ", ".join(f"`{status}`" for status in operation["responses"] if status != "default")
            lines += ["", f"Answers: {answers}; an error has the form above." if answers else "An error has the form above."]
    return "\n".join(lines) + "\n"


def fields(schema, description):
    """The fields of a body: name, whether it is required, meaning."""
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for part in schema.get("allOf", []):
        yield from fields(part, description)
    for name, field in schema.get("properties", {}).items():
        yield name, name in schema.get("required", []), field.get("description")


def main(out, shots):
    version, title, revision, repository = release()
    source = out / "src"
    shutil.rmtree(out, ignore_errors=True)
    source.mkdir(parents=True)
    decisions = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    listed = [path for _, group in PAGES for path, _ in group]
    absent = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} - set(listed)
    if absent:
        fail(f"docs/site/pages.py does not list {', '.join(sorted(absent))}")
    pages, images = {HOME, *listed, *decisions}, set()
    description = json.loads(DESCRIPTION.read_text().split("---\n", 2)[2])
    if description["info"]["version"] != version:
        fail(f"the description of the API is of version {description['info']['version']}, and Cargo.toml has {version}")

    summary = ["# Summary", "", "[exitgate](index.md)"]
    contents = ["", "## All pages", "", f"These pages describe version {title}."]
    for name, group in PAGES:
        summary += ["", f"# {name}", ""]
        contents += ["", f"**{name}:** " + " · ".join(f"[{words}]({target(path)})" for path, words in group)]
        for path, words in group:
            summary.append(f"- [{words}]({target(path)})")
            if path == "docs/decisions/README.md":
                for decision in decisions:
                    heading = (ROOT / decision).read_text().split("\n", 1)[0].lstrip("# ")
                    summary.append(f"  - [{heading}]({decision})")
    (source / "SUMMARY.md").write_text("\n".join(summary) + "\n")

    for path in sorted(pages):
        if path == API:
            text = api_page(description)
        else:
            text = rewrite(path, (ROOT / path).read_text(), pages, revision, repository, images)
            text = with_screenshots(text, target(path), shots, source)
        if path == HOME:
            text += "\n".join(contents) + "\n"
        file = source / target(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for image in images:
        (source / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / image, source / image)
    book = (ROOT / "docs/site/book.toml").read_text().replace("[book]\n", f'[book]\ntitle = "exitgate {title}"\nsrc = "src"\n')
    book += f'\n[build]\nbuild-dir = "html"\n\n[output.html.print]\nenable = false\n'
    book = book.replace("[output.html]\n", f'[output.html]\ngit-repository-url = "{repository}"\n')
    (out / "book.toml").write_text(book)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None)
