#!/usr/bin/env python3
"""Writes countries.tsv: the time zone, place and languages of each country.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install Babel==2.19.0
    /tmp/v/bin/python src/exit/identity/make-countries.py > src/exit/identity/countries.tsv

Time zones and coordinates come from tzdata's zone.tab, languages from the CLDR data in Babel. The reasons for each
choice are in docs/decisions/0040-identity-of-an-exit.md.
"""

import re
import sys

import babel
from babel.core import get_global
from babel.languages import get_territory_language_info

ZONE_TAB = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/zoneinfo/zone.tab"

# The zone of a country with several zones: that of the largest city or of the most people. The order in zone.tab is
# geographical, so the first zone is often a wrong choice (RU: Kaliningrad, BR: Noronha).
CHOSEN = {
    "AQ": "Antarctica/McMurdo", "AR": "America/Argentina/Buenos_Aires", "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo", "CA": "America/Toronto", "CD": "Africa/Kinshasa", "CL": "America/Santiago",
    "CN": "Asia/Shanghai", "CY": "Asia/Nicosia", "DE": "Europe/Berlin", "EC": "America/Guayaquil",
    "ES": "Europe/Madrid", "FM": "Pacific/Pohnpei", "GL": "America/Nuuk", "ID": "Asia/Jakarta",
    "KI": "Pacific/Tarawa", "KZ": "Asia/Almaty", "MH": "Pacific/Majuro", "MN": "Asia/Ulaanbaatar",
    "MX": "America/Mexico_City", "MY": "Asia/Kuala_Lumpur", "NZ": "Pacific/Auckland", "PF": "Pacific/Tahiti",
    "PG": "Pacific/Port_Moresby", "PS": "Asia/Hebron", "PT": "Europe/Lisbon", "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv", "UM": "Pacific/Midway", "US": "America/New_York", "UZ": "Asia/Tashkent",
    "VN": "Asia/Ho_Chi_Minh",
}

# Kosovo has no code in ISO 3166, so zone.tab has no line for it. CLDR assigns Europe/Belgrade. The place is Pristina.
EXTRA = {"XK": [("Europe/Belgrade", 42.6667, 21.1667)]}

# A language counts if at least this share of the people of the country use it, in percent, or if it is official and
# used by at least a tenth of the people.
SHARE, SHARE_OFFICIAL = 20, 10
MOST_LANGUAGES = 4


def degrees(text):
    sign, digits = (-1 if text[0] == "-" else 1), text[1:]
    whole = len(digits) - (4 if len(digits) > 5 else 2)
    parts = [int(digits[:whole]), int(digits[whole:whole + 2]), int(digits[whole + 2:] or 0)]
    return round(sign * (parts[0] + parts[1] / 60 + parts[2] / 3600), 4)


def zones():
    found = {}
    for line in open(ZONE_TAB, encoding="utf-8"):
        if line.startswith("#"):
            continue
        country, place, zone = line.rstrip("\n").split("\t")[:3]
        latitude, longitude = re.fullmatch(r"([+-]\d+)([+-]\d+)", place).groups()
        found.setdefault(country, []).append((zone, degrees(latitude), degrees(longitude)))
    return found | EXTRA


def locale(country):
    """The likely locale, without the script if it is the usual one: en-US, sr-RS, zh-TW."""
    likely = get_global("likely_subtags").get(f"und_{country}")
    language = likely.split("_")[0] if likely else "en"
    return f"{language}-{country}"


def languages(country, first):
    known = get_territory_language_info(country)
    official = ("official", "de_facto_official")
    def counts(info):
        share = info["population_percent"] or 0
        return share >= SHARE or (info["official_status"] in official and share >= SHARE_OFFICIAL)
    used = [(info["population_percent"] or 0, code) for code, info in known.items() if counts(info)]
    ordered = [first] + [code.split("_")[0] for _, code in sorted(used, key=lambda pair: (-pair[0], pair[1]))]
    # Browsers name languages by two letters. Longer codes are dialects and languages without one, such as Swiss German.
    # CLDR lists Norwegian as `no` and as its written form `nb`; browsers send `nb`.
    written = [code for code in ordered if code == first or len(code) == 2 and not (code == "no" and first == "nb")]
    return list(dict.fromkeys(written))[:MOST_LANGUAGES]


version = open("/usr/share/zoneinfo/tzdata.zi", encoding="utf-8").readline().split()[-1]
print(f"# Made by make-countries.py from tzdata {version} (zone.tab) and CLDR (Babel {babel.__version__}). Do not edit.")
print("# country, number of time zones, time zone, latitude, longitude, locale, languages")
for country, found in sorted(zones().items()):
    if len(found) > 1 and country not in CHOSEN:
        sys.exit(f"{country} has {len(found)} time zones: choose one in CHOSEN")
    names = [zone for zone, *_ in found]
    zone, latitude, longitude = found[names.index(CHOSEN.get(country, names[0]))]
    likely = locale(country)
    spoken = ",".join(languages(country, likely.split("-")[0]))
    print(country, len(found), zone, latitude, longitude, likely, spoken, sep="\t")
