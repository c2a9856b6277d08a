/** One side of a comparison: which server and which model, and what it answers. */

import { transcript } from '../chat/transcript.js';
import { newConversation } from '../chat/conversation.js';
import { ChatSession } from '../chat/session.js';
import { h } from '../element.js';
import { Endpoint } from '../server/endpoint.js';
import { here } from '../server/here.js';
import { keep, kept } from '../shell/storage.js';
import { t } from '../shell/language.js';

/** What a side remembers while the page is open: its session, and where it asks. */
export function newSide(name) {
  return {
    name,
    session: new ChatSession(newConversation(), here),
    url: kept(`fulmen.compare.${name}`),
    models: [],
    fault: '',
  };
}

/**
 * Show a side.
 * @param {Object} side see `newSide`
 * @param {AbortSignal} left when the view is left
 * @param {() => void} changed after another model was chosen
 */
export function pane(side, left, changed) {
  const id = (part) => `${side.name}-${part}`;
  const { session } = side;
  const where = h(
    'select',
    { id: id('where'), onchange: () => { side.url = where.value === 'other' ? ' ' : ''; show(); if (!side.url) connect(); } },
    h('option', { value: 'here' }, t('compare.here')),
    h('option', { value: 'other' }, t('compare.other')),
  );
  const url = h('input', { id: id('url'), type: 'url', required: true, placeholder: `${location.origin.replace(/:\d+$/, '')}:8001/v1`, value: side.url.trim(), autocomplete: 'off' });
  const key = h('input', { id: id('key'), type: 'password', autocomplete: 'off', value: kept(`fulmen.compare.${side.name}.key`, '', sessionStorage) });
  const model = h('select', { id: id('model'), onchange: () => { session.conversation.model = model.value; changed(); } });
  const fault = h('p', { class: 'fault', role: 'alert' });
  const other = h(
    'form',
    {
      class: 'other',
      onsubmit: (event) => {
        event.preventDefault();
        side.url = url.value.trim();
        keep(`fulmen.compare.${side.name}`, side.url);
        keep(`fulmen.compare.${side.name}.key`, key.value.trim(), sessionStorage);
        connect();
      },
    },
    h('div', { class: 'field' }, h('label', { for: url.id }, t('compare.url')), url),
    h('div', { class: 'field' }, h('label', { for: key.id }, t('compare.key')), key),
    h('button', { type: 'submit' }, t('compare.connect')),
  );

  const show = () => {
    where.value = side.url ? 'other' : 'here';
    other.hidden = !side.url;
    fault.textContent = side.fault;
    model.replaceChildren(...side.models.map((name) => h('option', { value: name }, name)));
    model.disabled = side.models.length === 0;
    model.value = session.conversation.model;
    changed();
  };
  const connect = async () => {
    const address = side.url.trim();
    session.endpoint = address ? new Endpoint(address, { read: () => kept(`fulmen.compare.${side.name}.key`, '', sessionStorage) }) : here;
    try {
      side.models = await session.endpoint.models({ signal: left });
      side.fault = '';
    } catch (error) {
      if (left.aborted) return;
      side.models = [];
      side.fault = address ? t('compare.unreachable', { url: address, reason: error.message }) : error.message;
    }
    if (!side.models.includes(session.conversation.model)) session.conversation.model = side.models[0] ?? '';
    show();
  };
  show();
  connect();
  return h(
    'section',
    { class: 'pane', 'aria-label': t(`compare.${side.name}`) },
    h(
      'div',
      { class: 'pane-head' },
      h('div', { class: 'row' }, h('label', { for: where.id, class: 'visually-hidden' }, t('compare.where')), where, h('label', { for: model.id, class: 'visually-hidden' }, t('model')), model),
      other,
      fault,
    ),
    transcript(session, left, h('p', { class: 'empty-state hint' }, t('compare.empty'))),
  );
}
