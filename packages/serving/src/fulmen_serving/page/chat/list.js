/** The conversations beside the chat: open, rename, delete, export, import. */

import { h } from '../element.js';
import { icon } from '../icons.js';
import { say } from '../shell/announcer.js';
import { openDialog } from '../shell/dialog.js';
import { t } from '../shell/language.js';
import { titleOf } from './conversation.js';
import { download, exported, importFrom } from './exchange.js';
import { closeSession, sessionOf } from './sessions.js';
import { conversation, conversations, remove, save, store } from './store.js';

/**
 * Make the list.
 * @param {AbortSignal} left when it is no longer shown
 */
export function conversationList(left) {
  const list = h('ul', { class: 'conversations' });
  let shown = '';
  const show = () => {
    const open = location.hash.split('/')[2];
    const found = conversations();
    const now = JSON.stringify([open, ...found.map((one) => [one.id, titleOf(one)])]);
    if (now === shown) return; // an answer that grows is saved often: who is in the list must not be thrown out
    shown = now;
    list.replaceChildren(...found.map((one) => entry(one, one.id === open)));
  };
  store.addEventListener('change', show, { signal: left });
  addEventListener('hashchange', show, { signal: left });
  addEventListener('storage', show, { signal: left }); // another tab
  show();
  const file = h('input', { type: 'file', accept: '.json,application/json', hidden: true, onchange: () => take(file) });
  return h(
    'section',
    { class: 'conversation-list', 'aria-labelledby': 'conversations-title' },
    h(
      'header',
      {},
      h('h2', { id: 'conversations-title' }, t('conversations')),
      button('import', t('import'), () => file.click()),
      button('export', t('export'), () => download(exported(conversations()), 'fulmen-conversations.json')),
    ),
    file,
    list,
  );
}

function button(name, label, onclick, properties = {}) {
  return h('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, onclick, ...properties }, icon(name));
}

function entry(one, open) {
  const title = titleOf(one) || t('chat.new');
  return h(
    'li',
    {},
    h('a', { href: `#/chat/${one.id}`, 'aria-current': open ? 'page' : null }, title),
    button('edit', t('rename.it', { title }), () => rename(one)),
    button('trash', t('delete.it', { title }), () => discard(one, open)),
  );
}

async function rename(one) {
  const title = await openDialog(t('rename'), (close) => {
    const field = h('input', { id: 'title-field', value: titleOf(one), maxlength: 200, autofocus: true });
    return [
      h(
        'form',
        { class: 'stack', onsubmit: (event) => { event.preventDefault(); close(field.value.trim()); } },
        h('label', { for: 'title-field' }, t('rename.label')),
        field,
        h('div', { class: 'row end' }, h('button', { type: 'submit', class: 'primary' }, t('rename'))),
      ),
    ];
  });
  if (title === null) return;
  const { conversation: present } = sessionOf(one.id);
  present.title = title;
  save(present);
}

function discard(one, open) {
  const whole = conversation(one.id);
  closeSession(one.id);
  remove(one.id);
  if (open) location.hash = '#/chat/';
  say(t('deleted', { title: titleOf(whole) || t('chat.new') }), { label: t('undo'), act: () => save(whole) });
}

async function take(file) {
  const [given] = file.files;
  file.value = '';
  if (given === undefined) return;
  const count = importFrom(await given.text());
  say(count === null ? t('import.wrong', { name: given.name }) : t('imported', { count }));
}
