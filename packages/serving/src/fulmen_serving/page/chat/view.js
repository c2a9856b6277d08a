/** The chat: one conversation with this server's model. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { servedModels } from '../server/models.js';
import { t } from '../shell/language.js';
import { composer } from './composer.js';
import { titleOf } from './conversation.js';
import { parametersForm } from './parameters.js';
import { sessionOf } from './sessions.js';
import { save, store } from './store.js';
import { transcript } from './transcript.js';

/**
 * Show a conversation.
 * @param {Object} options
 * @param {string} options.rest the id of the conversation; empty begins one
 * @param {AbortSignal} options.left when the view is left
 */
export function chatView({ rest, left }) {
  const session = sessionOf(rest);
  const { conversation } = session;
  if (rest !== conversation.id) history.replaceState(null, '', `#/chat/${conversation.id}`);

  const heading = h('h1', { tabindex: -1 });
  const model = h('span', { class: 'model' });
  const writer = composer({
    running: () => session.running !== null,
    send: (text) => ready.then(() => session.send(text)), // who writes faster than the model's name arrives waits for it
    stop: () => session.stop(),
    editLast: () => [...list.querySelectorAll('.message.user .actions button')].at(-2)?.click(),
  });
  const list = transcript(session, left, emptyState());
  const panel = h(
    'section',
    { class: 'panel', id: 'parameters', 'aria-label': t('parameters'), hidden: true },
    parametersForm(conversation, () => { if (conversation.messages.length) save(conversation); }),
  );
  const toggle = h(
    'button',
    {
      type: 'button', class: 'quiet', 'aria-label': t('parameters'), title: t('parameters'), 'aria-expanded': 'false', 'aria-controls': 'parameters',
      onclick: () => {
        panel.hidden = !panel.hidden;
        toggle.setAttribute('aria-expanded', String(!panel.hidden));
        if (!panel.hidden) panel.querySelector('textarea').focus();
      },
    },
    icon('sliders'),
  );
  panel.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    toggle.click();
    toggle.focus();
  });

  const showTitle = () => { heading.textContent = titleOf(conversation) || t('chat.new'); };
  const showModels = (names) => {
    if (!names.includes(conversation.model)) conversation.model = names[0];
    const choice = h(
      'select',
      { 'aria-label': t('model'), onchange: () => { conversation.model = choice.value; } },
      names.map((name) => h('option', { value: name }, name)),
    );
    choice.value = conversation.model;
    model.replaceChildren(names.length > 1 ? choice : names[0]);
  };
  session.addEventListener('change', writer.update, { signal: left });
  store.addEventListener('change', showTitle, { signal: left });
  const ready = servedModels().then(showModels, (error) => model.replaceChildren(h('span', { class: 'fault', role: 'alert' }, error.message)));
  showTitle();
  queueMicrotask(() => { if (matchMedia('(pointer: fine)').matches) writer.field.focus(); });

  return h(
    'div',
    { class: 'chat' },
    h('header', { class: 'view-head' }, heading, model, toggle),
    h('div', { class: 'chat-columns' }, h('div', { class: 'chat-column' }, list, writer.element), panel),
  );
}

function emptyState() {
  return h('div', { class: 'empty-state' }, icon('bolt'), h('p', { class: 'greeting' }, t('chat.greeting')), h('p', { class: 'hint' }, t('chat.hint')));
}
