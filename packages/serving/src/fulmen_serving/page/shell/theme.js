/** Light, dark, or as the system has it. */

import { keep, kept } from './storage.js';

export const THEMES = ['auto', 'light', 'dark'];

/** Return the theme in use. */
export function theme() {
  const chosen = kept('fulmen.theme', 'auto');
  return THEMES.includes(chosen) ? chosen : 'auto';
}

/** Use the theme after the present one, and return it. */
export function nextTheme() {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  keep('fulmen.theme', next === 'auto' ? '' : next);
  if (next === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  return next;
}
