/** A modal dialog that gives back what was decided: Escape, and a click beside it, decide nothing. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { t } from './language.js';

/**
 * Show a dialog until it is closed.
 * @param {string} title
 * @param {(close: (result: any) => void) => Node[]} content
 * @returns {Promise<any>} what `close` was given, null if it was dismissed
 */
export function openDialog(title, content) {
  return new Promise((resolve) => {
    let result = null;
    const close = (value) => { result = value; dialog.close(); };
    const heading = h('h2', { id: 'dialog-title' }, title);
    const dialog = h(
      'dialog',
      { 'aria-labelledby': 'dialog-title', onclose: () => { dialog.remove(); resolve(result); } },
      h(
        'div',
        { class: 'dialog-body' },
        h(
          'header',
          {},
          heading,
          h('button', { type: 'button', class: 'quiet', 'aria-label': t('close'), onclick: () => close(null) }, icon('close')),
        ),
        content(close).filter(Boolean),
      ),
    );
    dialog.addEventListener('click', (event) => { if (event.target === dialog) close(null); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
