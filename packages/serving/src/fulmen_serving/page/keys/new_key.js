/** Making a key. Its secret is shown once. */

import { h } from '../element.js';
import { admin, useKey } from '../server/here.js';
import { copyButton } from '../shell/clipboard.js';
import { openDialog } from '../shell/dialog.js';
import { t } from '../shell/language.js';

const NUMBERS = ['requests_per_minute', 'tokens_per_minute', 'max_concurrent'];

/** Ask what the key may do, make it, and show its secret; `made` once it is there. */
export async function makeKey(made) {
  const key = await openDialog(t('keys.new'), (close) => [newKeyForm(close)]);
  if (key === null) return;
  await made();
  await showSecret(key);
}

function newKeyForm(done) {
  const fault = h('p', { class: 'fault', role: 'alert' });
  const form = h(
    'form',
    { class: 'stack' },
    field('name', { required: true, maxlength: 200, autofocus: true }),
    h('div', { class: 'fields' }, field('organisation', { placeholder: 'default' }), field('expires', { placeholder: '90d' })),
    h('div', { class: 'fields' }, NUMBERS.map((name) => field(name, { type: 'number', min: 1, step: 1, placeholder: t('keys.unlimited') }))),
    fault,
    h('div', { class: 'row end' }, h('button', { type: 'submit', class: 'primary' }, t('keys.create'))),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    fault.textContent = '';
    const body = {};
    for (const [name, value] of new FormData(form)) {
      if (value.trim()) body[name] = NUMBERS.includes(name) ? Number(value) : value.trim();
    }
    try {
      done(await admin.json('admin/v1/keys', { method: 'POST', body }));
    } catch (error) {
      fault.textContent = error.message;
    }
  });
  return form;
}

function field(name, properties) {
  return h('div', { class: 'field' }, h('label', { for: `key-${name}` }, t(`keys.${name}`)), h('input', { id: `key-${name}`, name, autocomplete: 'off', ...properties }));
}

function showSecret({ key, name }) {
  return openDialog(t('keys.made', { name }), (close) => [
    h('p', {}, t('keys.once')),
    h('p', { class: 'secret' }, h('code', {}, key), copyButton(() => key, t('copy'), { autofocus: true })),
    h(
      'div',
      { class: 'row end' },
      h('button', { type: 'button', onclick: () => { useKey(key); close(); } }, t('keys.use')),
      h('button', { type: 'button', class: 'primary', onclick: () => close() }, t('keys.noted')),
    ),
  ]);
}
