/** Asks for a key. Several requests that need one at once ask once. */

import { h } from '../element.js';
import { openDialog } from './dialog.js';
import { t } from './language.js';

const asked = new Map();

/**
 * Ask for the key of a kind.
 * @param {'api'|'admin'} kind
 * @param {string} reason what the server said
 * @returns {Promise<string|null>} the key, or null: there is none
 */
export function askKey(kind, reason) {
  if (!asked.has(kind)) asked.set(kind, open(kind, reason).finally(() => asked.delete(kind)));
  return asked.get(kind);
}

function open(kind, reason) {
  return openDialog(t(`key.${kind}.title`), (close) => {
    const field = h('input', {
      type: 'password', id: 'key-field', autocomplete: 'off', spellcheck: 'false', required: true, autofocus: true,
    });
    const submit = (event) => {
      event.preventDefault();
      if (field.value.trim()) close(field.value.trim());
    };
    return [
      reason && h('p', { class: 'fault', role: 'alert' }, reason),
      h(
        'form',
        { onsubmit: submit, class: 'stack' },
        h('label', { for: 'key-field' }, t(`key.${kind}.label`)),
        field,
        h('p', { class: 'hint' }, t('key.kept')),
        h('div', { class: 'row end' }, h('button', { type: 'submit', class: 'primary' }, t('key.use'))),
      ),
    ];
  });
}
