/** Light, dark, or what the system says. Kept in this browser; `public/theme.js` applies it before the first paint. */

export type Theme = "auto" | "light" | "dark";

const KEY = "weir.theme";
const NEXT: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto"; // Storage may be forbidden; the choice then lasts as long as the page.
  }
}

class ThemeChoice {
  #value = $state<Theme>(stored());
  #systemDark = $state(false);

  constructor() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.#systemDark = dark.matches;
    dark.addEventListener("change", (event) => {
      this.#systemDark = event.matches;
    });
  }

  get value(): Theme {
    return this.#value;
  }

  /** What is on the screen; read it in an effect to redraw a canvas. */
  get shown(): "light" | "dark" {
    if (this.#value !== "auto") return this.#value;
    return this.#systemDark ? "dark" : "light";
  }

  set(value: Theme): void {
    this.#value = value;
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    try {
      if (value === "auto") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, value);
    } catch {
      // See `stored`.
    }
  }

  next(): void {
    this.set(NEXT[this.#value]);
  }
}

export const theme = new ThemeChoice();
