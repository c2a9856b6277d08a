/** Copying, with a sign that it was done. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { say } from './announcer.js';
import { t } from './language.js';

/** A button that copies what `text` returns. */
export function copyButton(text, label = t('copy'), properties = {}) {
  const button = h('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, ...properties }, icon('copy'));
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      copyOldWay(text()); // a page without TLS on another machine has no clipboard
    }
    button.replaceChildren(icon('done'));
    say(t('copied'));
    setTimeout(() => button.replaceChildren(icon('copy')), 1500);
  });
  return button;
}

function copyOldWay(text) {
  const field = h('textarea', { class: 'visually-hidden', 'aria-hidden': 'true', value: text });
  document.body.append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}
