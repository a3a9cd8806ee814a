"""The time zone and the language that fit an exit's country.

The gateway knows the country of an exit, and neither its time zone nor its language. So this module derives both from
the country with a small table. For a country with several time zones or languages the table has those of most people:
`US` is New York and English. An exit in Los Angeles gets the wrong zone then, and so does an exit whose country is
unknown. `Identity.derived` is always true, to say this.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """What a browser should say that uses an exit of this country."""

    country: str | None
    timezone: str
    """A name of the IANA database, such as `Europe/Berlin`."""
    locale: str
    """A tag of BCP 47, such as `de-DE`."""
    derived: bool = True
    """True: time zone and locale are a guess from the country."""

    @property
    def accept_language(self) -> str:
        """A value for the header `Accept-Language`, in Chromium's form."""
        language = self.locale.split("-")[0]
        return f"{self.locale},{language};q=0.9" + ("" if language == "en" else ",en;q=0.8")


UNKNOWN = Identity(None, "UTC", "en-US")

_TABLE = """
AD Europe/Andorra ca-AD|AE Asia/Dubai ar-AE|AL Europe/Tirane sq-AL|AM Asia/Yerevan hy-AM
AR America/Argentina/Buenos_Aires es-AR|AT Europe/Vienna de-AT|AU Australia/Sydney en-AU|AZ Asia/Baku az-AZ
BA Europe/Sarajevo bs-BA|BD Asia/Dhaka bn-BD|BE Europe/Brussels nl-BE|BG Europe/Sofia bg-BG|BH Asia/Bahrain ar-BH
BO America/La_Paz es-BO|BR America/Sao_Paulo pt-BR|BY Europe/Minsk ru-BY|BZ America/Belize en-BZ|CA America/Toronto en-CA
CH Europe/Zurich de-CH|CL America/Santiago es-CL|CN Asia/Shanghai zh-CN|CO America/Bogota es-CO|CR America/Costa_Rica es-CR
CY Asia/Nicosia el-CY|CZ Europe/Prague cs-CZ|DE Europe/Berlin de-DE|DK Europe/Copenhagen da-DK
DO America/Santo_Domingo es-DO|DZ Africa/Algiers ar-DZ|EC America/Guayaquil es-EC|EE Europe/Tallinn et-EE|EG Africa/Cairo ar-EG
ES Europe/Madrid es-ES|ET Africa/Addis_Ababa am-ET|FI Europe/Helsinki fi-FI|FR Europe/Paris fr-FR|GB Europe/London en-GB
GE Asia/Tbilisi ka-GE|GH Africa/Accra en-GH|GR Europe/Athens el-GR|GT America/Guatemala es-GT|HK Asia/Hong_Kong zh-HK
HN America/Tegucigalpa es-HN|HR Europe/Zagreb hr-HR|HU Europe/Budapest hu-HU|ID Asia/Jakarta id-ID|IE Europe/Dublin en-IE
IL Asia/Jerusalem he-IL|IN Asia/Kolkata en-IN|IQ Asia/Baghdad ar-IQ|IR Asia/Tehran fa-IR|IS Atlantic/Reykjavik is-IS
IT Europe/Rome it-IT|JM America/Jamaica en-JM|JO Asia/Amman ar-JO|JP Asia/Tokyo ja-JP|KE Africa/Nairobi en-KE
KG Asia/Bishkek ky-KG|KH Asia/Phnom_Penh km-KH|KR Asia/Seoul ko-KR|KW Asia/Kuwait ar-KW|KZ Asia/Almaty ru-KZ
LB Asia/Beirut ar-LB|LI Europe/Vaduz de-LI|LK Asia/Colombo si-LK|LT Europe/Vilnius lt-LT|LU Europe/Luxembourg fr-LU
LV Europe/Riga lv-LV|MA Africa/Casablanca ar-MA|MC Europe/Monaco fr-MC|MD Europe/Chisinau ro-MD|ME Europe/Podgorica sr-ME
MK Europe/Skopje mk-MK|MN Asia/Ulaanbaatar mn-MN|MT Europe/Malta mt-MT|MU Indian/Mauritius en-MU
MX America/Mexico_City es-MX|MY Asia/Kuala_Lumpur ms-MY|NG Africa/Lagos en-NG|NI America/Managua es-NI
NL Europe/Amsterdam nl-NL|NO Europe/Oslo nb-NO|NP Asia/Kathmandu ne-NP|NZ Pacific/Auckland en-NZ|OM Asia/Muscat ar-OM
PA America/Panama es-PA|PE America/Lima es-PE|PH Asia/Manila en-PH|PK Asia/Karachi en-PK|PL Europe/Warsaw pl-PL
PR America/Puerto_Rico es-PR|PT Europe/Lisbon pt-PT|PY America/Asuncion es-PY|QA Asia/Qatar ar-QA|RO Europe/Bucharest ro-RO
RS Europe/Belgrade sr-RS|RU Europe/Moscow ru-RU|SA Asia/Riyadh ar-SA|SC Indian/Mahe en-SC|SE Europe/Stockholm sv-SE
SG Asia/Singapore en-SG|SI Europe/Ljubljana sl-SI|SK Europe/Bratislava sk-SK|SM Europe/San_Marino it-SM
SN Africa/Dakar fr-SN|SV America/El_Salvador es-SV|TH Asia/Bangkok th-TH|TN Africa/Tunis ar-TN|TR Europe/Istanbul tr-TR
TW Asia/Taipei zh-TW|TZ Africa/Dar_es_Salaam sw-TZ|UA Europe/Kyiv uk-UA|UG Africa/Kampala en-UG|US America/New_York en-US
UY America/Montevideo es-UY|UZ Asia/Tashkent uz-UZ|VE America/Caracas es-VE|VN Asia/Ho_Chi_Minh vi-VN
ZA Africa/Johannesburg en-ZA
"""

IDENTITIES: dict[str, Identity] = {
    country: Identity(country, timezone, locale)
    for country, timezone, locale in (row.split() for row in _TABLE.strip().replace("\n", "|").split("|"))
}
"""The table by country."""


def identity(country: str | None) -> Identity:
    """The identity of a country (two letters). A country that is not in the table gets UTC and English."""
    code = (country or "").upper()
    return IDENTITIES.get(code) or Identity(code or None, UNKNOWN.timezone, UNKNOWN.locale)
