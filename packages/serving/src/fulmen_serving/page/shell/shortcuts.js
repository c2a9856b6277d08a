/** What the keyboard does everywhere. Keys are told by their place, for Option makes other letters on a Mac. */

import { h } from '../element.js';
import { openDialog } from './dialog.js';
import { t } from './language.js';

const SHORTCUTS = [
  ['Enter', 'shortcut.send'],
  ['Shift+Enter', 'shortcut.line'],
  ['Esc', 'shortcut.stop'],
  ['↑', 'shortcut.edit'],
  ['/', 'shortcut.write'],
  ['Alt+N', 'shortcut.new'],
  ['Alt+1 … 5', 'shortcut.views'],
  ['?', 'shortcut.help'],
];

/** Show the list of shortcuts. */
export function showShortcuts() {
  openDialog(t('shortcuts'), () => [
    h('table', { class: 'shortcuts' }, SHORTCUTS.map(([keys, what]) => h('tr', {}, h('th', { scope: 'row' }, h('kbd', {}, keys)), h('td', {}, t(what))))),
  ]);
}

/**
 * Listen to the keyboard.
 * @param {string[]} views their names, in the order of Alt+1, Alt+2, …
 */
export function installShortcuts(views) {
  addEventListener('keydown', (event) => {
    if (document.querySelector('dialog[open]') || event.ctrlKey || event.metaKey) return;
    if (event.altKey) {
      const view = /^Digit([1-9])$/.exec(event.code);
      if (view && views[view[1] - 1]) location.hash = `#/${views[view[1] - 1]}`;
      else if (event.code === 'KeyN') location.hash = '#/chat/';
      else return;
      event.preventDefault();
    } else if (event.key === 'Escape') {
      document.querySelector('.composer button[data-running]')?.click();
    } else if (!event.target.closest('input, textarea, select')) {
      if (event.key === '/') document.getElementById('composer')?.focus();
      else if (event.key === '?') showShortcuts();
      else return;
      event.preventDefault();
    }
  });
}
