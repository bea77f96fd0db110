/**
 * Copies `text`. False when the browser does not allow it: its clipboard exists on https and localhost only, and the older way
 * may be switched off. The caller then selects the text, so that Ctrl+C is all that is left to do.
 */
export async function copy(text: string): Promise<boolean> {
  if (navigator.clipboard !== undefined && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Refused, by a permission for example; the older way may still work.
    }
  }
  // Inside an open dialog everything outside of it is inert: the helper field has to be in there.
  const parent = document.querySelector("dialog[open]") ?? document.body;
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.className = "visually-hidden";
  parent.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } finally {
    field.remove();
  }
}
