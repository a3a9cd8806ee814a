"""The pages of the site and their order. A path is one of the repository; `API` is a page that build.py writes."""

API = "docs/api.md"

PAGES = [
    ("Use it", [
        ("docs/quick-start.md", "Quick start"),
        ("docs/recipes.md", "Recipes"),
        ("docs/usernames.md", "Usernames, headers, statuses"),
        ("kits/python/README.md", "The kit for Python"),
        ("kits/node/README.md", "The kit for Node"),
        ("docs/console.md", "The console"),
        (API, "API"),
        ("docs/own-exits.md", "Proxies of your own"),
        ("docs/own-addresses.md", "Own addresses"),
        ("docs/public-proxies.md", "Public proxies"),
        ("docs/coming-from.md", "Coming from another program"),
    ]),
    ("Run it", [
        ("docs/configuration.md", "Configuration"),
        ("docs/operations.md", "Operations"),
        ("docs/current-tor.md", "A current tor"),
        ("docs/bridges.md", "Bridges"),
        ("docs/guards.md", "Guards and outages"),
        ("docs/security.md", "Security model"),
        ("SECURITY.md", "Reporting a vulnerability"),
    ]),
    ("Behind it", [
        ("docs/peers.md", "Other programs"),
        ("docs/ARCHITECTURE.md", "Architecture"),
        ("CONTRIBUTING.md", "Working on exitgate"),
        ("docs/decisions/README.md", "Decisions"),
        ("CHANGELOG.md", "Changelog"),
    ]),
]

# The first page.
HOME = "README.md"
