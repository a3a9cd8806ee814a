// The locale and the time zone that fit a country, so that a browser does not contradict the address of its exit. The data is that of Node (CLDR).

/** The zone in which most people of a large country live. Node lists the zones of a country by name. */
const MAIN_ZONE: Record<string, string> = {
  AR: "America/Argentina/Buenos_Aires", AU: "Australia/Sydney", BR: "America/Sao_Paulo", CA: "America/Toronto", CL: "America/Santiago", CN: "Asia/Shanghai",
  DE: "Europe/Berlin", EC: "America/Guayaquil", ES: "Europe/Madrid", ID: "Asia/Jakarta", KZ: "Asia/Almaty", MX: "America/Mexico_City",
  MY: "Asia/Kuala_Lumpur", NZ: "Pacific/Auckland", PT: "Europe/Lisbon", RU: "Europe/Moscow", UA: "Europe/Kyiv", US: "America/New_York", UZ: "Asia/Tashkent",
};

export interface Identity {
  locale?: string;
  timezoneId?: string;
}

/** The locale and time zone of a country (`US`). Empty if the country is not known. */
export function identity(country: string | null | undefined): Identity {
  if (!country || !/^[A-Za-z]{2}$/.test(country)) return {};
  const code = country.toUpperCase();
  const region = new Intl.Locale(`und-${code}`) as Intl.Locale & { timeZones?: string[]; getTimeZones?: () => string[] };
  const { language } = region.maximize();
  const zones = region.getTimeZones?.() ?? region.timeZones ?? [];
  const timezoneId = MAIN_ZONE[code] ?? zones[0];
  // A country without zones in CLDR does not exist.
  return timezoneId && language && language !== "und" ? { locale: `${language}-${code}`, timezoneId } : {};
}
