/**
 * Numbers and times as people read them. Every function takes `null` for "not sent" and answers {@link MISSING}.
 * Numbers are separated from their unit by a narrow no-break space.
 */

export const MISSING = "–";

/** Why a cell shows {@link MISSING}; the text of its `title`. */
export const MISSING_TITLE = "Not sent by this machine. A missing value is left out, it is never counted as 0.";

const SPACE = "\u202f";
const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL_BIT_UNITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];

type Missing = null | undefined;

function absent(value: number | Missing): value is Missing {
  return value === null || value === undefined || !Number.isFinite(value);
}

/** Three significant digits without exponent: 0, 3.42, 34.2, 342. */
export function number(value: number | Missing): string {
  if (absent(value)) return MISSING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 99.95) return Math.round(value).toLocaleString("en-US").replaceAll(",", SPACE);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

function scaled(value: number, base: number, units: string[]): string {
  let index = 0;
  let rest = value;
  while (Math.abs(rest) >= base * 0.9995 && index < units.length - 1) {
    rest /= base;
    index += 1;
  }
  const text = index === 0 ? Math.round(rest).toString() : number(rest);
  return `${text}${SPACE}${units[index]}`;
}

/** 1536 -> "1.50 KiB". */
export function bytes(value: number | Missing): string {
  return absent(value) ? MISSING : scaled(value, 1024, BINARY_UNITS);
}

/** 1536 -> "1.50 KiB/s". */
export function bytesPerSecond(value: number | Missing): string {
  return absent(value) ? MISSING : `${bytes(value)}/s`;
}

/** 12500000 -> "12.5 Mbit/s"; decimal, as links are sold. */
export function bitsPerSecond(value: number | Missing): string {
  return absent(value) ? MISSING : scaled(value, 1000, DECIMAL_BIT_UNITS);
}

/** A fraction: 0.452 -> "45 %"; below ten percent with one decimal: "4.5 %". */
export function percent(fraction: number | Missing): string {
  if (absent(fraction)) return MISSING;
  const value = fraction * 100;
  const text = value !== 0 && Math.abs(value) < 9.95 ? value.toFixed(1) : Math.round(value).toString();
  return `${text}${SPACE}%`;
}

/** 61 -> "61 °C". */
export function celsius(value: number | Missing): string {
  return absent(value) ? MISSING : `${Math.round(value)}${SPACE}°C`;
}

/** A load average, always two decimals so that columns line up. */
export function load(value: number | Missing): string {
  return absent(value) ? MISSING : value.toFixed(2);
}

/** A duration in words, at most two units: "4 s", "3 min", "2 h 28 min", "5 d 3 h". */
export function duration(seconds: number | Missing): string {
  if (absent(seconds)) return MISSING;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}${SPACE}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) {
    const rest = whole % 60;
    return minutes < 5 && rest > 0 ? `${minutes}${SPACE}min ${rest}${SPACE}s` : `${minutes}${SPACE}min`;
  }
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return withRest(hours, "h", minutes % 60, "min");
  const days = Math.floor(hours / 24);
  return days < 100 ? withRest(days, "d", hours % 24, "h") : `${days}${SPACE}d`;
}

function withRest(value: number, unit: string, rest: number, restUnit: string): string {
  return rest === 0 ? `${value}${SPACE}${unit}` : `${value}${SPACE}${unit} ${rest}${SPACE}${restUnit}`;
}

/** The largest unit alone: "4 s", "3 min", "2 h", "5 d". */
export function shortDuration(seconds: number | Missing): string {
  if (absent(seconds)) return MISSING;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}${SPACE}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}${SPACE}min`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}${SPACE}h`;
  return `${Math.floor(whole / 86_400)}${SPACE}d`;
}

/** "4 s ago", "3 min ago", "now" below one second. */
export function ago(atMs: number | Missing, nowMs: number): string {
  if (absent(atMs)) return "never";
  const seconds = (nowMs - atMs) / 1000;
  return seconds < 1 ? "now" : `${shortDuration(seconds)} ago`;
}

const pad = (value: number): string => value.toString().padStart(2, "0");

/** "14:02:11" in the browser's time zone. */
export function timeOfDay(atMs: number | Missing): string {
  if (absent(atMs)) return MISSING;
  const at = new Date(atMs);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

/** "14:02" today, "Mon 14:02" within a week, "3 Nov 14:02" this year, else "3 Nov 2024". */
export function moment(atMs: number | Missing, nowMs: number): string {
  if (absent(atMs)) return MISSING;
  const at = new Date(atMs);
  const now = new Date(nowMs);
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  if (at.toDateString() === now.toDateString()) return clock;
  if (Math.abs(nowMs - atMs) < 6 * 86_400_000) return `${at.toLocaleDateString("en-GB", { weekday: "short" })} ${clock}`;
  const day = `${at.getDate()} ${at.toLocaleDateString("en-GB", { month: "short" })}`;
  return at.getFullYear() === now.getFullYear() ? `${day} ${clock}` : `${day} ${at.getFullYear()}`;
}

/** The full moment with zone, for titles: "2026-11-21 14:02:11 UTC+1". */
export function fullTime(atMs: number | Missing): string {
  if (absent(atMs)) return MISSING;
  const at = new Date(atMs);
  const offset = -at.getTimezoneOffset() / 60;
  const zone = offset === 0 ? "UTC" : `UTC${offset > 0 ? "+" : "−"}${Math.abs(offset)}`;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${timeOfDay(atMs)} ${zone}`;
}

/** "2 000": groups of three digits with a thin space. */
export function grouped(value: number): string {
  return value.toLocaleString("en-US").replaceAll(",", SPACE);
}

/** "1 host", "3 hosts". */
export function count(value: number, one: string, many = `${one}s`): string {
  return `${grouped(value)} ${value === 1 ? one : many}`;
}
