/** What the browser keeps. A browser that keeps nothing (private windows, full disks) must not stop the page. */

/** Return the text kept under `name`, or `otherwise`. */
export function kept(name, otherwise = '', where = localStorage) {
  try {
    return where.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a text, or forget it if it is empty. Returns whether the browser did. */
export function keep(name, text, where = localStorage) {
  try {
    if (text === '') where.removeItem(name);
    else where.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}
