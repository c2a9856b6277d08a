/** Where a message is written. Enter sends, Shift+Enter begins a line; while an answer comes, the button stops it. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { t } from '../shell/language.js';

/**
 * Make one.
 * @param {Object} options
 * @param {() => boolean} options.running whether an answer comes
 * @param {(text: string) => void} options.send
 * @param {() => void} options.stop
 * @param {() => void} [options.editLast] Arrow-up in the empty field
 * @returns {{element: HTMLElement, field: HTMLTextAreaElement, update: () => void}} `update` after `running` changed
 */
export function composer({ running, send, stop, editLast = () => {} }) {
  const field = h('textarea', { id: 'composer', rows: 1, 'aria-label': t('composer'), placeholder: t('composer.hint') });
  const button = h('button', { type: 'submit', class: 'primary round' });
  const update = () => {
    const label = running() ? t('stop') : t('send');
    button.replaceChildren(icon(running() ? 'stop' : 'send'));
    button.setAttribute('aria-label', label);
    button.title = label;
    button.toggleAttribute('data-running', running());
    button.disabled = !running() && field.value.trim() === '';
  };
  const submit = (event) => {
    event.preventDefault();
    if (running()) {
      stop();
    } else if (field.value.trim()) {
      const text = field.value.trim();
      field.value = '';
      send(text);
      field.focus();
    }
    update();
  };
  field.addEventListener('input', update);
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!running()) submit(event);
    } else if (event.key === 'ArrowUp' && field.value === '') {
      event.preventDefault();
      editLast();
    }
  });
  update();
  return { element: h('form', { class: 'composer', onsubmit: submit }, field, button), field, update };
}
